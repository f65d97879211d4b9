package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// count counts a member's messages in the memory of the room where they were sent.
func count(ctx context.Context, evt *event.Event, room *roomkv.Store) {
	more := func(seen int, _ bool) (int, error) { return seen + 1, nil }
	if err := roomkv.Update(ctx, room, evt.Sender.String(), more); err != nil {
		log.Print(err)
	}
}

// A whole bot, and a member of its room who says something.
func ExampleStore_InEventRoom() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	bot, alice := server.Client("bot"), server.Client("alice")
	room := server.Room(bot, alice)

	store, err := roomkv.New(bot, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Follow(); err != nil {
		log.Fatal(err)
	}
	bot.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, store.InEventRoom(count))
	defer server.Sync(bot)() // a program calls bot.Sync

	for range 2 {
		if _, err := alice.SendText(ctx, room, "Hello!"); err != nil {
			log.Fatal(err)
		}
	}
	server.Settle(bot) // until the handlers have returned
	seen, err := roomkv.Get[int](ctx, store, alice.UserID.String())
	fmt.Println(alice.UserID, seen, err)
	// Output:
	// @alice:example.org 2 <nil>
}
