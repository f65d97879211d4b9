package roomkv_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
)

// subRows are about a store of those keys that have a prefix.
var subRows = []row{
	{name: "Sub has the keys with its prefix", in: inAll + " single/sealed perkey/sealed", run: subHasItsKeys},
	{name: "Sub changes its keys alone", in: inAll + " single/sealed perkey/sealed", run: subChangesItsKeys},
	{name: "Sub of a Sub, of a room and of an event's", in: each, run: subOfSub},
	{name: "Sub keeps writes back under its keys", in: inRooms, run: subFlushes},
	{name: "Sub watches its keys", in: followed, run: subWatches},
	{name: "Sub has the past of its keys", in: inRooms + " single/sealed perkey/sealed", run: subRestores},
	{name: "Sub is exported, imported and copied", in: inRooms + " single/sealed perkey/sealed", run: subIsCopied},
	{name: "Sub encrypts its keys", in: secretly, run: subEncrypts},
	{name: "Sub with a bad prefix", in: once, run: subIsInvalid},
}

// besides is the memory beside the keys of a Sub, which are the same as in the Sub and must not change.
func besides(t *testing.T, e *env) map[string]string {
	t.Helper()
	require.NoError(t, e.store.PutAll(t.Context(), map[string]any{"a": "other", "b": "other", "p": "other", "p/a": 1, "p/b": 2, "q/a": "other"}))
	return map[string]string{"a": `"other"`, "b": `"other"`, "p": `"other"`, "q/a": `"other"`}
}

// rest are the entries of the whole memory that are not the Sub's.
func rest(t *testing.T, store *roomkv.Store) map[string]string {
	t.Helper()
	all := memoryOf(t, store)
	for key := range all {
		if len(key) > 1 && key[:2] == "p/" {
			delete(all, key)
		}
	}
	return all
}

func subHasItsKeys(t *testing.T, e *env) {
	ctx := t.Context()
	besides(t, e)
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		sub := store.Sub("p/")
		assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, sub))
		got, err := roomkv.Get[int](ctx, sub, "b")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
		require.ErrorIs(t, sub.Get(ctx, "p", new(any)), roomkv.ErrNotFound)
		require.ErrorContains(t, sub.Get(ctx, "none", new(any)), `"p/none"`)
		entry, err := sub.Entry(ctx, "a")
		require.NoError(t, err)
		assert.Equal(t, "a", entry.Key)
		lists(t, sub, []string{"a", "b"})
		lists(t, sub, []string{"b"}, roomkv.StartAfter("a"))
		lists(t, sub, []string{"b"}, roomkv.Descending(), roomkv.Limit(1))
		lists(t, sub, []string{"a"}, roomkv.Prefix("a"))
		entries, err := sub.GetAll(ctx, "a", "b", "p", "none")
		require.NoError(t, err)
		assert.Len(t, entries, 2)
		assert.Equal(t, "b", entries["b"].Key)
		assert.Empty(t, memoryOf(t, store.Sub("none/")))
		assert.Len(t, memoryOf(t, store.Sub("")), 6)
	}
}

func subChangesItsKeys(t *testing.T, e *env) {
	ctx := t.Context()
	others := besides(t, e)
	sub := e.store.Sub("p/")
	require.NoError(t, sub.Put(ctx, "a", 10))
	require.NoError(t, sub.PutAll(ctx, map[string]any{"c": 3, "d": 4}))
	require.NoError(t, roomkv.Update(ctx, sub, "a", increment))
	require.NoError(t, sub.Create(ctx, "e", 5))
	require.ErrorIs(t, sub.Create(ctx, "e", 6), roomkv.ErrExists)
	entry, err := sub.Entry(ctx, "e")
	require.NoError(t, err)
	require.NoError(t, sub.CompareAndPut(ctx, "e", 6, entry.Revision))
	require.ErrorIs(t, sub.CompareAndDelete(ctx, "e", entry.Revision), roomkv.ErrConflict)
	var popped int
	require.NoError(t, sub.Pop(ctx, "d", &popped))
	assert.Equal(t, 4, popped)
	require.NoError(t, sub.Delete(ctx, "b", "p", "q/a"))
	require.NoError(t, sub.Transact(ctx, func(tx *roomkv.Tx) error {
		var n int
		if err := tx.Get("c", &n); err != nil {
			return err
		}
		if e.single() {
			keys, err := tx.Keys()
			require.NoError(t, err)
			assert.Equal(t, []string{"a", "c", "e"}, keys)
		}
		return tx.Put("c", n+100)
	}))
	assert.Equal(t, map[string]string{"a": "11", "c": "103", "e": "6"}, memoryOf(t, sub))
	assert.Equal(t, others, rest(t, e.another(t)))
	_, err = sub.Purge(ctx, "c")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "11", "e": "6"}, memoryOf(t, e.another(t).Sub("p/")))
	assert.Equal(t, others, rest(t, e.another(t)))
}

