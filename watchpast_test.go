package roomkv_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// eachHeld runs a test in virtual time, in both modes of a homeserver in memory and in both layouts. Each homeserver has a name of its own, for the
// stores of a process share locks by room.
func eachHeld(t *testing.T, options fakehs.Options, test func(t *testing.T, w *heldStore)) {
	t.Helper()
	for _, mode := range fakehs.Modes {
		for _, layout := range []string{"single", "perkey"} {
			t.Run(mode.String()+"/"+layout, func(t *testing.T) {
				t.Parallel()
				options := options
				options.Mode, options.Seed, options.Name = mode, 1, serverName(t)
				synctest.Test(t, func(t *testing.T) { test(t, newHeld(t, fakehstest.New(t, options), layouts[layout])) })
			})
		}
	}
}

// serverName is one that no other test's server has.
func serverName(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
}

// heldStore is a store of a client whose sync can be held up, and of another process that writes the same memory.
type heldStore struct {
	server *fakehs.Server
	client *mautrix.Client
	room   id.RoomID
	store  *roomkv.Store
	device *mautrix.Client // of the other process
	other  *roomkv.Store

	requests atomic.Int64 // but for syncs
	gate     chan bool    // holds one element, which somebody has while no response of a sync gets through
	mu       sync.Mutex
	told     []string
}

func newHeld(t *testing.T, server *fakehs.Server, opts ...roomkv.Option) *heldStore {
	t.Helper()
	w := &heldStore{server: server, client: fakehstest.Client(t, server), gate: make(chan bool, 1)}
	w.gate <- true
	w.room = hstest.Room(t, w.client)
	w.device = fakehstest.Device(t, server, w.client)
	w.store, w.other = open(t, w.client, w.room, opts...), open(t, w.device, w.room, opts...)
	t.Cleanup(func() {
		assert.NoError(t, w.store.Close(context.Background()))
		assert.NoError(t, w.other.Close(context.Background()))
	})
	token := w.client.AccessToken
	server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !strings.HasSuffix(req.Header.Get("Authorization"), " "+token) {
			return next(req)
		}
		if strings.HasSuffix(req.URL.Path, "/sync") && req.URL.Query().Get("since") != "" {
			resp, err := next(req)
			select {
			case <-w.gate:
				w.gate <- true
			case <-req.Context().Done():
			}
			return resp, err
		}
		defer w.requests.Add(1)
		return next(req)
	})
	return w
}

// hold keeps the sync back.
func (w *heldStore) hold() { <-w.gate }

// release lets the sync go on, with all that there is at once: what comes in pieces can be without a gap.
func (w *heldStore) release() {
	w.server.Settle()
	w.gate <- true
}

// follow makes the store follow its client's sync.
func (w *heldStore) follow(t *testing.T) {
	t.Helper()
	w.server.Settle()
	require.NoError(t, w.store.Follow())
	fakehstest.Sync(t, w.client)
}

// watch begins a watch, and returns when it has made its first requests.
func (w *heldStore) watch(t *testing.T, opts ...roomkv.WatchOption) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for change, err := range w.store.Watch(ctx, opts...) {
			w.mu.Lock()
			if err == nil {
				w.told = append(w.told, spell([]roomkv.Change{change})...)
			} else if ctx.Err() == nil {
				w.told = append(w.told, err.Error())
			}
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	w.idle()
}

// idle waits until everything that is going on has ended: virtual time goes on only when all goroutines wait.
func (w *heldStore) idle() { time.Sleep(time.Second) }

// talk has the other process say something, so many times. A sync brings at most 50 of that at once, and one is on its way.
func (w *heldStore) talk(t *testing.T, times int) {
	t.Helper()
	for n := range times {
		_, err := w.device.SendText(t.Context(), w.room, fmt.Sprint(n))
		require.NoError(t, err)
	}
}

// tells compares what the watch has told.
func (w *heldStore) tells(t *testing.T, want ...string) {
	t.Helper()
	w.idle()
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.Equal(t, append([]string{}, want...), append([]string{}, w.told...))
}

