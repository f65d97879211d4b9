package roomkvtest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// start is the bot: it greets each member once.
func start(bot *mautrix.Client, room string) error {
	store, err := roomkv.New(bot, room)
	if err != nil {
		return err
	}
	if err := store.Follow(); err != nil {
		return err
	}
	greet := func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		err := room.Create(ctx, "greeted/"+evt.Sender.String(), true)
		switch {
		case evt.Sender == bot.UserID || errors.Is(err, roomkv.ErrExists):
		case err != nil:
			log.Print(err)
		default:
			_, _ = bot.SendText(ctx, evt.RoomID, "Welcome, "+evt.Sender.Localpart()+"!")
		}
	}
	bot.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, store.InEventRoom(greet))
	return nil
}

// A test of a bot. In a function such as TestGreeting, its t stands in the place of nil, and t.Fatal in that of log.Fatal.
func Example() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	bot, alice := server.Client("bot"), server.Client("alice")
	room := server.Room(bot, alice)
	if err := start(bot, room.String()); err != nil {
		log.Fatal(err)
	}
	defer server.Sync(bot)() // a test needs no defer

	for range 2 {
		if _, err := alice.SendText(ctx, room, "Hello!"); err != nil {
			log.Fatal(err)
		}
		server.Settle(bot)
	}
	page, err := alice.Messages(ctx, room, "", "", mautrix.DirectionBackward, nil, 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, evt := range slices.Backward(page.Chunk) {
		if evt.Type.Type == event.EventMessage.Type {
			fmt.Printf("%s: %s\n", evt.Sender, evt.Content.Raw["body"])
		}
	}
	// Output:
	// @alice:example.org: Hello!
	// @bot:example.org: Welcome, alice!
	// @alice:example.org: Hello!
}
