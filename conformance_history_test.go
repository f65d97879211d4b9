package roomkv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
)

// historyRows are about what was.
var historyRows = []row{
	{name: "History gives revisions, the newest first", in: inRooms + " " + followed, run: historyOrder},
	{name: "History of a key that never was", in: each, run: historyOfNothing},
	{name: "History tells who has written", in: each, run: historySenders},
	{name: "At a moment and at a revision", in: inRooms, run: atMoments},
	{name: "At a revision that is none", in: each, run: atNothing},
	{name: "ErrTooOld of what may not be seen", in: each, run: errTooOldAt},
	{name: "ErrRedacted of an old value", in: each, run: errRedactedAt},
	{name: "Restore makes the memory what it was", in: inRooms, run: restoreMakes},
	{name: "Restore of another room's snapshot", in: each, run: restoreOfAnother},
	{name: "Purge leaves no trace", in: inRooms, run: purgeLeavesNothing},
	{name: "Purge of what others have sent", in: "single", run: purgeOfOthers},
	{name: "Purge names attachments", in: inRooms, run: purgeOfLarge},
}

func historyOrder(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "key", 1))
	require.NoError(t, e.store.Put(ctx, "other", "x"))
	_, err := e.client.SendText(ctx, e.room, "talk")
	require.NoError(t, err)
	require.NoError(t, e.another(t).Put(ctx, "key", 2.5))
	e.reads(t, "key", "2.5")
	require.NoError(t, e.store.Delete(ctx, "key", "other"))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"key": "back", "more": 1}))
	want := []string{`"back"`, "deleted", "2.5", "1"}
	e.settle(t)
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		values, entries := historyOf(t, store, "key")
		assert.Equal(t, want, values)
		for i, entry := range entries {
			assert.Equal(t, values[i] == "deleted", entry.Deleted)
			assert.Equal(t, e.encrypted && !entry.Deleted, entry.Encrypted)
			assert.Equal(t, e.client.UserID, entry.Sender)
			assert.True(t, i == 0 || !entry.Time.After(entries[i-1].Time))
		}
		values, _ = historyOf(t, store, "more")
		assert.Equal(t, []string{"1"}, values)
	}
}

func historyOfNothing(t *testing.T, e *env) {
	values, _ := historyOf(t, e.store, "never")
	assert.Empty(t, values)
	require.NoError(t, e.store.Put(t.Context(), "other", 1))
	values, _ = historyOf(t, e.store, "never")
	assert.Empty(t, values)
}

func historySenders(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.member(t, 50)
	require.NoError(t, e.store.Put(ctx, "key", 1))
	require.NoError(t, open(t, other, e.room, e.opts()...).Put(ctx, "key", 2))
	e.settle(t)
	_, entries := historyOf(t, e.store, "key")
	assert.Equal(t, other.UserID, entries[0].Sender)
	assert.Equal(t, e.client.UserID, entries[1].Sender)
}

func atMoments(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"key": 1, "gone": "x"}))
	entry, err := e.store.Entry(ctx, "key")
	require.NoError(t, err)
	time.Sleep(5 * time.Millisecond)
	then := time.Now()
	time.Sleep(5 * time.Millisecond)
	require.NoError(t, e.store.Put(ctx, "key", 2))
	require.NoError(t, e.store.Delete(ctx, "gone"))
	require.NoError(t, e.store.Put(ctx, "new", 3))
	e.settle(t)
	cold := e.another(t)
	snapshot, err := cold.At(ctx, roomkv.AtTime(then))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"key": "1", "gone": `"x"`}, pastOf(t, snapshot))
	was, err := snapshot.Entry(ctx, "key")
	require.NoError(t, err)
	assert.Equal(t, entry.Revision, was.Revision)
	var got int
	require.NoError(t, snapshot.Get(ctx, "key", &got))
	assert.Equal(t, 1, got)
	require.ErrorIs(t, snapshot.Get(ctx, "new", &got), roomkv.ErrNotFound)
	keys, err := snapshot.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"gone", "key"}, keys)
	at, err := cold.At(ctx, roomkv.AtRevision(entry.Revision))
	require.NoError(t, err)
	value, err := at.Entry(ctx, "key")
	require.NoError(t, err)
	assert.Equal(t, "1", string(value.Value))
	never, err := cold.At(ctx, roomkv.AtTime(time.UnixMilli(1)))
	require.NoError(t, err)
	assert.Empty(t, pastOf(t, never))
	now, err := cold.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"key": "2", "new": "3"}, pastOf(t, now))
}

