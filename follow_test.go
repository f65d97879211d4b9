package roomkv_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// follow makes a store that follows, with its sync running, and a way to stop that.
func follow(t testing.TB, client *mautrix.Client, room id.RoomID, opts ...roomkv.Option) (store *roomkv.Store, stop func()) {
	t.Helper()
	store = open(t, client, room, opts...)
	require.NoError(t, store.Follow())
	return store, syncing(t, client)
}

// syncing runs the client's sync for the test and waits for its first response.
func syncing(t testing.TB, client *mautrix.Client) (stop func()) {
	t.Helper()
	stop = startSync(client)
	t.Cleanup(stop)
	return stop
}

// startSync is syncing for code without a testing.TB.
func startSync(client *mautrix.Client) (stop func()) {
	first := make(chan struct{})
	syncer, ok := client.Syncer.(*processing)
	if !ok {
		syncer = &processing{DefaultSyncer: client.Syncer.(*mautrix.DefaultSyncer)}
		client.Syncer = syncer
	}
	done := sync.OnceFunc(func() { close(first) })
	syncer.done.Store(&done)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	<-first
	return sync.OnceFunc(func() {
		// The last poll is answered, not cancelled: a cancelled one can leave Dendrite's SQLite in a transaction for
		// good.
		client.StopSync()
		select {
		case <-ended: // the server may be gone
		default:
			_ = client.SetAccountData(ctx, "com.example.stop", map[string]string{"now": rand.Text()})
		}
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		cancel()
		<-ended
	})
}

// processing tells when a sync's response is done with: until then its members go into a state store in memory, which
// mautrix's Encrypt must not read meanwhile (v0.31.0).
type processing struct {
	*mautrix.DefaultSyncer
	done atomic.Pointer[func()]
}

func (p *processing) ProcessResponse(ctx context.Context, response *mautrix.RespSync, since string) error {
	defer (*p.done.Load())()
	return p.DefaultSyncer.ProcessResponse(ctx, response, since)
}

// again is another process of the same bot, as far as the homeserver can tell.
func again(t testing.TB, client *mautrix.Client) *mautrix.Client {
	t.Helper()
	return hstest.Device(t, client)
}

// requests are those that are not the sync's.
func requests(recorder *hstest.Recorder) (n int) {
	for _, request := range recorder.Requests() {
		if !strings.HasSuffix(request.Path, "/sync") {
			n++
		}
	}
	return n
}

// takes tells that do takes so many requests. A busy machine's sync can be late, so that a store asks more often, but not each time.
func takes(t *testing.T, recorder *hstest.Recorder, n int, do func(), what string) {
	t.Helper()
	for range 10 {
		recorder.Reset()
		if do(); requests(recorder) == n {
			return
		}
	}
	assert.Equal(t, n, requests(recorder), what)
}

func TestFollow(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, other.Put(ctx, "k", 1))
		recorder := hstest.Record(client)
		store, stop := follow(t, client, room, layout)
		got, err := roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err)
		assert.Equal(t, 1, got)

		takes(t, recorder, 0, func() {
			for range 100 {
				_, err := roomkv.Get[int](ctx, store, "k")
				require.NoError(t, err)
			}
		}, "reads come from memory")

		require.NoError(t, other.Put(ctx, "k", 2))
		eventually(t, func() bool {
			got, err := roomkv.Get[int](ctx, store, "k")
			return err == nil && got == 2
		}, "what others write arrives")
		takes(t, recorder, 0, func() { require.NoError(t, store.Get(ctx, "k", new(int))) }, "reads come from memory")

		require.NoError(t, store.Put(ctx, "warm", 0)) // and the room's encryption is asked for
		n := 10
		for range 5 {
			takes(t, recorder, 1, func() {
				n++
				require.NoError(t, store.Put(ctx, "k", n))
				got, err := roomkv.Get[int](ctx, store, "k")
				require.NoError(t, err)
				assert.Equal(t, n, got, "read your writes")
			}, "a write is one request")
		}
		takes(t, recorder, 1, func() {
			n++
			require.NoError(t, roomkv.Update(ctx, store, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
		}, "so is an Update")
		takes(t, recorder, 1, func() { require.NoError(t, store.Put(ctx, "k", n)) }, "what changes nothing asks whether that is still so")

		stop()
		require.NoError(t, other.Put(ctx, "k", 99))
		got, err = roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err)
		assert.Equal(t, 99, got, "a sync that has ended is not read from")
		require.NoError(t, store.Put(ctx, "k", 100))
		got, err = roomkv.Get[int](ctx, other, "k")
		require.NoError(t, err)
		assert.Equal(t, 100, got)
	})
}

