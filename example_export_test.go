package roomkv_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_Export() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"language": "de", "volume": 7}); err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer // or an *os.File; what is encrypted in the room is in clear in the file
	exported, err := store.Export(ctx, &file)
	if err != nil {
		log.Fatal(err)
	}

	other, err := store.WithRoom(ctx, server.Room(client))
	if err != nil {
		log.Fatal(err)
	}
	imported, err := other.Import(ctx, &file)
	if err != nil {
		log.Fatal(err)
	}
	language, err := roomkv.Get[string](ctx, other, "language")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(exported.Total, imported.Written, language)
	// Output:
	// 2 2 de
}