func subOfSub(t *testing.T, e *env) {
	ctx := t.Context()
	sub := e.store.Sub("p/").Sub("q/")
	require.NoError(t, sub.Put(ctx, "a", 1))
	assert.Equal(t, map[string]string{"p/q/a": "1"}, memoryOf(t, e.store))
	room := e.newRoom(t, e.client)
	scoped, err := sub.WithRoom(ctx, room)
	require.NoError(t, err)
	require.NoError(t, scoped.Put(ctx, "b", 2))
	sub.InEventRoom(func(ctx context.Context, _ *event.Event, store *roomkv.Store) {
		assert.NoError(t, store.Put(ctx, "c", 3))
		from, ok := roomkv.FromContext(ctx)
		assert.True(t, ok)
		assert.NoError(t, from.Put(ctx, "d", 4))
	})(ctx, &event.Event{RoomID: room})
	assert.Equal(t, map[string]string{"p/q/b": "2", "p/q/c": "3", "p/q/d": "4"}, memoryOf(t, open(t, e.client, room, e.opts()...)))
	assert.Equal(t, map[string]string{"p/q/a": "1"}, memoryOf(t, e.store))
}

func subFlushes(t *testing.T, e *env) {
	ctx := t.Context()
	others := besides(t, e)
	store := open(t, e.twin(t), e.room, e.opts(roomkv.WithFlushEvery(1<<40))...)
	sub := store.Sub("p/")
	require.NoError(t, sub.Put(ctx, "c", 3))
	require.NoError(t, roomkv.Update(ctx, sub, "a", increment))
	require.NoError(t, sub.Delete(ctx, "b"))
	want := map[string]string{"a": "2", "c": "3"}
	assert.Equal(t, want, memoryOf(t, sub))
	assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, e.another(t).Sub("p/")), "not yet")
	require.NoError(t, sub.Close(ctx))
	assert.Equal(t, want, memoryOf(t, e.another(t).Sub("p/")))
	assert.Equal(t, others, rest(t, e.another(t)))
}

func subWatches(t *testing.T, e *env) {
	ctx := t.Context()
	of := *e
	of.store = e.store.Sub("p/")
	some := of.watchSome(t, 1, roomkv.WatchPrefix("b"))
	all := of.watch(t, 3)
	require.NoError(t, e.store.Put(ctx, "a", 0))
	require.NoError(t, of.store.Put(ctx, "a", 1))
	require.NoError(t, e.store.Put(ctx, "p/b1", 2))
	require.NoError(t, e.store.Put(ctx, "b1", 0))
	require.NoError(t, of.store.Delete(ctx, "a"))
	assert.Equal(t, []string{"a:  -> 1", "b1:  -> 2", "a: 1 -> "}, all())
	assert.Equal(t, []string{"b1:  -> 2"}, some())
}

