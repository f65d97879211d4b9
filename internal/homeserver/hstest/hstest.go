// Package hstest hands a real homeserver to tests: one server per test binary, started when the first test
// asks for it, and a fresh user and room per test.
package hstest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver"
)

var started atomic.Bool

// Shared is the homeserver of this test binary, for code without a testing.TB.
var Shared = sync.OnceValues(func() (*homeserver.Server, error) {
	started.Store(true)
	return homeserver.FromEnv(context.Background())
})

// Main is for TestMain: it builds the homeserver before the clock of go test's -timeout runs, runs the
// tests, stops the server, and ends the process.
func Main(m *testing.M) {
	if os.Getenv(homeserver.EnvURL) == "" {
		if _, err := homeserver.Build(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if started.Load() {
		if server, err := Shared(); err == nil {
			if err := server.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "stopping the homeserver:", err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// Server is the homeserver of this test binary.
func Server(t testing.TB) *homeserver.Server {
	t.Helper()
	server, err := Shared()
	require.NoError(t, err)
	return server
}

// Client registers a user for this test.
func Client(t testing.TB) *mautrix.Client {
	t.Helper()
	client, err := Server(t).Register(t.Context(), "bot")
	require.NoError(t, err)
	return client
}

// Room makes a private room that client alone is in, with further request fields from req where given.
func Room(t testing.TB, client *mautrix.Client, req ...*mautrix.ReqCreateRoom) id.RoomID {
	t.Helper()
	create := &mautrix.ReqCreateRoom{Preset: "private_chat"}
	if len(req) > 0 {
		create = req[0]
	}
	room, err := client.CreateRoom(t.Context(), create)
	require.NoError(t, err)
	return room.RoomID
}
