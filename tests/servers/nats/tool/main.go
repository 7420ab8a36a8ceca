// The tests' client for NATS, by NATS' own library. Usage: nats-tool URL COMMAND ARGUMENTS...; input and output are lines
// of JSON with bytes in base64.
//
//	stream NAME SUBJECT...       makes a stream that is kept on disk
//	consumer STREAM NAME WAIT    makes a durable pull consumer with this time for an acknowledgement
//	send                         publishes the lines {subject, data, headers: [[name, value]...]} to streams
//	publish                      publishes them without streams
//	listen SUBJECT COUNT         prints "listening", then so many messages
//	read STREAM                  prints all messages of a stream
//	state STREAM NAME            prints what a consumer has to do
//	operator FOLDER              (URL is not used) writes operator.conf and user.creds
//	nkey                         (URL is not used) prints the seed and the public key of a user
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

type message struct {
	Subject string      `json:"subject"`
	Data    []byte      `json:"data"`
	Headers [][2]string `json:"headers"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func connect() *nats.Conn {
	return must(nats.Connect(os.Args[1], nats.Timeout(5*time.Second)))
}

func stream() nats.JetStreamContext {
	return must(connect().JetStream(nats.PublishAsyncMaxPending(1000), nats.MaxWait(10*time.Second)))
}

func sent(each func(*nats.Msg)) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var line message
		check(json.Unmarshal(lines.Bytes(), &line))
		msg := nats.NewMsg(line.Subject)
		msg.Data = line.Data
		for _, header := range line.Headers {
			// Not Set, which would change the case of names.
			msg.Header[header[0]] = append(msg.Header[header[0]], header[1])
		}
		each(msg)
	}
	check(lines.Err())
}

func show(subject string, data []byte, header nats.Header) {
	line := message{Subject: subject, Data: data, Headers: [][2]string{}}
	for name, values := range header {
		for _, value := range values {
			line.Headers = append(line.Headers, [2]string{name, value})
		}
	}
	fmt.Println(string(must(json.Marshal(line))))
}

func main() {
	arguments := os.Args[3:]
	switch os.Args[2] {
	case "stream":
		_, err := stream().AddStream(&nats.StreamConfig{Name: arguments[0], Subjects: arguments[1:]})
		check(err)
	case "consumer":
		wait := must(time.ParseDuration(arguments[2]))
		_, err := stream().AddConsumer(arguments[0], &nats.ConsumerConfig{
			Durable: arguments[1], AckPolicy: nats.AckExplicitPolicy, AckWait: wait, MaxAckPending: 10000,
		})
		check(err)
	case "send":
		js := stream()
		var acks []nats.PubAckFuture
		sent(func(msg *nats.Msg) { acks = append(acks, must(js.PublishMsgAsync(msg))) })
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				check(err)
			}
		}
	case "publish":
		conn := connect()
		sent(func(msg *nats.Msg) { check(conn.PublishMsg(msg)) })
		check(conn.Flush())
	case "listen":
		conn := connect()
		subscription := must(conn.SubscribeSync(arguments[0]))
		check(subscription.SetPendingLimits(-1, -1))
		check(conn.Flush())
		fmt.Println("listening")
		for range must(strconv.Atoi(arguments[1])) {
			msg := must(subscription.NextMsg(30 * time.Second))
			show(msg.Subject, msg.Data, msg.Header)
		}
	case "read":
		js := stream()
		info := must(js.StreamInfo(arguments[0]))
		if info.State.Msgs == 0 {
			return
		}
		subscription := must(js.SubscribeSync("", nats.BindStream(arguments[0]), nats.OrderedConsumer()))
		for {
			msg := must(subscription.NextMsg(10 * time.Second))
			show(msg.Subject, msg.Data, msg.Header)
			if must(msg.Metadata()).NumPending == 0 {
				return
			}
		}
	case "state":
		js := stream()
		info, err := js.ConsumerInfo(arguments[0], arguments[1])
		if err == nats.ErrConsumerNotFound {
			info, err = &nats.ConsumerInfo{}, nil
		}
		check(err)
		last := must(js.StreamInfo(arguments[0])).State.LastSeq
		fmt.Println(string(must(json.Marshal(map[string]uint64{
			"acknowledged": info.AckFloor.Stream, "last": last, "redelivered": uint64(info.NumRedelivered),
			"deliveries": info.Delivered.Consumer,
		}))))
	case "operator":
		operator, account, user := must(nkeys.CreateOperator()), must(nkeys.CreateAccount()), must(nkeys.CreateUser())
		public := func(pair nkeys.KeyPair) string { return must(pair.PublicKey()) }
		userToken := must(jwt.NewUserClaims(public(user)).Encode(account))
		accountToken := must(jwt.NewAccountClaims(public(account)).Encode(operator))
		operatorToken := must(jwt.NewOperatorClaims(public(operator)).Encode(operator))
		credentials := must(jwt.FormatUserConfig(userToken, must(user.Seed())))
		check(os.WriteFile(filepath.Join(arguments[0], "user.creds"), credentials, 0o600))
		configuration := fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }\n",
			operatorToken, public(account), accountToken)
		check(os.WriteFile(filepath.Join(arguments[0], "operator.conf"), []byte(configuration), 0o600))
	case "nkey":
		user := must(nkeys.CreateUser())
		fmt.Println(string(must(user.Seed())), must(user.PublicKey()))
	default:
		check(fmt.Errorf("no command %s", os.Args[2]))
	}
}