func subRestores(t *testing.T, e *env) {
	ctx := t.Context()
	besides(t, e)
	sub := e.store.Sub("p/")
	e.settle(t)
	entry, err := e.store.Entry(ctx, "q/a")
	if !e.single() {
		require.NoError(t, e.store.Put(ctx, "last", 1))
		entry, err = e.store.Entry(ctx, "last")
	}
	require.NoError(t, err)
	e.settle(t)
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": "changed", "p/a": 10, "p/new": 3, "new": "other"}))
	require.NoError(t, e.store.Delete(ctx, "p/b", "b"))
	others := rest(t, e.store)
	e.settle(t)
	revisions := 0
	for _, err := range sub.History(ctx, "a") {
		require.NoError(t, err)
		revisions++
	}
	assert.Equal(t, 2, revisions)
	snapshot, err := sub.At(ctx, roomkv.AtRevision(entry.Revision))
	require.NoError(t, err)
	keys, err := snapshot.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, keys)
	var n int
	require.NoError(t, snapshot.Get(ctx, "b", &n))
	assert.Equal(t, 2, n)
	all := map[string]string{}
	for entry, err := range snapshot.All(ctx) {
		require.NoError(t, err)
		all[entry.Key] = string(entry.Value)
	}
	assert.Equal(t, map[string]string{"a": "1", "b": "2"}, all)
	_, err = e.store.Restore(ctx, snapshot)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption, "a snapshot of a part says nothing of the whole")
	changed, err := sub.Restore(ctx, snapshot)
	require.NoError(t, err)
	assert.Equal(t, 3, changed)
	assert.Equal(t, all, memoryOf(t, sub))
	assert.Equal(t, others, rest(t, e.another(t)))
	past, err := e.store.At(ctx, roomkv.AtRevision(entry.Revision))
	require.NoError(t, err)
	changed, err = sub.Restore(ctx, past)
	require.NoError(t, err)
	assert.Zero(t, changed, "a snapshot of the whole has it too")
}

func subIsCopied(t *testing.T, e *env) {
	ctx := t.Context()
	others := besides(t, e)
	sub := e.store.Sub("p/")
	require.NoError(t, sub.Put(ctx, "a", 11))
	e.settle(t)
	var file bytes.Buffer
	exported, err := sub.Export(ctx, &file, roomkv.ExportHistory())
	require.NoError(t, err)
	assert.Equal(t, 2, exported.Total)
	assert.Equal(t, 3, exported.Revisions)
	assert.NotContains(t, file.String(), "other")
	assert.NotContains(t, file.String(), `"p/`)
	imported, err := e.store.Sub("i/").Import(ctx, bytes.NewReader(file.Bytes()))
	require.NoError(t, err)
	assert.Equal(t, 2, imported.Written)
	others["i/a"], others["i/b"] = "11", "2"
	require.NoError(t, sub.PutAll(ctx, map[string]any{"a": 12, "c": 13}))
	imported, err = sub.Import(ctx, bytes.NewReader(file.Bytes()), roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, 1, imported.Removed)
	assert.Equal(t, map[string]string{"a": "11", "b": "2"}, memoryOf(t, sub))
	assert.Equal(t, others, rest(t, e.another(t)))

	copied, err := roomkv.Copy(ctx, e.store.Sub("c/"), sub)
	require.NoError(t, err)
	assert.Equal(t, 2, copied.Written)
	assert.Equal(t, 2, copied.Total)
	others["c/a"], others["c/b"] = "11", "2"
	assert.Equal(t, others, rest(t, e.another(t)))
	_, err = roomkv.Copy(ctx, e.store.Sub("p/q/"), sub)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption, "the one is in the other")
	_, err = roomkv.Copy(ctx, e.store.Sub("d/"), sub, roomkv.CopyRedactSource())
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	elsewhere := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	_, err = roomkv.Copy(ctx, elsewhere, sub)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "11", "b": "2"}, memoryOf(t, elsewhere))
}

func subEncrypts(t *testing.T, e *env) {
	ctx := t.Context()
	inClear := e.another(t, roomkv.WithEncryption(false))
	require.NoError(t, inClear.PutAll(ctx, map[string]any{"a": 1, "p/a": 2}))
	e.settle(t)
	changed, err := e.store.Sub("p/").EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	for key, encrypted := range map[string]bool{"a": false, "p/a": true} {
		entry, err := e.another(t).Entry(ctx, key)
		require.NoError(t, err)
		assert.Equal(t, encrypted, entry.Encrypted, key)
	}
}

func subIsInvalid(t *testing.T, e *env) {
	ctx := t.Context()
	half := e.store.Sub("\xc3")
	for what, err := range map[string]error{
		"Put":      half.Put(ctx, "\xa9", 1),
		"Get":      half.Get(ctx, "\xa9", new(int)),
		"Create":   half.Create(ctx, "k", 1),
		"Transact": half.Transact(ctx, func(*roomkv.Tx) error { return errors.New("never") }),
		"Delete":   half.Delete(ctx, "k"),
	} {
		require.ErrorIs(t, err, roomkv.ErrInvalidKey, what)
	}
	_, err := half.Keys(ctx)
	require.ErrorIs(t, err, roomkv.ErrInvalidKey)
}
