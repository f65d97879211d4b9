// Quickstart shows what roomkv does, on a real homeserver.
//
// Without any configuration it starts a homeserver of its own (Dendrite; the first run builds it, which takes some
// minutes), and needs nothing but Go:
//
//	go run -tags goolm ./examples/quickstart
//
// With ROOMKV_HOMESERVER, ROOMKV_USER and ROOMKV_PASSWORD it does the same on any homeserver, as that user:
//
//	ROOMKV_HOMESERVER=https://matrix.example.org ROOMKV_USER=bot ROOMKV_PASSWORD=… go run -tags goolm ./examples/quickstart
//
// With -serve it keeps the homeserver up instead, with a bot and three rooms, for you to try things on:
//
//	go run -tags goolm ./examples/quickstart -serve
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
)

func main() {
	stay := flag.Bool("serve", false, "keep the homeserver up, with a bot and its rooms, until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	show := run
	if *stay {
		show = serve
	}
	if err := show(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	server, err := homeserver.FromEnv(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	bot, user, err := accounts(ctx, server)
	if err != nil {
		return err
	}
	fmt.Printf("homeserver %s, bot %s, user %s\n", server.URL, bot.UserID, user.UserID)

	lobby, err := newRoom(ctx, bot, user, "Lobby")
	if err != nil {
		return err
	}
	arena, err := newRoom(ctx, bot, user, "Arena")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(bot, user, lobby, arena)) }()

	if err := putGetDelete(ctx, bot, lobby); err != nil {
		return err
	}
	if err := otherRooms(ctx, bot, lobby, arena); err != nil {
		return err
	}
	if err := keepScores(ctx, bot, user, lobby, arena); err != nil {
		return err
	}
	if err := encrypt(ctx, server, bot); err != nil {
		return err
	}
	heading("That is all: no database was set up, and the bot can be restarted anywhere.")
	return nil
}

// putGetDelete is the everyday use, in both layouts.
func putGetDelete(ctx context.Context, bot *mautrix.Client, room id.RoomID) error {
	type settings struct {
		Greeting string  `json:"greeting"`
		Volume   float64 `json:"volume"`
	}
	for _, layout := range []struct {
		name, eventType string
		option          roomkv.Option
		stateKeys       []string
	}{
		{"All keys in one state event (the default)", roomkv.DefaultEventType, roomkv.WithSingleStateKey(""), []string{""}},
		{"Each key in a state event of its own", "com.example.perkey", roomkv.WithPerKeyState(), []string{"settings", "visits"}},
	} {
		heading(layout.name)
		store, err := roomkv.New(bot, room.String(), layout.option, roomkv.WithEventType(layout.eventType))
		if err != nil {
			return err
		}
		if err := store.Put(ctx, "settings", settings{"Hello!", 0.8}); err != nil {
			return err
		}
		if err := store.PutAll(ctx, map[string]any{"visits": 1, "scratch": []string{"any", "JSON"}}); err != nil {
			return err
		}
		if err := roomkv.Update(ctx, store, "visits", func(old int, _ bool) (int, error) { return old + 1, nil }); err != nil {
			return err
		}
		if err := store.Delete(ctx, "scratch"); err != nil {
			return err
		}

		for entry, err := range store.All(ctx) {
			if err != nil {
				return err
			}
			fmt.Printf("  %-10s = %s\n", entry.Key, entry.Value)
		}
		_, err = roomkv.Get[[]string](ctx, store, "scratch")
		fmt.Printf("  %-10s → %v\n", "scratch", err)
		fmt.Println("  what the homeserver holds:")
		for _, stateKey := range layout.stateKeys {
			if err := printState(ctx, bot, room, layout.eventType, stateKey); err != nil {
				return err
			}
		}
	}
	return nil
}

// otherRooms shows that each room has a memory of its own, which WithRoom reaches.
func otherRooms(ctx context.Context, bot *mautrix.Client, lobby, arena id.RoomID) error {
	heading("Another room, by its configured name")
	store, err := roomkv.New(bot, "lobby", roomkv.WithRooms(map[string]string{
		"lobby": lobby.String(),
		"arena": arena.String(),
	}))
	if err != nil {
		return err
	}
	there, err := store.WithRoom(ctx, "arena")
	if err != nil {
		return err
	}
	if err := there.Put(ctx, "visits", 100); err != nil {
		return err
	}
	for _, room := range []struct {
		name  string
		store *roomkv.Store
	}{{"lobby", store}, {"arena", there}} {
		visits, err := roomkv.Get[int](ctx, room.store, "visits")
		if err != nil {
			return err
		}
		fmt.Printf("  visits in the %s: %d\n", room.name, visits)
	}
	return nil
}

// keepScores runs a bot: whoever writes a message gets a point, counted by each room for itself.
func keepScores(ctx context.Context, bot, user *mautrix.Client, lobby, arena id.RoomID) error {
	heading("A bot that keeps scores, each room its own")
	store, err := roomkv.New(bot, lobby.String())
	if err != nil {
		return err
	}
	if err := store.Follow(); err != nil {
		return err
	}
	// The bot gets only what is sent from now on.
	if err := skipHistory(ctx, bot); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answered := make(chan error, 1)
	onMessage := store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		if evt.RoomID != lobby && evt.RoomID != arena || evt.Sender != user.UserID {
			return // the account may be in other rooms, which are none of our business
		}
		if evt.Content.AsMessage().MsgType != event.MsgText { // bots answer with notices, so as not to answer each other
			return
		}
		select {
		case answered <- score(ctx, bot, evt, room):
		case <-ctx.Done():
		}
	})
	bot.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, onMessage)
	synced := make(chan error, 1)
	go func() { synced <- bot.SyncWithContext(ctx) }()

	for _, room := range []id.RoomID{lobby, lobby, arena} {
		if _, err := user.SendText(ctx, room, "hello"); err != nil {
			return err
		}
		select {
		case err := <-answered:
			if err != nil {
				return err
			}
		case err := <-synced:
			return fmt.Errorf("the sync loop ended: %w", err)
		}
	}
	fmt.Println("  what the homeserver holds:")
	for _, room := range []id.RoomID{lobby, arena} {
		if err := printState(ctx, bot, room, roomkv.DefaultEventType, ""); err != nil {
			return err
		}
	}
	// The last poll is answered, not cancelled: a cancelled one can leave Dendrite's SQLite in a transaction for good.
	bot.StopSync()
	if _, err := user.SendText(ctx, lobby, "bye"); err != nil {
		return err
	}
	return <-synced
}

// score is the bot's handler. It knows nothing of rooms: the store it gets is that of the message's room.
func score(ctx context.Context, bot *mautrix.Client, evt *event.Event, room *roomkv.Store) error {
	key := "score " + evt.Sender.String()
	var points int
	err := roomkv.Update(ctx, room, key, func(old int, _ bool) (int, error) {
		points = old + 1
		return points, nil
	})
	if err != nil {
		return err
	}
	answer := fmt.Sprintf("%s now has %d in this room", evt.Sender, points)
	fmt.Printf("  %s: %q → %q\n", evt.RoomID, evt.Content.AsMessage().Body, answer)
	_, err = bot.SendNotice(ctx, evt.RoomID, answer)
	return err
}

func printState(ctx context.Context, client *mautrix.Client, room id.RoomID, eventType, stateKey string) error {
	var content json.RawMessage
	err := client.StateEvent(ctx, room, event.Type{Type: eventType, Class: event.StateEventType}, stateKey, &content)
	if err == nil {
		fmt.Printf("    %s %q %s\n", eventType, stateKey, content)
	}
	return err
}

func heading(text string) { fmt.Printf("\n%s\n", text) }
