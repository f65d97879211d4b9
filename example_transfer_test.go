package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_Import() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	settings := strings.NewReader(`{"language": "de", "volume": 7}`)
	imported, err := store.Import(ctx, settings, roomkv.ImportJSON())
	if err != nil {
		log.Fatal(err)
	}
	volume, err := roomkv.Get[int](ctx, store, "volume")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(imported.Written, volume)
	// Output:
	// 2 7
}

// A bot that has kept its settings in account data moves them into the room's state when it first starts with roomkv.
func ExampleStore_ImportAccountData() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	settings := map[string]any{"language": "de", "volume": 7} // as the bot has stored them until now
	if err := client.SetRoomAccountData(ctx, room, "com.example.mybot", settings); err != nil {
		log.Fatal(err)
	}

	imported, err := store.ImportAccountData(ctx, room, "com.example.mybot")
	switch {
	case errors.Is(err, roomkv.ErrNotFound): // there is none, or this was done before
	case err != nil:
		log.Fatal(err)
	default: // or the next start would bring back what is deleted meanwhile
		if err := client.SetRoomAccountData(ctx, room, "com.example.mybot", struct{}{}); err != nil {
			log.Fatal(err)
		}
	}
	volume, err := roomkv.Get[int](ctx, store, "volume")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(imported.Written, volume)
	// Output:
	// 2 7
}
