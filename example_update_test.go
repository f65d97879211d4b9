package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleUpdate() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	var group sync.WaitGroup
	for range 10 { // as many handlers at once
		group.Go(func() {
			err := roomkv.Update(ctx, store, "visits", func(old int, _ bool) (int, error) { return old + 1, nil })
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	group.Wait()
	visits, err := roomkv.Get[int](ctx, store, "visits")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(visits)
	// Output: 10
}

func ExampleDeleteKey() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "tries left", 2); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := roomkv.Update(ctx, store, "tries left", func(left int, _ bool) (int, error) {
			if left == 1 {
				return 0, roomkv.DeleteKey
			}
			return left - 1, nil
		}); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(errors.Is(store.Get(ctx, "tries left", new(int)), roomkv.ErrNotFound))
	// Output:
	// true
}

func ExampleStore_CompareAndPut() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Create(ctx, "topic", "gardens"); err != nil {
		log.Fatal(err)
	}
	read, err := store.Entry(ctx, "topic")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.CompareAndPut(ctx, "topic", "plants", read.Revision))
	err = store.CompareAndPut(ctx, "topic", "trees", read.Revision) // which is no longer the latest
	fmt.Println(errors.Is(err, roomkv.ErrConflict))
	// Output:
	// <nil>
	// true
}

func ExampleStore_CompareAndDelete() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "job", "queued"); err != nil {
		log.Fatal(err)
	}
	entry, err := store.Entry(ctx, "job")
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "job", "running"); err != nil { // somebody else, perhaps
		log.Fatal(err)
	}
	err = store.CompareAndDelete(ctx, "job", entry.Revision)
	fmt.Println(errors.Is(err, roomkv.ErrConflict))
	// Output:
	// true
}
