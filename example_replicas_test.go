package roomkv_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleStore_Lease() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	lease, err := store.Lease(ctx, "reminders", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("holder", lease.Fence())
	err = store.Transact(ctx, func(tx *roomkv.Tx) error {
		if err := tx.Require(lease); err != nil {
			return err
		}
		return tx.Put("last reminder", "2026-11-29")
	})
	fmt.Println(err)
	fmt.Println(lease.Release(ctx))
	// Output:
	// holder 1
	// <nil>
	// <nil>
}

func ExampleStore_Once() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	for range 2 { // as two replicas that get the same event
		mine, err := store.Once(ctx, "$event", time.Hour)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(mine)
	}
	// Output:
	// true
	// false
}
