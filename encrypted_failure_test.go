package roomkv_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// memoryPath is in the path of a request that writes the memory's state.
const memoryPath = "/state/" + roomkv.DefaultEventType + "/"

// A write takes several requests the first time. Whichever fails, so does the write, and nothing has changed.
func TestFailedWriteLeavesTheOldValue(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		reader, j := sharedEncrypted(t)
		require.NoError(t, open(t, reader, j.Room, layout).Put(t.Context(), "key", "old"))
		client := again(t, reader)
		hstest.Crypto(t, client)
		recorder := hstest.Record(client)
		next := client.Client.Transport
		var transport atomic.Value // of a roundTripper; a write goes on when its caller has left
		use := func(next roundTripper) { transport.Store(next) }
		use(next.RoundTrip)
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			return transport.Load().(roundTripper)(req)
		})
		defer syncing(t, client)()
		store := open(t, client, j.Room, layout)
		before := memoryState(t, reader, j.Room)
		unchanged := func(what string) {
			t.Helper()
			assert.Equal(t, before, memoryState(t, reader, j.Room), what)
			assert.Equal(t, map[string]string{"key": `"old"`}, memoryOf(t, open(t, reader, j.Room, layout)), what)
		}
		stated := func() (n int) {
			for _, request := range recorder.Requests() {
				if request.Method == http.MethodPut && strings.Contains(request.Path, memoryPath) {
					n++
				}
			}
			return n
		}

		for _, path := range []string{"/members", "/keys/query", "/keys/claim", "/sendToDevice/", "/send/m.room.encrypted/", memoryPath} {
			refused := errors.New("refused by the test")
			var met atomic.Int64
			use(func(req *http.Request) (*http.Response, error) {
				if strings.Contains(req.URL.Path, path) && (path != memoryPath || req.Method == http.MethodPut) {
					met.Add(1)
					return nil, refused
				}
				return next.RoundTrip(req)
			})
			err := store.Put(mautrix.WithMaxRetries(t.Context(), 0), "key", "secret")
			require.ErrorIs(t, err, refused, path)
			assert.NotContains(t, err.Error(), "secret")
			assert.NotZero(t, met.Load(), path)
			assert.Zero(t, stated(), path)
			unchanged(path)
		}

		// The homeserver has the value's event, and its answer is lost.
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err == nil && strings.Contains(req.URL.Path, "/send/m.room.encrypted/") {
				_ = resp.Body.Close()
				return nil, errors.New("lost by the test")
			}
			return resp, err
		})
		require.Error(t, store.Put(mautrix.WithMaxRetries(t.Context(), 0), "key", "secret"))
		assert.Zero(t, stated())
		unchanged("lost")

		for _, path := range []string{"/send/m.room.encrypted/", memoryPath} {
			released := make(chan struct{})
			use(func(req *http.Request) (*http.Response, error) {
				if req.Method == http.MethodPut && strings.Contains(req.URL.Path, path) {
					<-released
					return nil, errors.New("no answer after a while")
				}
				return next.RoundTrip(req)
			})
			ctx, cancel := context.WithTimeout(mautrix.WithMaxRetries(t.Context(), 0), time.Second)
			require.ErrorIs(t, store.Put(ctx, "key", "secret"), context.DeadlineExceeded, path)
			cancel()
			assert.Zero(t, stated(), path)
			unchanged(path)
			close(released)
		}

		use(next.RoundTrip)
		require.NoError(t, store.Put(t.Context(), "key", "new"))
		for _, client := range []*mautrix.Client{client, reader} {
			assert.Equal(t, map[string]string{"key": `"new"`}, memoryOf(t, open(t, client, j.Room, layout)))
		}
		assert.Empty(t, clearNames(t, reader, j.Room))
	})
}
