package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// pay gives coins of one member to another, or changes nothing.
func pay(ctx context.Context, store *roomkv.Store, from, to string, amount int) error {
	return store.Transact(ctx, func(tx *roomkv.Tx) error {
		var a, b int
		if err := errors.Join(tx.Get(from, &a), tx.Get(to, &b)); err != nil {
			return err
		}
		if a < amount {
			return fmt.Errorf("%s has %d", from, a)
		}
		return errors.Join(tx.Put(from, a-amount), tx.Put(to, b+amount))
	})
}

func ExampleStore_Transact() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"coins/alice": 10, "coins/bob": 2}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(pay(ctx, store, "coins/alice", "coins/bob", 4))
	fmt.Println(pay(ctx, store, "coins/alice", "coins/bob", 7))
	// Output:
	// <nil>
	// coins/alice has 6
}
