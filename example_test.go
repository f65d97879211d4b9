package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

type reminder struct {
	Text string
	Hour float64
}

func Example() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear) // a homeserver in memory; a program has a client of its own, and a room
	client := server.Client("bot")
	room := server.Room(client)

	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "reminder", reminder{"water the plants", 17.5}); err != nil {
		log.Fatal(err)
	}
	got, err := roomkv.Get[reminder](ctx, store, "reminder")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s at %v\n", got.Text, got.Hour)

	if err := store.Delete(ctx, "reminder"); err != nil {
		log.Fatal(err)
	}
	_, err = roomkv.Get[reminder](ctx, store, "reminder")
	fmt.Println(errors.Is(err, roomkv.ErrNotFound))
	// Output:
	// water the plants at 17.5
	// true
}