// The memory is old, others have talked since for longer than a page of events is, and the sync skips events.
func TestWatchTellsNothingThatWasThere(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		for n := range 24 {
			require.NoError(t, w.other.Put(ctx, "k", n))
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			require.NoError(t, w.other.Put(ctx, key, 0))
		}
		w.talk(t, 1100)
		w.follow(t)
		w.watch(t)

		w.hold()
		w.talk(t, 110)
		w.release()
		w.idle()
		require.NoError(t, w.other.Put(ctx, "a", 1))
		w.tells(t, "a: 0 -> 1")

		w.hold()
		require.NoError(t, w.other.Put(ctx, "k", "now"))
		require.NoError(t, w.other.Delete(ctx, "b"))
		require.NoError(t, w.other.Put(ctx, "new", 1))
		w.talk(t, 110)
		w.release()
		w.tells(t, "a: 0 -> 1", `k: 23 -> "now"`, "b: 0 -> ", "new:  -> 1")
	})
}

// What a slow sync brings was there before the watch began, however much that is.
func TestWatchOfASlowSync(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		w.client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: 1000}}}
		require.NoError(t, w.other.Put(ctx, "k", "first"))
		w.follow(t)
		w.hold()
		for n := range 150 {
			require.NoError(t, w.other.Put(ctx, "k", n))
		}
		w.talk(t, 30)
		w.watch(t)
		require.NoError(t, w.other.Put(ctx, "k", "now"))
		w.release()
		require.NoError(t, w.other.Put(ctx, "new", 1))
		w.tells(t, `k: 149 -> "now"`, "new:  -> 1")
	})
}

// What was there is told as it was when the watch began, and each change once after it, however slow the loop and the sync are.
func TestWatchInitialOfASlowLoop(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, w.other.PutAll(ctx, map[string]any{"a": 0, "b": 0, "c": 0}))
		w.follow(t)
		w.hold()
		require.NoError(t, w.other.Put(ctx, "b", "late"), "what the sync has yet to bring was there too")
		const waiting = 120 // more than a response of the sync has
		now, initial, ended := map[string]string{}, map[string]string{}, false
		for change, err := range w.store.Watch(ctx, roomkv.WatchInitial()) {
			require.NoError(t, err)
			if ended = ended || change.EndOfInitial; change.EndOfInitial {
				continue
			}
			assert.Equal(t, now[change.Key], string(change.Old))
			if now[change.Key] = string(change.New); !ended {
				initial[change.Key] = string(change.New)
			}
			if change.Key == "a" && !ended {
				for n := range waiting {
					if n == waiting-10 {
						w.release() // the sync skips what is too much for a response
					}
					require.NoError(t, w.other.Put(ctx, "b", n+1))
				}
				require.NoError(t, w.other.Put(ctx, "c", "now"))
				w.server.Settle()
			}
			if change.Key == "c" && ended {
				break
			}
		}
		assert.Equal(t, map[string]string{"a": "0", "b": `"late"`, "c": "0"}, initial)
		assert.Equal(t, map[string]string{"a": "0", "b": fmt.Sprint(waiting), "c": `"now"`}, now)
	})
}

// A revision can be newer than what the homeserver lists.
func TestWatchFromWhatIsNotListedYet(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Lag: 200 * time.Millisecond}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		require.NoError(t, w.other.Put(ctx, "k", 1))
		w.follow(t)
		require.NoError(t, w.other.Put(ctx, "k", 2))
		entry, err := w.other.Entry(ctx, "k")
		require.NoError(t, err)
		w.watch(t, roomkv.WatchFrom(entry.Revision))
		require.NoError(t, w.other.Put(ctx, "k", 3))
		w.tells(t, "k: 2 -> 3")
	})
}

// Synapse lists what took long to store among older events. A watch that has to look back tells it all the same, and one that begins at it
// tells nothing that was stored before.
func TestWatchOfWhatIsListedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, listedLate)
}