func atNothing(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "key", 1))
	said, err := e.client.SendText(ctx, e.room, "no state")
	require.NoError(t, err)
	for _, revision := range []roomkv.Revision{"", "$nothing", roomkv.Revision(said.EventID)} {
		_, err := e.store.At(ctx, roomkv.AtRevision(revision))
		require.ErrorIs(t, err, roomkv.ErrNotFound, revision)
	}
}

// What was there before a member may see the room's history. Dendrite leaves no sign of it with an event for each key.
func errTooOldAt(t *testing.T, e *env) {
	ctx := t.Context()
	_, err := e.client.SendStateEvent(ctx, e.room, event.StateHistoryVisibility, "", map[string]any{"history_visibility": "joined"})
	require.NoError(t, err)
	require.NoError(t, e.store.Put(ctx, "key", 1))
	require.NoError(t, e.store.Put(ctx, "key", 2))
	time.Sleep(5 * time.Millisecond)
	then := time.Now()
	time.Sleep(5 * time.Millisecond)
	late := open(t, e.member(t, 50), e.room, e.opts()...)
	require.NoError(t, late.Put(ctx, "key", 3))
	e.settle(t)
	snapshot, err := late.At(ctx, roomkv.AtTime(then))
	if e.alone() && e.subject.like == dendrite {
		require.NoError(t, err)
		assert.Empty(t, pastOf(t, snapshot))
	} else {
		require.ErrorIs(t, err, roomkv.ErrTooOld)
	}
	snapshot, err = late.At(ctx, roomkv.AtTime(time.Now().Add(time.Minute)))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"key": "3"}, pastOf(t, snapshot))
}

func errRedactedAt(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "key", 1))
	first := roomkv.Revision(revision(t, e.store, "key"))
	require.NoError(t, e.store.Put(ctx, "key", 2))
	redacted(t, e.client, e.room, first)
	e.settle(t)
	cold := e.another(t)
	values, _ := historyOf(t, cold, "key")
	assert.Equal(t, []string{"2", "error"}, values)
	for entry, err := range cold.History(ctx, "key") {
		if entry.Revision == first {
			require.ErrorIs(t, err, roomkv.ErrRedacted)
		}
	}
	snapshot, err := cold.At(ctx, roomkv.AtRevision(first))
	if err == nil {
		_, err = snapshot.Entry(ctx, "key")
	}
	require.ErrorIs(t, err, roomkv.ErrRedacted)
}

func restoreMakes(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"changed": 1, "gone": "x", "same": true}))
	entry, err := e.store.Entry(ctx, "same")
	require.NoError(t, err)
	time.Sleep(5 * time.Millisecond)
	then := time.Now()
	time.Sleep(5 * time.Millisecond)
	require.NoError(t, e.store.Put(ctx, "changed", 2))
	require.NoError(t, e.store.Delete(ctx, "gone"))
	require.NoError(t, e.store.Put(ctx, "new", 3))
	e.settle(t)
	snapshot, err := e.store.At(ctx, roomkv.AtTime(then))
	require.NoError(t, err)
	e.requests.Reset()
	changed, err := e.store.Restore(ctx, snapshot)
	require.NoError(t, err)
	assert.Equal(t, 3, changed)
	assert.Len(t, e.stateKeys("changed", "gone", "new"), writes(e.requests), "no key is in two, and none is encrypted again")
	was := map[string]string{"changed": "1", "gone": `"x"`, "same": "true"}
	assert.Equal(t, was, memoryOf(t, e.store))
	assert.Equal(t, was, memoryOf(t, e.another(t)))
	changed, err = e.store.Restore(ctx, snapshot)
	require.NoError(t, err)
	assert.Zero(t, changed)
	if !e.single() {
		again, err := e.store.Entry(ctx, "same")
		require.NoError(t, err)
		assert.Equal(t, entry.Revision, again.Revision)
	}
}

