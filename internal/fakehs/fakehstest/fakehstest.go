// Package fakehstest hands homeservers in memory to tests, each test its own. What package hstest does with a client of a real one, its Room,
// EncryptedRoom, Crypto and Record, it does with a client of these too.
package fakehstest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// New makes a server for this test. The test fails where it has asked the server for what that does not know.
func New(t testing.TB, options fakehs.Options) *fakehs.Server {
	t.Helper()
	server := fakehs.New(options)
	t.Cleanup(func() { assert.Empty(t, server.Complaints(), "requests that the server in memory does not know") })
	return server
}

var named atomic.Int64

// Name is a server's name that no other server of this process has. The IDs of rooms that end with it are those of no other server either. Stores of one
// process share locks by these IDs.
func Name() string { return fmt.Sprintf("hs%d", named.Add(1)) }

// Each runs a test in both modes, in parallel, each with a server of its own.
func Each(t *testing.T, test func(t *testing.T, server *fakehs.Server)) {
	t.Helper()
	t.Parallel()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			test(t, New(t, fakehs.Options{Mode: mode, Seed: 1}))
		})
	}
}

// Client registers a user.
func Client(t testing.TB, server *fakehs.Server) *mautrix.Client {
	t.Helper()
	client, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	return client
}

// Device logs in a further device of the client's user.
func Device(t testing.TB, server *fakehs.Server, client *mautrix.Client) *mautrix.Client {
	t.Helper()
	device, err := server.NewDevice(t.Context(), client.UserID)
	require.NoError(t, err)
	return device
}

// Sync runs the client's sync until the test ends or stop is called. It returns once the first response was processed.
func Sync(t testing.TB, client *mautrix.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	first, ended := make(chan struct{}), make(chan struct{})
	if known, ok := client.Syncer.(*processing); ok { // of an earlier Sync
		client.Syncer = known.DefaultSyncer
	}
	client.Syncer = &processing{client.Syncer.(*mautrix.DefaultSyncer), sync.OnceFunc(func() { close(first) })}
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	select {
	case <-first:
	case <-ended:
		t.Fatal("the sync has ended before its first response")
	}
	return stop
}

// processing tells when the first response was processed.
type processing struct {
	*mautrix.DefaultSyncer
	done func()
}

// ProcessResponse implements [mautrix.Syncer].
func (p *processing) ProcessResponse(ctx context.Context, response *mautrix.RespSync, since string) error {
	defer p.done()
	return p.DefaultSyncer.ProcessResponse(ctx, response, since)
}
