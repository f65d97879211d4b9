package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

func ExampleWithShards() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.Room(client)
	store, err := roomkv.New(client, room.String(), roomkv.WithShards(64))
	if err != nil {
		log.Fatal(err)
	}
	alice := store.Sub("{alice}/") // whose keys are in one state event
	if err := alice.PutAll(ctx, map[string]any{"coins": 10, "level": 3}); err != nil {
		log.Fatal(err)
	}
	err = alice.Transact(ctx, func(tx *roomkv.Tx) error {
		var coins, level int
		if err := errors.Join(tx.Get("coins", &coins), tx.Get("level", &level)); err != nil {
			return err
		}
		return errors.Join(tx.Put("coins", coins-5), tx.Put("level", level+1))
	})
	fmt.Println(err)
	err = store.Transact(ctx, func(tx *roomkv.Tx) error {
		return errors.Join(tx.Put("{alice}/coins", 0), tx.Put("{bob}/coins", 5))
	})
	fmt.Println(errors.Is(err, roomkv.ErrNotAtomic))
	keys, err := store.Keys(ctx)
	fmt.Println(keys, err)
	// Output:
	// <nil>
	// true
	// [{alice}/coins {alice}/level] <nil>
}