func listedLate(t *testing.T) {
	server := fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Seed: 1, Name: serverName(t)})
	ctx := t.Context()
	w := newHeld(t, server, roomkv.WithPerKeyState())
	require.NoError(t, w.other.Put(ctx, "k", 0))
	w.follow(t)
	w.watch(t)

	begun, release := make(chan bool), make(chan bool)
	server.BeforeStore(func(write fakehs.Write) {
		if write.StateKey != nil && strings.Contains(*write.StateKey, "late") {
			close(begun)
			<-release
		}
	})
	put := make(chan error)
	go func() { put <- w.other.Put(ctx, "late", 1) }()
	<-begun
	for n := range 5 {
		require.NoError(t, w.other.Put(ctx, "k", n+1))
	}
	told := []string{"k: 0 -> 1", "k: 1 -> 2", "k: 2 -> 3", "k: 3 -> 4", "k: 4 -> 5"}
	w.tells(t, told...)
	w.hold()
	close(release)
	require.NoError(t, <-put)
	server.BeforeStore(nil)
	w.talk(t, 110)
	w.release()
	w.tells(t, append(told, "late:  -> 1")...)

	entry, err := w.other.Entry(ctx, "late")
	require.NoError(t, err)
	w.told = nil // the first watch goes on, and tells nothing meanwhile
	w.watch(t, roomkv.WatchFrom(entry.Revision))
	require.NoError(t, w.other.Put(ctx, "k", "now"))
	w.tells(t, `k: 5 -> "now"`, `k: 5 -> "now"`)
}

// What has not changed since the revision is known too when it changes later.
func TestResumedWatchKnowsWhatHasNotChanged(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		ctx := t.Context()
		require.NoError(t, w.other.Put(ctx, "old", 1))
		w.talk(t, 200)
		require.NoError(t, w.other.Put(ctx, "k", 1))
		entry, err := w.other.Entry(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, w.other.Put(ctx, "k", 2))
		w.follow(t)
		w.watch(t, roomkv.WatchFrom(entry.Revision))
		require.NoError(t, w.other.Put(ctx, "old", 2))
		require.NoError(t, w.other.Put(ctx, "new", 1))
		w.tells(t, "k: 1 -> 2", "old: 1 -> 2", "new:  -> 1")
	})
}

// A room in which others talk without end, while the memory stays as it is, can be watched for as long as one likes: each time that the sync
// skips events the watch looks back as far as that, and no further.
func TestWatchOfAQuietMemory(t *testing.T) {
	t.Parallel()
	eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
		require.NoError(t, w.other.Put(t.Context(), "k", 1))
		w.talk(t, 2500)
		w.follow(t)
		w.watch(t)
		for range 3 {
			before := w.requests.Load()
			w.hold()
			w.talk(t, 110)
			w.release()
			w.idle()
			assert.LessOrEqual(t, w.requests.Load()-before, int64(15), "a few looks back, for each response can have a gap: one as far as the first event would take 50 requests")
		}
		w.tells(t)
	})
}

// What was put before the room was upgraded is told before the watch ends, whenever the watch hears of the upgrade: here while the loop gets what was
// there, and while the watch looks back.
func TestWatchTellsAllBeforeAnUpgrade(t *testing.T) {
	t.Parallel()
	changes := func(ctx context.Context, t *testing.T, w *heldStore) {
		require.NoError(t, w.other.Put(ctx, "k", "last"))
		_, err := w.device.SendStateEvent(ctx, w.room, event.StateTombstone, "", map[string]string{"replacement_room": "!other:fakehs"})
		require.NoError(t, err)
		w.idle()
	}
	for name, during := range map[string]func(ctx context.Context, t *testing.T, w *heldStore){
		"initial": changes,
		"look back": func(ctx context.Context, t *testing.T, w *heldStore) {
			var looked atomic.Bool
			w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
				resp, err := next(req)
				if strings.HasSuffix(req.URL.Path, "/messages") && !looked.Swap(true) {
					changes(ctx, t, w)
				}
				return resp, err
			})
			w.hold()
			w.talk(t, 110)
			w.release()
			w.idle()
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachHeld(t, fakehs.Options{Spread: -1}, func(t *testing.T, w *heldStore) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				require.NoError(t, w.other.Put(ctx, "k", "first"))
				w.follow(t)
				var told []string
				for change, err := range w.store.Watch(ctx, roomkv.WatchInitial()) {
					if err != nil {
						assert.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
						told = append(told, "upgraded")
						break
					}
					if told = append(told, spell([]roomkv.Change{change})...); change.EndOfInitial {
						during(ctx, t, w)
					}
				}
				assert.Equal(t, []string{`k:  -> "first"`, ":  -> ", `k: "first" -> "last"`, "upgraded"}, told)
			})
		})
	}
}
