package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// greet says hello to a user, once in an hour.
func greet(ctx context.Context, store *roomkv.Store, user string) error {
	err := store.Create(ctx, "greeted/"+user, true, roomkv.ExpireAfter(time.Hour))
	switch {
	case errors.Is(err, roomkv.ErrExists): // less than an hour ago
		return nil
	case err != nil:
		return err
	}
	fmt.Println("Hello,", user)
	return nil
}

func ExampleExpireAfter() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range []string{"alice", "alice", "bob"} {
		if err := greet(ctx, store, user); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// Hello, alice
	// Hello, bob
}
