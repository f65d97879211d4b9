package roomkv_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// An application service has mautrix's appservice.EventProcessor, whose On stands where this example has on.
func ExampleStore_FollowEvents() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	handlers := map[event.Type]func(context.Context, *event.Event){}
	on := func(eventType event.Type, handle func(context.Context, *event.Event)) { handlers[eventType] = handle }

	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.FollowEvents(on, time.Minute); err != nil {
		log.Fatal(err)
	}
	another, err := roomkv.New(client, room.String()) // in another process, for example
	if err != nil {
		log.Fatal(err)
	}
	for change, err := range store.Watch(ctx, roomkv.WatchInitial()) {
		if err != nil {
			log.Fatal(err)
		}
		if !change.EndOfInitial {
			fmt.Printf("%s: %s\n", change.Key, change.New)
			break
		}
		if err := another.Put(ctx, "greeting", "Hello!"); err != nil {
			log.Fatal(err)
		}
		sent, err := another.Entry(ctx, "greeting")
		if err != nil {
			log.Fatal(err)
		}
		// The homeserver pushes the event.
		database := event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}
		handlers[database](ctx, &event.Event{ID: id.EventID(sent.Revision), Type: database, StateKey: new(string), RoomID: room})
	}
	if err := store.Close(ctx); err != nil {
		log.Print(err)
	}
	// Output: greeting: "Hello!"
}