func restoreOfAnother(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "key", 1))
	elsewhere, err := e.store.WithRoom(ctx, e.newRoom(t, e.client))
	require.NoError(t, err)
	require.NoError(t, elsewhere.Put(ctx, "key", 2))
	e.settle(t)
	snapshot, err := elsewhere.At(ctx, roomkv.AtTime(time.Now().Add(time.Minute)))
	require.NoError(t, err)
	_, err = e.store.Restore(ctx, snapshot)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = e.store.Restore(ctx, nil)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	assert.Equal(t, map[string]string{"key": "1"}, memoryOf(t, e.store))
}

func purgeLeavesNothing(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"victim": "nobody knows", "kept": "this"}))
	require.NoError(t, e.store.Put(ctx, "victim", "nobody knows the trouble"))
	require.NoError(t, e.store.Put(ctx, "kept", "that"))
	e.settle(t)
	purged, err := e.store.Purge(ctx, "victim", "never")
	require.NoError(t, err)
	assert.Empty(t, purged.Left)
	assert.False(t, purged.Unseen)
	if e.encrypted {
		assert.Positive(t, purged.Encrypted)
	} else {
		assert.Positive(t, purged.State)
	}
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		require.ErrorIs(t, store.Get(ctx, "victim", new(any)), roomkv.ErrNotFound)
		eventually(t, func() bool { return len(memoryOf(t, store)) == 1 }, "the list")
		assert.Equal(t, map[string]string{"kept": `"that"`}, memoryOf(t, store))
	}
	traceless(t, e.client, e.room, "nobody knows")
	unreadable(t, e.client, e.room, "nobody knows")
	again, err := e.store.Purge(ctx, "victim")
	require.NoError(t, err)
	assert.Zero(t, again.State+again.Encrypted)
}

func purgeOfOthers(t *testing.T, e *env) {
	ctx := t.Context()
	guest := e.member(t, 40)
	var levels event.PowerLevelsEventContent
	require.NoError(t, e.client.StateEvent(ctx, e.room, event.StatePowerLevels, "", &levels))
	levels.StateDefaultPtr, levels.RedactPtr = new(int), new(int)
	*levels.StateDefaultPtr, *levels.RedactPtr = 40, 75
	_, err := e.client.SendStateEvent(ctx, e.room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
	require.NoError(t, e.store.Put(ctx, "key", "owner's secret"))
	first := revision(t, e.store, "key")
	theirs := open(t, guest, e.room, e.opts()...)
	require.NoError(t, theirs.Put(ctx, "key", "guest's secret"))
	e.settle(t)
	purged, err := theirs.Purge(ctx, "key")
	require.ErrorIs(t, err, roomkv.ErrForbidden)
	require.Len(t, purged.Left, 1)
	assert.Equal(t, first, purged.Left[0].Event)
	require.ErrorIs(t, purged.Left[0].Err, roomkv.ErrForbidden)
	traceless(t, e.client, e.room, "guest's secret")
	purged, err = e.store.Purge(ctx, "key")
	require.NoError(t, err)
	assert.Empty(t, purged.Left)
	traceless(t, e.client, e.room, "owner's secret")
}

func purgeOfLarge(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"key": text(80_000, 1), "other": text(80_000, 2)}))
	e.settle(t)
	purged, err := e.store.Purge(ctx, "key")
	require.NoError(t, err)
	require.Len(t, purged.Media, 1)
	assert.True(t, strings.HasPrefix(string(purged.Media[0]), "mxc://"))
	traceless(t, e.client, e.room, string(purged.Media[0]))
	got, err := roomkv.Get[string](ctx, e.another(t), "other")
	require.NoError(t, err)
	assert.Equal(t, text(80_000, 2), got)
}
