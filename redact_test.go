package roomkv_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

// encryptedEvents are the room's encrypted events, and whether each was redacted.
func encryptedEvents(t testing.TB, client *mautrix.Client, room id.RoomID) map[id.EventID]bool {
	t.Helper()
	events := map[id.EventID]bool{}
	for from := ""; ; {
		page, err := client.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, nil, 100)
		require.NoError(t, err)
		for _, evt := range page.Chunk {
			if evt.Type.Type == event.EventEncrypted.Type {
				events[evt.ID] = len(evt.Content.Raw) == 0
			}
		}
		if from = page.End; from == "" || len(page.Chunk) == 0 {
			return events
		}
	}
}

// used are the events that the state refers to.
func used(t testing.TB, client *mautrix.Client, room id.RoomID) map[id.EventID]bool {
	t.Helper()
	events := map[id.EventID]bool{}
	for _, content := range memoryState(t, client, room) {
		var dict map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(content, &dict))
		for _, stored := range dict {
			if value, err := wire.Decode(stored); err == nil && value.Event != "" {
				events[value.Event] = true
			}
		}
	}
	return events
}

// exactlyTheUnused tells that what is referred to is there, and that everything else is redacted. Dendrite shows an event
// that it has redacted as it was for some milliseconds.
func exactlyTheUnused(t testing.TB, client *mautrix.Client, room id.RoomID) {
	t.Helper()
	eventually(t, func() bool {
		events, inUse := encryptedEvents(t, client, room), used(t, client, room)
		for evt := range inUse {
			redacted, found := events[evt]
			require.True(t, found, evt)
			require.False(t, redacted, evt)
		}
		for evt, redacted := range events {
			if redacted == inUse[evt] {
				return false
			}
		}
		return true
	}, "an old value was not redacted")
}

func TestRedaction(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newEncrypted(t, layout, roomkv.WithRedaction())
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3}))
		for i := range 3 {
			require.NoError(t, store.Put(ctx, "d", i))
			exactlyTheUnused(t, client, room)
		}
		require.NoError(t, store.Put(ctx, "a", 10))
		exactlyTheUnused(t, client, room)
		require.NoError(t, store.Delete(ctx, "d"))
		exactlyTheUnused(t, client, room)
		require.NoError(t, store.Pop(ctx, "b", new(int)))
		require.NoError(t, roomkv.Update(ctx, store, "c", func(n int, _ bool) (int, error) { return n + 1, nil }))
		exactlyTheUnused(t, client, room)
		assert.Equal(t, map[string]string{"a": "10", "c": "4"}, memoryOf(t, open(t, client, room, layout)))
	})
}

// Writers that know nothing of each other must not take away what another one has just made the state refer to.
func TestRedactionBesideOthers(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		first, client, room := newEncrypted(t, layout, roomkv.WithRedaction())
		stores := []*roomkv.Store{first, open(t, client, room, layout, roomkv.WithRedaction()), open(t, client, room, layout)}
		var group sync.WaitGroup
		for n, store := range stores {
			group.Go(func() {
				for i := range 8 {
					assert.NoError(t, store.Put(ctx, "shared", n*100+i))
					assert.NoError(t, store.Put(ctx, fmt.Sprint("own ", n), i))
					if _, err := roomkv.Get[int](ctx, store, "shared"); err != nil {
						t.Errorf("store %d, round %d: %v", n, i, err)
					}
				}
			})
		}
		group.Wait()
		events, inUse := encryptedEvents(t, client, room), used(t, client, room)
		for evt := range inUse {
			assert.False(t, events[evt], "%s is referred to", evt)
		}
		assert.Len(t, memoryOf(t, open(t, client, room, layout)), 1+len(stores))
	})
}

// The state can name any event, and the bot may have the power to redact it.
func TestRedactionOfWhatIsNotTheStores(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newEncrypted(t, roomkv.WithRedaction(), roomkv.WithKeyWait(0))
	require.NoError(t, store.Put(ctx, "key", 1))
	clear, err := client.SendMessageEvent(ctx, room, event.EventMessage, event.MessageEventContent{MsgType: event.MsgText, Body: "keep me"}, mautrix.ReqSendEvent{DontEncrypt: true})
	require.NoError(t, err)
	chat, err := client.SendMessageEvent(ctx, room, event.EventMessage, event.MessageEventContent{MsgType: event.MsgText, Body: "keep me"})
	require.NoError(t, err)
	shared, err := client.Crypto.Encrypt(ctx, room, memoryType, map[string]any{"x": 1, "key": 2})
	require.NoError(t, err)
	elsewhere, err := client.SendMessageEvent(ctx, room, event.EventEncrypted, shared, mautrix.ReqSendEvent{DontEncrypt: true})
	require.NoError(t, err)
	_, err = client.SendStateEvent(ctx, room, database, "of another store", map[string]any{"x": map[string]any{"encrypted_val": elsewhere.EventID}})
	require.NoError(t, err)
	for _, evt := range []id.EventID{clear.EventID, chat.EventID, elsewhere.EventID} {
		_, err = client.SendStateEvent(ctx, room, database, "", map[string]any{"key": map[string]any{"encrypted_val": evt}})
		require.NoError(t, err)
		cold := open(t, client, room, roomkv.WithRedaction(), roomkv.WithKeyWait(0))
		require.NoError(t, cold.Put(ctx, "key", 2))
		require.NoError(t, cold.Delete(ctx, "key"))
		got, err := client.GetEvent(ctx, room, evt)
		require.NoError(t, err)
		assert.NotEmpty(t, got.Content.Raw, evt)
	}
}

// A reader that has read the state before it was overwritten finds the old value gone, and reads again.
func TestReadWhileTheValueIsReplaced(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newEncrypted(t, layout)
		require.NoError(t, store.Put(ctx, "key", 0))
		other := again(t, client)
		hstest.Crypto(t, other)
		reading := open(t, other, room, layout)
		require.NoError(t, reading.Follow())
		defer syncing(t, other)()
		require.NoError(t, open(t, client, room, layout).Put(ctx, "warm", 0))

		redacting := open(t, client, room, layout, roomkv.WithRedaction())
		for i := range 10 {
			require.NoError(t, redacting.Put(ctx, "key", i))
			if _, err := roomkv.Get[int](ctx, reading, "key"); err != nil {
				require.NotErrorIs(t, err, roomkv.ErrCorrupt)
				require.NotContains(t, err.Error(), "redacted")
			}
		}
	})
}

// A value that did not count was dropped by whoever found that; when its writer makes it again it must be another event.
func TestRedactionBesideUpdates(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	first, client, room := newEncrypted(t, roomkv.WithRedaction())
	stores := []*roomkv.Store{first, open(t, client, room, roomkv.WithRedaction()), open(t, client, room)}
	require.NoError(t, first.Put(ctx, "key", "start"))
	for round := range 6 {
		var group sync.WaitGroup
		for i, store := range stores {
			constant := fmt.Sprint("round ", round, " store ", i)
			group.Go(func() {
				assert.NoError(t, roomkv.Update(ctx, store, "key", func(string, bool) (string, error) { return constant, nil }))
			})
		}
		group.Wait()
		_, err := roomkv.Get[string](ctx, open(t, client, room), "key")
		require.NoError(t, err)
	}
}
