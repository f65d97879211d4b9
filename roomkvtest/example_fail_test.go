package roomkvtest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/roomkvtest"
)

// writesState tells whether a request writes the room's state, and so its memory.
func writesState(req *http.Request) bool {
	return req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/state/")
}

// The homeserver refuses to store the memory, and later takes it.
func ExampleServer_Fail() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Forking)
	bot := server.Client("bot")
	store, err := roomkv.New(bot, server.Room(bot).String())
	if err != nil {
		log.Fatal(err)
	}

	stop := server.Fail(func(req *http.Request) error {
		if writesState(req) {
			return mautrix.MForbidden
		}
		return nil
	})
	fmt.Println(errors.Is(store.Put(ctx, "greeting", "Hello!"), roomkv.ErrForbidden))
	stop()
	fmt.Println(store.Put(ctx, "greeting", "Hello!"))
	// Output:
	// true
	// <nil>
}
