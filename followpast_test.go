package roomkv_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// isFollowed waits until a read takes no request.
func (w *heldStore) isFollowed(t *testing.T, key string, want int) {
	t.Helper()
	eventually(t, func() bool {
		before := w.requests.Load()
		got, err := roomkv.Get[int](t.Context(), w.store, key)
		require.NoError(t, err)
		require.Equal(t, want, got)
		return w.requests.Load() == before
	}, "reads from memory")
}

// A writer that has looked for its event itself, because the sync was slow, goes on following once that has brought it: also where the sync
// has brought it meanwhile, and much else.
func TestSlowSyncIsFollowedAgain(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		w.client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: 3000}}}
		elsewhere := hstest.Room(t, w.client)
		w.follow(t)
		require.NoError(t, w.store.Put(ctx, "k", 1))
		w.isFollowed(t, "k", 1)

		token := w.client.AccessToken
		listing, release := make(chan bool), make(chan bool)
		var held atomic.Bool
		w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			resp, err := next(req)
			if strings.HasSuffix(req.URL.Path, "/messages") && strings.HasSuffix(req.Header.Get("Authorization"), token) && !held.Swap(true) {
				close(listing)
				<-release
			}
			return resp, err
		})
		w.hold()
		put := make(chan error)
		go func() { put <- w.store.Put(ctx, "k", 2) }()
		<-listing
		for n := range 1100 {
			_, err := w.device.SendStateEvent(ctx, elsewhere, database, fmt.Sprint(n), map[string]any{})
			require.NoError(t, err)
		}
		var seen atomic.Int64
		w.client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(_ context.Context, resp *mautrix.RespSync, _ string) bool {
			if joined := resp.Rooms.Join[elsewhere]; joined != nil {
				seen.Add(int64(len(joined.Timeline.Events)))
			}
			return true
		})
		w.release()
		eventually(t, func() bool { return seen.Load() >= 1100 }, "the sync")
		close(release)
		require.NoError(t, <-put)
		w.isFollowed(t, "k", 2)
	})
}

// What the homeserver lists, and its sync leaves out for good, does not keep the room from being followed.
func TestSyncThatLeavesOutAnEvent(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		w.follow(t)
		require.NoError(t, w.store.Put(ctx, "k", 1))
		w.isFollowed(t, "k", 1)
		remove := w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			resp, err := next(req)
			if err != nil || !strings.HasSuffix(req.URL.Path, "/sync") {
				return resp, err
			}
			body, err := io.ReadAll(resp.Body)
			body = bytes.ReplaceAll(body, []byte(roomkv.DefaultEventType), []byte("com.example.hidden"))
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			return resp, err
		})
		require.NoError(t, w.store.Put(ctx, "k", 2))
		remove()
		for range 5 {
			w.talk(t, 1)
			time.Sleep(20 * time.Millisecond)
		}
		w.isFollowed(t, "k", 2)
	})
}

// What was known before the store followed is not believed: the sync has gone on without it.
func TestFollowAfterTheSyncBegan(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		responses := make(chan bool, 100)
		w.client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
			responses <- true
			return true
		})
		fakehstest.Sync(t, w.client)
		require.NoError(t, w.store.Put(ctx, "k", 1))
		require.NoError(t, w.other.Put(ctx, "k", 2))
		w.server.Settle()
		w.talk(t, 1)
		for quiet := false; !quiet; {
			select {
			case <-responses:
			case <-time.After(200 * time.Millisecond):
				quiet = true
			}
		}
		require.NoError(t, w.store.Follow())
		w.talk(t, 1)
		<-responses
		time.Sleep(50 * time.Millisecond)
		got, err := roomkv.Get[int](ctx, w.store, "k")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
		w.isFollowed(t, "k", 2)
	})
}

// A handler before the store's can keep a response from it. Nothing that this can have changed is believed: values, encryption, upgrades.
func TestFollowerMissesAResponse(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]struct {
		change func(ctx context.Context, w *heldStore) error
		check  func(ctx context.Context, t *testing.T, w *heldStore)
	}{
		"value": {
			func(ctx context.Context, w *heldStore) error { return w.other.Put(ctx, "k", 2) },
			func(ctx context.Context, t *testing.T, w *heldStore) {
				got, err := roomkv.Get[int](ctx, w.store, "k")
				require.NoError(t, err)
				assert.Equal(t, 2, got)
			},
		},
		"encryption": {
			func(ctx context.Context, w *heldStore) error {
				_, err := w.device.SendStateEvent(ctx, w.room, event.StateEncryption, "", map[string]string{"algorithm": "m.megolm.v1.aes-sha2"})
				return err
			},
			func(ctx context.Context, t *testing.T, w *heldStore) {
				assert.ErrorIs(t, w.store.Put(ctx, "k", 3), roomkv.ErrNoCrypto)
			},
		},
		"upgrade": {
			func(ctx context.Context, w *heldStore) error {
				_, err := w.device.SendStateEvent(ctx, w.room, event.StateTombstone, "", map[string]string{"replacement_room": "!other:fakehs"})
				return err
			},
			func(ctx context.Context, t *testing.T, w *heldStore) {
				assert.ErrorIs(t, w.store.Put(ctx, "k", 3), roomkv.ErrRoomUpgraded)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachHeld(t, fakehs.Options{}, func(t *testing.T, w *heldStore) {
				ctx := t.Context()
				var swallows, responses atomic.Int64
				w.client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
					responses.Add(1)
					return swallows.Load() == 0
				})
				w.follow(t)
				require.NoError(t, w.store.Put(ctx, "k", 1))
				w.isFollowed(t, "k", 1)
				time.Sleep(20 * time.Millisecond)
				require.NoError(t, w.store.Put(ctx, "k", 1)) // which makes it ask whether the room is encrypted while it follows
				swallows.Store(1)
				before := responses.Load()
				require.NoError(t, what.change(ctx, w))
				eventually(t, func() bool { return responses.Load() > before }, "the response that is swallowed")
				time.Sleep(50 * time.Millisecond)
				swallows.Store(0)
				before = responses.Load()
				w.talk(t, 1)
				eventually(t, func() bool { return responses.Load() > before }, "another response")
				time.Sleep(50 * time.Millisecond)
				what.check(ctx, t, w)
			})
		})
	}
}