// Handlers run in the sync's goroutine, which brings nothing until they return.
// What is read from memory is not what earlier callers have got, who may change that, and no older than what is there.
func TestReadsFromMemory(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		_, client, room := newStore(t)
		store, stop := follow(t, client, room, layout)
		require.NoError(t, store.Put(ctx, "key", []string{"a", "b"}))
		for range 3 {
			entry, err := store.Entry(ctx, "key")
			require.NoError(t, err)
			assert.Equal(t, `["a","b"]`, string(entry.Value))
			clear(entry.Value)
			got, err := roomkv.Get[json.RawMessage](ctx, store, "key")
			require.NoError(t, err)
			assert.Equal(t, `["a","b"]`, string(got))
			clear(got)
		}
		require.ErrorIs(t, store.Get(ctx, "key", new(int)), roomkv.ErrDecode)
		handle := store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
			require.NoError(t, room.Get(ctx, "key", new([]string)))
			require.ErrorIs(t, room.Get(ctx, "another", new(any)), roomkv.ErrNotFound)
		})
		handle(ctx, &event.Event{RoomID: room})
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, store.Get(ended, "key", new(any)), context.Canceled)

		other := open(t, again(t, client), room, layout)
		for i := range 5 {
			require.NoError(t, store.Put(ctx, "key", i))
			got, err := roomkv.Get[int](ctx, store, "key")
			require.NoError(t, err)
			assert.Equal(t, i, got)
			require.NoError(t, other.Put(ctx, "key", 10+i))
			eventually(t, func() bool {
				got, err := roomkv.Get[int](ctx, store, "key")
				return err == nil && got == 10+i
			}, "what another has written")
		}
		require.NoError(t, store.Delete(ctx, "key"))
		require.ErrorIs(t, store.Get(ctx, "key", new(any)), roomkv.ErrNotFound)
		require.NoError(t, store.Put(ctx, "key", 1))
		require.NoError(t, store.Get(ctx, "key", new(int)))
		stop()
		require.NoError(t, other.Put(ctx, "key", 2))
		got, err := roomkv.Get[int](ctx, store, "key")
		require.NoError(t, err)
		assert.Equal(t, 2, got, "nothing is read from memory once the sync has ended")
	})
}

// Close ends what a store does in the background, and leaves a store that does not follow.
func TestClose(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	_, client, room := newStore(t)
	recorder := hstest.Record(client)
	store, _ := follow(t, client, room)
	require.NoError(t, store.Put(ctx, "key", 1))
	ended := make(chan error)
	begun := make(chan struct{}, 1)
	go func() {
		for change, err := range store.Watch(ctx) {
			if err != nil {
				ended <- err
				return
			}
			assert.Equal(t, "begun", change.Key)
			begun <- struct{}{}
		}
	}()
	eventually(t, func() bool {
		require.NoError(t, store.Put(ctx, "begun", time.Now().String()))
		select {
		case <-begun:
			return true
		case <-time.After(20 * time.Millisecond):
			return false
		}
	}, "the watch has begun")
	other, err := store.WithRoom(ctx, room)
	require.NoError(t, err)
	require.NoError(t, other.Close(ctx))
	for {
		select {
		case <-begun:
			continue
		case err := <-ended:
			require.ErrorIs(t, err, roomkv.ErrNotFollowing)
		}
		break
	}
	recorder.Reset()
	require.NoError(t, store.Get(ctx, "key", new(int)))
	assert.Equal(t, 1, requests(recorder), "it does not follow any more")
	require.NoError(t, store.Put(ctx, "key", 2))
	require.ErrorIs(t, store.Follow(), roomkv.ErrInvalidOption)
	for _, err := range store.Watch(ctx) {
		require.ErrorIs(t, err, roomkv.ErrNotFollowing)
	}
	require.NoError(t, store.Close(ctx))
}

