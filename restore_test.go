package roomkv_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// redacted redacts an event and waits until that can be seen.
func redacted(t testing.TB, client *mautrix.Client, room id.RoomID, at roomkv.Revision) {
	t.Helper()
	_, err := client.RedactEvent(t.Context(), room, id.EventID(at))
	require.NoError(t, err)
	eventually(t, func() bool {
		evt, err := client.GetEvent(t.Context(), room, id.EventID(at))
		return err == nil && len(evt.Content.Raw) == 0
	}, "the event is not redacted")
}

// What a redacted event held is not known, nor is its key where the state key is an escaped or hashed one. What is there now stays.
func TestRestoreOfRedacted(t *testing.T) {
	hstest.Parallel(t)
	for name, key := range map[string]string{"plain": "plain", "escaped": "@alice:example.org", "hashed": strings.Repeat("long", 100)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			store, client, room := newStore(t, roomkv.WithPerKeyState())
			require.NoError(t, store.Put(ctx, "other", "a"))
			require.NoError(t, store.Put(ctx, key, 1))
			first := roomkv.Revision(revision(t, store, key))
			require.NoError(t, store.Put(ctx, key, 2))
			require.NoError(t, store.Put(ctx, "other", "b"))
			redacted(t, client, room, first)

			snapshot, err := store.At(ctx, roomkv.AtRevision(first))
			require.NoError(t, err)
			entry, err := snapshot.Entry(ctx, key)
			require.ErrorIs(t, err, roomkv.ErrRedacted)
			assert.Equal(t, key, entry.Key)
			assert.Equal(t, first, entry.Revision)
			_, err = snapshot.Entry(ctx, "never")
			require.ErrorIs(t, err, roomkv.ErrNotFound)

			changed, err := store.Restore(ctx, snapshot)
			require.ErrorIs(t, err, roomkv.ErrRedacted)
			assert.Equal(t, 1, changed)
			assert.Equal(t, map[string]string{key: "2", "other": `"a"`}, memoryOf(t, store))
		})
	}
}

// inClear is a room with values in the clear that was encrypted since, and a snapshot of the memory as it was before.
func inClear(t testing.TB, values map[string]any, opts ...roomkv.Option) (*mautrix.Client, id.RoomID, *roomkv.Snapshot) {
	t.Helper()
	client := hstest.Client(t)
	hstest.Crypto(t, client)
	room := hstest.Room(t, client)
	store := open(t, client, room, opts...)
	require.NoError(t, store.PutAll(t.Context(), values))
	snapshot, err := store.At(t.Context(), roomkv.AtTime(time.Now()))
	require.NoError(t, err)
	_, err = client.SendStateEvent(t.Context(), room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
	require.NoError(t, err)
	return client, room, snapshot
}

// Inside an encrypted event a value takes more than in the state, so that what stood there goes to the media repository.
func TestRestoreOfLargeInClear(t *testing.T) {
	hstest.Parallel(t)
	html := strings.Repeat("<b>", 15_300) // which fits into the state, and not into an encrypted event
	for name, test := range map[string]struct {
		opts    []roomkv.Option
		changed int
		err     error
		html    string
	}{
		"fits":      {nil, 4, nil, html},
		"too large": {[]roomkv.Option{roomkv.WithMaxValue(20_000)}, 3, roomkv.ErrTooLarge, "oops"},
	} {
		t.Run(name, func(t *testing.T) {
			bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
				ctx := t.Context()
				client, room, snapshot := inClear(t, map[string]any{"a": 1, "html": html, "z": 1}, layout)
				store := open(t, client, room, append(test.opts, layout)...)
				require.NoError(t, store.PutAll(ctx, map[string]any{"a": 2, "html": "oops", "z": 2, "new": 2}))
				changed, err := store.Restore(ctx, snapshot)
				require.ErrorIs(t, err, test.err)
				assert.Equal(t, test.changed, changed)
				cold := open(t, client, room, layout)
				assert.Equal(t, map[string]string{"a": "1", "html": strconv.Quote(test.html), "z": "1"}, memoryOf(t, cold))
				assert.Empty(t, clearNames(t, client, room))
			})
		})
	}
}

// Where several keys cannot come back, the error is the same every time.
func TestRestoreTellsTheFirst(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	keys := []string{"a", "b", "c", "d"}
	values := map[string]any{}
	for _, key := range keys {
		values[key] = strings.Repeat("<b>", 15_300)
	}
	t.Run("redacted", func(t *testing.T) {
		store, client, room := newStore(t, roomkv.WithPerKeyState())
		require.NoError(t, store.PutAll(ctx, values))
		before := time.Now()
		for _, key := range keys {
			redacted(t, client, room, roomkv.Revision(revision(t, store, key)))
		}
		snapshot, err := store.At(ctx, roomkv.AtTime(before))
		require.NoError(t, err)
		_, first := snapshot.Entry(ctx, "a")
		require.ErrorIs(t, first, roomkv.ErrRedacted)
		for range 10 {
			_, err := store.Restore(ctx, snapshot)
			require.EqualError(t, err, first.Error())
		}
	})
	t.Run("too large", func(t *testing.T) {
		client, room, snapshot := inClear(t, values, roomkv.WithPerKeyState())
		store := open(t, client, room, roomkv.WithPerKeyState(), roomkv.WithMaxValue(5000))
		require.NoError(t, store.Delete(ctx, keys...))
		for range 10 {
			_, err := store.Restore(ctx, snapshot)
			require.ErrorContains(t, err, `"a"`)
			require.ErrorIs(t, err, roomkv.ErrTooLarge)
		}
	})
}

// Somebody changes a key, which had the same value in the clear as in the snapshot, after Restore has read what is there.
func TestRestoreWritesNothingInClear(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client, room, snapshot := inClear(t, map[string]any{"key": "as it was", "other": 1})
	rival := open(t, twin(t, client), room)
	require.NoError(t, open(t, client, room).Put(ctx, "other", 2))
	use, next := through(client)
	var once sync.Once
	use(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType) {
			once.Do(func() { assert.NoError(t, rival.Put(ctx, "key", "changed")) })
		}
		return resp, err
	})
	store := open(t, client, room)
	changed, err := store.Restore(ctx, snapshot)
	require.NoError(t, err)
	assert.Equal(t, 2, changed)
	assert.Equal(t, map[string]string{"key": `"as it was"`, "other": "1"}, memoryOf(t, store))
	assert.Empty(t, clearNames(t, client, room))
}
