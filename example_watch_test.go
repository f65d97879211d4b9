package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_Watch() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Follow(); err != nil {
		log.Fatal(err)
	}
	defer server.Sync(client)() // a program calls client.Sync in a goroutine
	if err := store.Put(ctx, "score alice", 1); err != nil {
		log.Fatal(err)
	}
	read, err := store.Entry(ctx, "score alice")
	if err != nil {
		log.Fatal(err)
	}
	for _, points := range []int{2, 3} {
		if err := store.Put(ctx, "score alice", points); err != nil {
			log.Fatal(err)
		}
	}
	for change, err := range store.Watch(ctx, roomkv.WatchPrefix("score "), roomkv.WatchFrom(read.Revision)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s → %s\n", change.Key, change.Old, change.New)
		if string(change.New) == "3" {
			break
		}
	}
	// Output:
	// score alice: 1 → 2
	// score alice: 2 → 3
}

func ExampleWatchInitial() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Follow(); err != nil {
		log.Fatal(err)
	}
	defer server.Sync(client)() // a program calls client.Sync in a goroutine
	if err := store.PutAll(ctx, map[string]any{"poll/pizza": 3, "poll/pasta": 2, "quiz/alice": 7, "mood": "fine"}); err != nil {
		log.Fatal(err)
	}
	table := map[string]string{} // a copy of what is there, kept current
	for change, err := range store.Watch(ctx, roomkv.WatchInitial(), roomkv.WatchPrefix("poll/", "quiz/")) {
		if err != nil {
			log.Fatal(err)
		}
		if change.EndOfInitial {
			fmt.Println("complete:", table)
			if err := store.Put(ctx, "quiz/alice", 8); err != nil {
				log.Fatal(err)
			}
			continue
		}
		if table[change.Key] = string(change.New); change.Old != nil {
			break
		}
	}
	fmt.Println("changed:", table)
	// Output:
	// complete: map[poll/pasta:2 poll/pizza:3 quiz/alice:7]
	// changed: map[poll/pasta:2 poll/pizza:3 quiz/alice:8]
}
