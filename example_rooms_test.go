package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_WithRoom() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, "main", roomkv.WithRooms(map[string]string{"main": room.String()}))
	if err != nil {
		log.Fatal(err)
	}
	lobby := server.Room(server.Client("alice"))
	if _, err := store.WithRoom(ctx, "loby"); errors.Is(err, roomkv.ErrUnknownRoom) {
		fmt.Println("there is no room of that name")
	}
	other, err := store.WithRoom(ctx, lobby)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(other.Put(ctx, "topic", "hello"), roomkv.ErrNotJoined))
	// Output:
	// there is no room of that name
	// true
}
