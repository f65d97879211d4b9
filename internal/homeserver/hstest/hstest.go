// Package hstest hands homeservers to tests: one server per test binary, started when the first test asks for it, and a fresh user and room
// per test. The server is a real one. Where the binary's TestMain says so, it is one in memory, for the tests that do not ask for a real one.
package hstest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver"
)

var (
	actual = &shared{start: func() (*homeserver.Server, error) { return homeserver.FromEnv(context.Background()) }}
	memory *shared // nil where all tests are on the real one

	needReal sync.Map // names of tests
)

// shared is a homeserver of this test binary. It is started when it is first asked for.
type shared struct {
	start  func() (*homeserver.Server, error)
	once   sync.Once
	server *homeserver.Server
	err    error
	fake   *fakehs.Server // what is behind the server in memory
}

func (s *shared) get() (*homeserver.Server, error) {
	s.once.Do(func() { s.server, s.err = s.start() })
	return s.server, s.err
}

// InMemory has the tests of this binary run on a homeserver in memory, unless ROOMKV_HOMESERVER names a real one. Clients reach it on the
// loopback interface, as they do a real one, also those of other processes. Sixteen tests run at once where -parallel does not say how many: they
// wait more than they compute. Call it before [Main], when the flags are parsed.
func InMemory(mode fakehs.Mode) {
	if os.Getenv(homeserver.EnvURL) != "" {
		return
	}
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("16")
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 100 // many clients ask one host
	memory = &shared{fake: fakehs.New(fakehs.Options{Mode: mode, Seed: rand.Uint64()})}
	memory.start = func() (*homeserver.Server, error) { return homeserver.At(httptest.NewServer(memory.fake).URL), nil }
}

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
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// end stops the real server. It fails also where a test has asked the one in memory for what that does not know.
func end() (err error) {
	if actual.server != nil {
		if err = actual.server.Close(); err != nil {
			err = fmt.Errorf("stopping the homeserver: %w", err)
		}
	}
	if memory != nil && len(memory.fake.Complaints()) > 0 {
		err = errors.Join(err, fmt.Errorf("requests that the server in memory does not know:\n%s", strings.Join(memory.fake.Complaints(), "\n")))
	}
	return err
}

// Real has a test, and its subtests, run on a real homeserver in any case.
func Real(t testing.TB) {
	t.Helper()
	if memory == nil {
		return
	}
	needReal.Store(t.Name(), true)
	t.Cleanup(func() { needReal.Delete(t.Name()) })
}

// Parallel lets a test run beside others, unless all are on a real homeserver.
func Parallel(t *testing.T) {
	t.Helper()
	if memory != nil {
		t.Parallel()
	}
}

// of is the homeserver that a test runs on.
func of(t testing.TB) *shared {
	for name, more := t.Name(), true; more; {
		if _, ok := needReal.Load(name); ok {
			return actual
		}
		at := strings.LastIndexByte(name, '/')
		if more = at >= 0; more {
			name = name[:at]
		}
	}
	return usual()
}

func usual() *shared {
	if memory != nil {
		return memory
	}
	return actual
}

// Shared is the homeserver of this test binary, for code without a testing.TB.
func Shared() (*homeserver.Server, error) { return usual().get() }

// Server is the homeserver that a test runs on.
func Server(t testing.TB) *homeserver.Server {
	t.Helper()
	server, err := of(t).get()
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

// Device logs in a further device of the user of a client that [Client] made.
func Device(t testing.TB, client *mautrix.Client) *mautrix.Client {
	t.Helper()
	device, err := Server(t).NewDevice(t.Context(), client.UserID)
	require.NoError(t, err)
	return device
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
