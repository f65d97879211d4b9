package roomkvtest_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// An answer is lost on its way, and the update counts once all the same.
func ExampleServer_Fail() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Forking)
	bot := server.Client("bot")
	store, err := roomkv.New(bot, server.Room(bot).String())
	if err != nil {
		log.Fatal(err)
	}

	var writes atomic.Int64
	defer server.Fail(func(req *http.Request) error {
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/state/") && writes.Add(1) == 1 {
			return roomkvtest.ErrLostAnswer
		}
		return nil
	})()
	if err := roomkv.Update(ctx, store, "visits", func(n int, _ bool) (int, error) { return n + 1, nil }); err != nil {
		log.Fatal(err)
	}
	visits, err := roomkv.Get[int](ctx, store, "visits")
	fmt.Println(visits, err)
	// Output: 1 <nil>
}
