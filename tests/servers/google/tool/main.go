// The tests' client for Pub/Sub, by Google's own library. Usage: google-tool COMMAND ARGUMENTS..., with
// PUBSUB_EMULATOR_HOST.
//
//	topic PROJECT TOPIC                              makes a topic
//	subscription PROJECT NAME TOPIC SECONDS          makes a subscription with ordering and this ack deadline
//	publish PROJECT TOPIC                            publishes the lines {data, attributes, orderingKey} in order
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

type message struct {
	Data        []byte            `json:"data"`
	Attributes  map[string]string `json:"attributes"`
	OrderingKey string            `json:"orderingKey"`
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

func main() {
	ctx := context.Background()
	project, arguments := os.Args[2], os.Args[3:]
	client := must(pubsub.NewClient(ctx, project))
	topic := func(name string) string { return fmt.Sprintf("projects/%s/topics/%s", project, name) }
	switch os.Args[1] {
	case "topic":
		must(client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic(arguments[0])}))
	case "subscription":
		must(client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
			Name:                  fmt.Sprintf("projects/%s/subscriptions/%s", project, arguments[0]),
			Topic:                 topic(arguments[1]),
			AckDeadlineSeconds:    int32(must(strconv.Atoi(arguments[2]))),
			EnableMessageOrdering: true,
		}))
	case "publish":
		publisher := client.Publisher(arguments[0])
		publisher.EnableMessageOrdering = true
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 4<<20)
		var results []*pubsub.PublishResult
		for lines.Scan() {
			var line message
			check(json.Unmarshal(lines.Bytes(), &line))
			results = append(results, publisher.Publish(ctx, &pubsub.Message{
				Data: line.Data, Attributes: line.Attributes, OrderingKey: line.OrderingKey,
			}))
		}
		check(lines.Err())
		for _, result := range results {
			must(result.Get(ctx))
		}
		publisher.Stop()
	default:
		check(fmt.Errorf("no command %s", os.Args[1]))
	}
}
