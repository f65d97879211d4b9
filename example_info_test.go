package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_Info() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	info, err := store.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Keys, info.Bytes*100/roomkv.MaxBytes, "% full")
	fmt.Println(info.Power >= info.PowerNeeded)
	// Output:
	// 2 0 % full
	// true
}
