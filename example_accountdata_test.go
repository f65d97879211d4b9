package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// A bot that may not send state, as in most rooms that others have made.
func ExampleWithAccountDataFallback() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	alice, bot := server.Client("alice"), server.Client("bot")
	room := server.Room(alice, bot)

	without, err := roomkv.New(bot, room.String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(without.Put(ctx, "greeting", "Hello!"), roomkv.ErrForbidden))

	store, err := roomkv.New(bot, room.String(), roomkv.WithAccountDataFallback())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "greeting", "Hello!"); err != nil {
		log.Fatal(err)
	}
	entry, err := store.Entry(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is in the %v\n", entry.Value, entry.Place)
	// Output:
	// true
	// "Hello!" is in the account data
}
