package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_All() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String(), roomkv.WithPerKeyState())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	for entry, err := range store.All(ctx) {
		if err != nil {
			log.Print(err) // of this entry; the next may be fine
			continue
		}
		var score int
		if err := entry.Decode(&score); err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, score, entry.Sender == client.UserID)
	}
	// Output:
	// alice 3 true
	// bob 5 true
}

func ExampleStore_Keys() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"score/alice": 3, "score/bob": 5, "score/carol": 1, "topic": "chess"}); err != nil {
		log.Fatal(err)
	}
	page, err := store.Keys(ctx, roomkv.Prefix("score/"), roomkv.Limit(2))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page)
	page, err = store.Keys(ctx, roomkv.Prefix("score/"), roomkv.Limit(2), roomkv.StartAfter(page[len(page)-1]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page)
	// Output:
	// [score/alice score/bob]
	// [score/carol]
}

func ExampleStore_GetAll() {
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
	settings, err := store.GetAll(ctx, "language", "volume", "theme")
	if err != nil {
		log.Fatal(err)
	}
	_, themed := settings["theme"]
	fmt.Printf("%s %s %t\n", settings["language"].Value, settings["volume"].Value, themed)
	// Output:
	// "de" 7 false
}

func ExampleStore_Sub() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	// Two plugins of a bot share a room's memory and do not see each other's keys.
	quiz, polls := store.Sub("quiz/"), store.Sub("polls/")
	if err := quiz.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	if err := polls.Put(ctx, "alice", "pizza"); err != nil {
		log.Fatal(err)
	}
	keys, err := quiz.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(keys)
	keys, err = store.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(keys)
	// Output:
	// [alice bob]
	// [polls/alice quiz/alice quiz/bob]
}

func ExampleMapOf() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	type score struct{ Won, Lost int }
	scores := roomkv.MapOf[score](store)
	for _, player := range []string{"alice", "bob", "alice"} {
		if err := scores.Update(ctx, player, func(s score, _ bool) (score, error) {
			s.Won++
			return s, nil
		}); err != nil {
			log.Fatal(err)
		}
	}
	for entry, err := range scores.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, entry.Value.Won)
	}
	// Output:
	// alice 2
	// bob 1
}
