package roomkv_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleWithFlushEvery() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)

	store, err := roomkv.New(client, room.String(), roomkv.WithFlushEvery(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	for range 100 { // no more than one event
		count := func(seen int, _ bool) (int, error) { return seen + 1, nil }
		if err := roomkv.Update(ctx, store, "seen", count); err != nil {
			log.Fatal(err)
		}
	}
	seen, err := roomkv.Get[int](ctx, store, "seen")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(seen)
	if err := store.Close(ctx); err != nil { // sends what is left
		log.Print(err)
	}
	// Output: 100
}