func TestPutInAHandlerWhileFollowing(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store := open(t, client, room)
	require.NoError(t, store.Follow())
	took := make(chan time.Duration, 10)
	client.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, store.InEventRoom(func(ctx context.Context, evt *event.Event, memory *roomkv.Store) {
		began := time.Now()
		assert.NoError(t, memory.Put(ctx, "last", evt.ID))
		got, err := roomkv.Get[id.EventID](ctx, memory, "last")
		assert.NoError(t, err)
		assert.Equal(t, evt.ID, got)
		took <- time.Since(began)
	}))
	syncing(t, client)
	for i := range 3 {
		_, err := client.SendText(t.Context(), room, fmt.Sprint(i))
		require.NoError(t, err)
	}
	for range 3 {
		assert.Less(t, <-took, 5*time.Second)
	}
}

// An event that follows what the store knows can come late: a homeserver's sync may be slow.
func TestSlowSyncDoesNotHideWrites(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		client.Client.Transport = delay{"/sync", 700 * time.Millisecond}
		store, _ := follow(t, client, room, layout)
		for i := range 4 {
			require.NoError(t, store.Put(t.Context(), "k", i))
			got, err := roomkv.Get[int](t.Context(), store, "k")
			require.NoError(t, err)
			require.Equal(t, i, got)
		}
		require.NoError(t, store.Delete(t.Context(), "k"))
		for range 20 {
			require.ErrorIs(t, store.Get(t.Context(), "k", new(int)), roomkv.ErrNotFound)
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// The responses of a sync, made up.
func TestSyncThatCannotBeTrusted(t *testing.T) {
	hstest.Parallel(t)
	for name, response := range map[string]func(room id.RoomID, old string) string{
		"skipped events": func(room id.RoomID, _ string) string {
			return fmt.Sprintf(`{"next_batch":"x","rooms":{"join":{%q:{"timeline":{"limited":true,"events":[]}}}}}`, room)
		},
		"left": func(room id.RoomID, _ string) string {
			return fmt.Sprintf(`{"next_batch":"x","rooms":{"leave":{%q:{}}}}`, room)
		},
		"an old state is current again": func(room id.RoomID, old string) string {
			return fmt.Sprintf(`{"next_batch":"x","rooms":{"join":{%q:{"state":{"events":[%s]},"timeline":{"events":[]}}}}}`, room, old)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			client := hstest.Client(t)
			room := hstest.Room(t, client)
			store, stop := follow(t, client, room)
			require.NoError(t, store.Put(ctx, "k", 1))
			evt, err := client.FullStateEvent(ctx, room, database, "")
			require.NoError(t, err)
			old, err := json.Marshal(evt)
			require.NoError(t, err)
			require.NoError(t, store.Put(ctx, "k", 2))
			stop()

			var resp mautrix.RespSync
			require.NoError(t, json.Unmarshal([]byte(response(room, string(old))), &resp))
			other := open(t, again(t, client), room)
			require.NoError(t, other.Put(ctx, "k", 3))
			since, err := client.Store.LoadNextBatch(ctx, client.UserID)
			require.NoError(t, err)
			require.NoError(t, client.Syncer.ProcessResponse(t.Context(), &resp, since))
			got, err := roomkv.Get[int](ctx, store, "k")
			require.NoError(t, err)
			assert.Equal(t, 3, got)
		})
	}
}

func TestRedactionEmptiesTheMemory(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, _ := follow(t, client, room)
	require.NoError(t, store.Put(t.Context(), "k", "secret"))
	entry, err := store.Entry(t.Context(), "k")
	require.NoError(t, err)
	_, err = again(t, client).RedactEvent(t.Context(), room, id.EventID(entry.Revision))
	require.NoError(t, err)
	eventually(t, func() bool { return store.Get(t.Context(), "k", new(string)) != nil }, "gone")
	require.ErrorIs(t, store.Get(t.Context(), "k", new(string)), roomkv.ErrNotFound)
	require.NoError(t, store.Put(t.Context(), "other", 1))
	assert.Equal(t, map[string]string{"other": `1`}, memoryOf(t, store), "and it does not come back with the next write")
}

func TestFollowNeedsTheEvents(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{
		Timeline: &mautrix.FilterPart{Types: []event.Type{event.EventMessage}}}}
	require.ErrorIs(t, store.Follow(), roomkv.ErrInvalidOption)
	client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = nil
	require.NoError(t, store.Follow())
	require.NoError(t, store.Follow())
	require.NoError(t, store.Put(t.Context(), "k", 1), "before the sync began")
	client.Syncer = nil
	other := open(t, client, "!other:example.org")
	require.ErrorIs(t, other.Follow(), roomkv.ErrInvalidOption)
}

