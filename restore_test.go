package roomkv_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
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
