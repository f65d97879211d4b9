package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// logged is an observer that prints what operations take.
type logged struct{}

func (logged) Start(ctx context.Context, _ roomkv.Operation) context.Context { return ctx }

func (logged) End(_ context.Context, op roomkv.Operation, outcome roomkv.Outcome) {
	fmt.Printf("%s: %d requests, error %q\n", op.Kind, outcome.Requests, outcome.Error)
}

func ExampleWithObserver() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String(), roomkv.WithPerKeyState(), roomkv.WithObserver(logged{}))
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := store.Put(ctx, "greeting", "Hello!"); err != nil {
			log.Fatal(err)
		}
	}
	if err := store.Get(ctx, "missing", new(string)); !errors.Is(err, roomkv.ErrNotFound) {
		log.Fatal(err)
	}
	// Output:
	// Put: 3 requests, error ""
	// Put: 1 requests, error ""
	// Get: 1 requests, error "ErrNotFound"
}
