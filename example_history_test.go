package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_History() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	for _, topic := range []string{"gardens", "plants", "trees"} {
		if err := store.Put(ctx, "topic", topic); err != nil {
			log.Fatal(err)
		}
	}
	if err := store.Delete(ctx, "topic"); err != nil {
		log.Fatal(err)
	}
	for entry, err := range store.History(ctx, "topic") { // the newest first
		switch {
		case err != nil:
			log.Print(err) // of this revision, such as ErrRedacted; those before it may be fine
		case entry.Deleted:
			fmt.Println("deleted by", entry.Sender)
		default:
			fmt.Printf("%s by %s\n", entry.Value, entry.Sender)
		}
	}
	// Output:
	// deleted by @bot:example.org
	// "trees" by @bot:example.org
	// "plants" by @bot:example.org
	// "gardens" by @bot:example.org
}

func ExampleStore_Restore() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"score/alice": 3, "score/bob": 5}); err != nil {
		log.Fatal(err)
	}
	good, err := store.Entry(ctx, "score/alice")
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"score/alice": -1, "score/bob": -1, "score/carol": -1}); err != nil { // by mistake
		log.Fatal(err)
	}

	snapshot, err := store.At(ctx, roomkv.AtRevision(good.Revision)) // or AtTime, for example yesterday
	if err != nil {
		log.Fatal(err)
	}
	changed, err := store.Restore(ctx, snapshot)
	if err != nil {
		log.Fatal(err)
	}
	keys, err := store.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	score, err := roomkv.Get[int](ctx, store, "score/alice")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(changed, keys, score)
	// Output:
	// 3 [score/alice score/bob] 3
}
