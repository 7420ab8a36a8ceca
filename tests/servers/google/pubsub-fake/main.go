// pubsub-fake serves Google's in-memory Pub/Sub fake on 127.0.0.1:PORT (for PUBSUB_EMULATOR_HOST), and on
// 127.0.0.1:CONTROL what no emulator tells: `GET /` how many messages there are and how many of them are acknowledged,
// `PUT /deny` and `PUT /allow` whether pulls are refused.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type refusal struct{ on atomic.Bool }

func (r *refusal) React(interface{}) (bool, interface{}, error) {
	if r.on.Load() {
		return true, nil, status.Error(codes.Unauthenticated, "Request had invalid authentication credentials.")
	}
	return false, nil, nil
}

func main() {
	denied := &refusal{}
	reaction := func(name string) pstest.ServerReactorOption {
		return pstest.ServerReactorOption{FuncName: name, Reactor: denied}
	}
	srv := pstest.NewServerWithAddress("127.0.0.1:"+os.Args[1], reaction("Pull"), reaction("GetSubscription"))
	control := http.NewServeMux()
	control.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		messages := srv.Messages()
		acknowledged, deliveries := 0, 0
		for _, message := range messages {
			deliveries += message.Deliveries
			if message.Acks > 0 {
				acknowledged++
			}
		}
		json.NewEncoder(w).Encode(map[string]int{
			"messages": len(messages), "acknowledged": acknowledged, "deliveries": deliveries,
		})
	})
	control.HandleFunc("PUT /deny", func(http.ResponseWriter, *http.Request) { denied.on.Store(true) })
	control.HandleFunc("PUT /allow", func(http.ResponseWriter, *http.Request) { denied.on.Store(false) })
	go func() { log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[2], control)) }()
	fmt.Println("listening on", srv.Addr)
	select {}
}