// A fork that nobody merges is merged by whoever follows.
func TestFollowerRepairs(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, _ := follow(t, client, room)
	require.NoError(t, store.Put(ctx, "base", 0))
	stale := rawState(t, client, room, database, "")
	require.NoError(t, store.Put(ctx, "mine", 1))
	var content map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(stale), &content))
	content["theirs"] = json.RawMessage(`2`)
	_, err := client.SendStateEvent(ctx, room, database, "", content) // as opsdroid does, of what it read before
	require.NoError(t, err)
	assert.NotContains(t, rawState(t, client, room, database, ""), "mine")
	eventually(t, func() bool { return strings.Contains(rawState(t, client, room, database, ""), "mine") }, "merged")
	assert.Equal(t, map[string]string{"base": `0`, "mine": `1`, "theirs": `2`}, memoryOf(t, store))
}

// What the store has encrypted comes back with the sync, and is nothing that mautrix should warn of.
func TestOwnEncryptedEventsAreNothingToWarnOf(t *testing.T) {
	hstest.Parallel(t)
	for _, eventType := range []string{roomkv.DefaultEventType, "dev.opsdroid.database", "opsdroid.database", documentedType} {
		t.Run(eventType, func(t *testing.T) {
			client := hstest.Client(t)
			var log lockedBuffer
			client.Log = zerolog.New(&log).Level(zerolog.DebugLevel)
			hstest.Crypto(t, client)
			room := hstest.EncryptedRoom(t, client)
			store := open(t, client, room, roomkv.WithEventType(eventType))
			require.NoError(t, store.Follow())
			defer syncing(t, client)()
			for n := range 3 {
				require.NoError(t, store.Put(t.Context(), "key", n))
			}
			require.NoError(t, open(t, client, room, roomkv.WithEventType(eventType)).Get(t.Context(), "key", new(int)))
			eventually(t, func() bool { return strings.Count(log.String(), "Event decrypted successfully") >= 4 }, "the sync brings them")
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, `"level":"warn"`) {
					assert.NotContains(t, line, "event type")
				}
			}
		})
	}
}

const documentedType = "org.example.memory"

func init() { // as the documentation of WithEventType says
	event.TypeMap[event.Type{Type: documentedType, Class: event.MessageEventType}] = reflect.TypeFor[struct{}]()
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
