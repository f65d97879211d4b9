package roomkv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// writeRows are about writes that do not depend on what is there.
var writeRows = []row{
	{name: "Put replaces what was there", in: inAll, run: putReplaces},
	{name: "Put of what is there makes no event", in: each + " " + followed + " single/encrypted", run: putMakesNoEvent},
	{name: "Put stores plain JSON in the state", in: layouts4, run: putStoresPlainJSON},
	{name: "Put keeps what others have put beside it", in: inRooms, run: putKeepsOthers},
	{name: "Put keeps fields that it does not know", in: layouts4, run: putKeepsUnknownFields},
	{name: "Put beside opsdroid", in: "single custom", run: putBesideOpsdroid},
	{name: "Put of a large value goes to the media repository", in: inRooms, run: putLarge},
	{name: "Put into a full dict of a value that does not fit there", in: once, run: putIntoAFullDict},
	{name: "Writes of many goroutines share requests", in: "single single/encrypted", run: writesShareRequests},
	{name: "Put of two processes at the same time", in: inRooms + " " + followed, run: putsOfTwoProcesses},
	{name: "Put with a context that has ended", in: each, run: putWithEndedContext},
	{name: "Put of the only writer looks for no other", in: layouts4, run: putOfTheOnlyWriter},
	{name: "PutAll is one event where the layout allows", in: inAll, run: putAllIsOneEvent},
	{name: "PutAll of nothing", in: each, run: putAllOfNothing},
	{name: "Delete removes keys, also those that are not there", in: inAll, run: deleteRemoves},
	{name: "Delete leaves an empty event for each key", in: "perkey", run: deleteLeavesEmptyEvents},
	{name: "Delete mends what cannot be read", in: each, run: deleteMends},
	{name: "WithFlushEvery sends together what waits", in: inAll, run: flushSends},
	{name: "WithFlushEvery makes an Update again on what others have written", in: inRooms, run: flushUpdatesAgain},
	{name: "Writes without encryption in an encrypted room", in: secretly, run: writesInClear},
}

func putReplaces(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", map[string]any{"a": 1}))
	require.NoError(t, e.store.Put(ctx, "j", 2.5))
	require.NoError(t, e.store.Put(ctx, "k", []string{"b"}))
	want := map[string]string{"k": `["b"]`, "j": "2.5"}
	assert.Equal(t, want, memoryOf(t, e.store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}

func putMakesNoEvent(t *testing.T, e *env) {
	ctx := t.Context()
	values := map[string]any{"k": map[string]any{"b": []any{1, nil}, "a": "<x>"}, "wrapped": 2.5}
	require.NoError(t, e.store.PutAll(ctx, values))
	before := revisions(t, e.store, "k", "wrapped")
	require.NoError(t, e.store.Put(ctx, "k", json.RawMessage(`{ "a": "\u003cx>", "b": [1, null] }`)))
	require.NoError(t, e.store.PutAll(ctx, values))
	require.NoError(t, e.store.Delete(ctx, "missing"))
	require.ErrorIs(t, e.store.Pop(ctx, "missing", new(any)), roomkv.ErrNotFound)
	assert.Equal(t, before, revisions(t, e.store, "k", "wrapped"))
}

func putStoresPlainJSON(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": map[string]any{"c": "d"}, "f": 1.5, "m": map[string]string{"json_val": "x"}}))
	want := map[string]any{"a": 1.0, "b": map[string]any{"c": "d"}, "f": map[string]any{"json_val": "1.5"}, "m": map[string]any{"json_val": `{"json_val":"x"}`}}
	got := map[string]any{}
	for stateKey := range e.stateKeys("a", "b", "f", "m") {
		maps.Copy(got, e.at(t, stateKey))
	}
	assert.Equal(t, want, got)
}

func putKeepsOthers(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, e.store.Put(ctx, "mine", 1))
	require.NoError(t, other.Put(ctx, "theirs", 1))
	require.NoError(t, e.store.Put(ctx, "mine", 2))
	require.NoError(t, other.Put(ctx, "theirs", 2))
	require.NoError(t, e.store.Delete(ctx, "none"))
	want := map[string]string{"mine": "2", "theirs": "2"}
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	assert.Equal(t, want, memoryOf(t, other))
}

func putKeepsUnknownFields(t *testing.T, e *env) {
	e.sendRaw(t, "k", map[string]any{"k": 1, "roomkv.unknown": []int{1}})
	require.NoError(t, e.store.Put(t.Context(), "k", 2))
	raw := e.raw(t, "k")
	assert.InDelta(t, 2, raw["k"], 0)
	if !e.alone() {
		assert.Equal(t, []any{1.0}, raw["roomkv.unknown"])
	}
}

// opsdroid reads, changes and writes, and copies the field that names what the writer had merged.
func putBesideOpsdroid(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "base", 0))
	var stale map[string]any
	require.NoError(t, e.client.StateEvent(ctx, e.room, database, e.stateKey(""), &stale))
	require.NoError(t, e.store.Put(ctx, "mine", 1))
	stale["theirs"] = 2
	e.sendRaw(t, "", stale)
	assert.Nil(t, e.raw(t, "")["mine"], "opsdroid has overwritten it")
	require.NoError(t, e.store.Put(ctx, "next", 3))
	want := map[string]string{"base": "0", "mine": "1", "theirs": "2", "next": "3"}
	assert.Equal(t, want, memoryOf(t, e.store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}

func putLarge(t *testing.T, e *env) {
	ctx := t.Context()
	large := text(150_000, 1)
	e.requests.Reset()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"large": large, "small": 1}))
	assert.Equal(t, 1, uploads(e.requests))
	state := allState(t, e.client, e.room)
	assert.Equal(t, !e.encrypted, strings.Contains(state, "media_val"), "in an encrypted room the reference is in the encrypted event")
	for _, request := range e.requests.Requests() {
		assert.NotContains(t, string(request.Body), large[:50], "the attachment is encrypted")
	}
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		got, err := roomkv.Get[string](ctx, store, "large")
		require.NoError(t, err)
		assert.Equal(t, large, got)
		require.NoError(t, store.Get(ctx, "small", new(int)))
	}
	e.requests.Reset()
	require.NoError(t, e.store.Put(ctx, "large", large))
	assert.Zero(t, uploads(e.requests), "it is there")
	require.NoError(t, e.store.Put(ctx, "large", "short"))
	got, err := roomkv.Get[string](ctx, e.another(t), "large")
	require.NoError(t, err)
	assert.Equal(t, "short", got)
}

func putIntoAFullDict(t *testing.T, e *env) {
	ctx := t.Context()
	want := map[string]string{}
	e.sendRaw(t, "", map[string]any{"largest": text(30_000, 0), "small": 1})
	want["largest"], want["small"] = fmt.Sprintf("%q", text(30_000, 0)), "1"
	for i, size := range []int{18_000, 20_000} {
		key := fmt.Sprint("k", i)
		require.NoError(t, e.store.Put(ctx, key, text(size, 1)))
		want[key] = fmt.Sprintf("%q", text(size, 1))
	}
	for name, stored := range e.raw(t, "") {
		reference, _ := stored.(map[string]any)
		assert.Equal(t, name == "k1", reference["media_val"] != nil, name)
	}
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}

func writesShareRequests(t *testing.T, e *env) {
	const goroutines = 60
	ctx := t.Context()
	put := func(key string, i int) error { return e.store.Put(ctx, key, i) }
	update := func(key string, i int) error {
		return roomkv.Update(ctx, e.store, key, func(int, bool) (int, error) { return i, nil })
	}
	create := func(key string, i int) error { return e.store.Create(ctx, key, i) }
	require.NoError(t, put("first", 0))
	want := map[string]string{"first": "0"}
	for name, kinds := range map[string][]func(key string, i int) error{
		"puts": {put}, "conditional writes": {update, create}, "some of each": {put, update, put, create},
	} {
		e.requests.Reset()
		var group sync.WaitGroup
		for i := range goroutines {
			key := fmt.Sprint(name, " ", i)
			want[key] = fmt.Sprint(i)
			group.Go(func() { assert.NoError(t, kinds[i%len(kinds)](key, i), key) })
		}
		group.Wait()
		assert.LessOrEqual(t, e.requests.Count(), 20, name)
	}
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}

func putsOfTwoProcesses(t *testing.T, e *env) {
	const puts = 4
	ctx := t.Context()
	stores := []*roomkv.Store{e.store, e.another(t)}
	want := map[string]string{}
	var group sync.WaitGroup
	for i, store := range stores {
		for n := range puts {
			want[fmt.Sprint(i, " ", n)] = fmt.Sprint(n)
		}
		group.Go(func() {
			for n := range puts {
				assert.NoError(t, store.Put(ctx, fmt.Sprint(i, " ", n), n))
			}
		})
	}
	group.Wait()
	eventually(t, func() bool { return len(memoryOf(t, e.another(t))) == len(want) }, "the list")
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	eventually(t, func() bool { return len(memoryOf(t, e.store)) == len(want) }, "the sync")
	assert.Equal(t, want, memoryOf(t, e.store))
}

func putWithEndedContext(t *testing.T, e *env) {
	require.NoError(t, e.store.Put(t.Context(), "k", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.requests.Reset()
	require.ErrorIs(t, e.store.Put(ctx, "k", 2), context.Canceled)
	require.ErrorIs(t, e.store.Delete(ctx, "k"), context.Canceled)
	require.ErrorIs(t, e.store.Get(ctx, "k", new(int)), context.Canceled)
	_, err := e.store.Keys(ctx)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, writes(e.requests))
	got, err := roomkv.Get[int](t.Context(), e.store, "k")
	require.NoError(t, err)
	assert.Equal(t, 1, got)
}

func putOfTheOnlyWriter(t *testing.T, e *env) {
	ctx := t.Context()
	store := open(t, e.client, e.room, e.opts(roomkv.WithSingleWriter())...)
	require.NoError(t, store.Put(ctx, "k", 0))
	for i := range 3 {
		e.counts(t, 1, "put", func() error { return store.Put(ctx, "k", i+1) })
	}
	require.NoError(t, roomkv.Update(ctx, store, "k", increment))
	require.NoError(t, store.Put(ctx, "j", 1))
	assert.Equal(t, map[string]string{"k": "4", "j": "1"}, memoryOf(t, store))
}

func putAllIsOneEvent(t *testing.T, e *env) {
	ctx := t.Context()
	values := map[string]any{"a": 1, "b": "two", "c": nil, "d": []int{4}}
	require.NoError(t, e.store.Put(ctx, "warm", 0))
	e.requests.Reset()
	require.NoError(t, e.store.PutAll(ctx, values))
	state, sealed := 0, 0
	for _, request := range e.requests.Requests() {
		if request.Method == http.MethodPut && strings.Contains(request.Path, "/state/") {
			state++
		}
		if request.Method == http.MethodPut && strings.Contains(request.Path, "/send/m.room.encrypted/") {
			sealed++
		}
	}
	assert.Len(t, e.stateKeys(slices.Collect(maps.Keys(values))...), state)
	switch {
	case !e.encrypted:
		assert.Zero(t, sealed)
	case e.single():
		assert.Equal(t, 1, sealed, "the values share an encrypted event")
	default: // those that are not sent yet when the first is
		assert.Less(t, sealed, len(values), e.sent())
	}
	memory := map[string]string{"warm": "0", "a": "1", "b": `"two"`, "c": "null", "d": "[4]"}
	assert.Equal(t, memory, memoryOf(t, e.store))
	assert.Equal(t, memory, memoryOf(t, e.another(t)))
}

func putAllOfNothing(t *testing.T, e *env) {
	require.NoError(t, e.store.PutAll(t.Context(), nil))
	require.NoError(t, e.store.PutAll(t.Context(), map[string]any{}))
	require.NoError(t, e.store.Delete(t.Context()))
	assert.Zero(t, writes(e.requests))
}

func deleteRemoves(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Delete(ctx, "never"))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3, "d": 4}))
	require.NoError(t, e.store.Delete(ctx, "a", "missing", "c", "a"))
	require.NoError(t, e.store.Delete(ctx, "a"))
	require.ErrorIs(t, e.store.Get(ctx, "a", new(int)), roomkv.ErrNotFound)
	want := map[string]string{"b": "2", "d": "4"}
	assert.Equal(t, want, memoryOf(t, e.store))
	other := e.another(t)
	assert.Equal(t, want, memoryOf(t, other))
	require.ErrorIs(t, other.Get(ctx, "c", new(int)), roomkv.ErrNotFound)
	require.NoError(t, other.Delete(ctx, "b", "d"))
	eventually(t, func() bool { return len(memoryOf(t, e.store)) == 0 }, "the deletion")
}

func deleteLeavesEmptyEvents(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	require.NoError(t, e.store.Delete(ctx, "a"))
	content := func(key string) (names map[string]any) {
		require.NoError(t, json.Unmarshal([]byte(rawState(t, e.client, e.room, database, key)), &names))
		require.Contains(t, names, "roomkv.parents", "which tells a request that is delivered twice")
		delete(names, "roomkv.parents")
		return names
	}
	assert.Empty(t, content("a"))
	assert.Equal(t, map[string]any{"b": 2.0}, content("b"))
	assert.Equal(t, map[string]string{"b": "2"}, memoryOf(t, e.another(t)))
}

func deleteMends(t *testing.T, e *env) {
	ctx := t.Context()
	bad := map[string]any{"encrypted_val": 7}
	e.sendAllRaw(t, map[string]any{"bad": bad, "worse": bad, "good": 1})
	require.ErrorIs(t, e.store.Get(ctx, "bad", new(any)), roomkv.ErrCorrupt)
	require.NoError(t, e.store.Delete(ctx, "bad"))
	require.ErrorIs(t, e.store.Get(ctx, "bad", new(any)), roomkv.ErrNotFound)
	require.NoError(t, e.store.Put(ctx, "worse", 2))
	eventually(t, func() bool { return len(memoryOf(t, e.another(t))) == 2 }, "the list")
	assert.Equal(t, map[string]string{"good": "1", "worse": "2"}, memoryOf(t, e.another(t)))
}

func writesInClear(t *testing.T, e *env) {
	ctx := t.Context()
	clear := e.another(t, roomkv.WithEncryption(false))
	require.NoError(t, clear.Put(ctx, "clear", "in the clear"))
	require.NoError(t, e.store.Put(ctx, "sealed", "in secret"))
	state := allState(t, e.client, e.room)
	assert.Contains(t, state, "in the clear")
	assert.NotContains(t, state, "in secret")
	want := map[string]string{"clear": `"in the clear"`, "sealed": `"in secret"`}
	assert.Equal(t, want, memoryOf(t, e.store), "both are read either way")
	assert.Equal(t, want, memoryOf(t, clear))
	entry, err := e.store.Entry(ctx, "clear")
	require.NoError(t, err)
	assert.False(t, entry.Encrypted)
	changed, err := e.store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	assert.NotContains(t, allState(t, e.client, e.room), "in the clear")
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	changed, err = e.store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Zero(t, changed)
}

func flushSends(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "gone": 1}))
	store := e.another(t, roomkv.WithFlushEvery(time.Hour))
	for range 5 {
		require.NoError(t, roomkv.Update(ctx, store, "a", func(old int, _ bool) (int, error) { return old + 1, nil }))
	}
	require.NoError(t, store.PutAll(ctx, map[string]any{"b": "x", "c": 2.5}))
	require.NoError(t, store.Delete(ctx, "gone", "missing"))
	entry, err := store.Entry(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, roomkv.Entry{Key: "a", Value: json.RawMessage("6")}, entry)
	want := map[string]string{"a": "6", "b": `"x"`, "c": "2.5"}
	assert.Equal(t, want, memoryOf(t, store))
	assert.Equal(t, map[string]string{"a": "1", "gone": "1"}, memoryOf(t, e.another(t)))
	require.NoError(t, store.Flush(ctx))
	assert.Equal(t, want, memoryOf(t, store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	for _, key := range []string{"a", "b", "c"} {
		e.reads(t, key, want[key])
	}
	sent := revisions(t, store, "a", "b", "c")
	assert.Equal(t, e.single(), sent[0] == sent[1] && sent[1] == sent[2], "it is one event where the layout allows")
	require.NoError(t, store.Flush(ctx))
	assert.Equal(t, sent, revisions(t, e.another(t), "a", "b", "c"), "nothing was left")
	require.NoError(t, store.Close(ctx))
}

func flushUpdatesAgain(t *testing.T, e *env) {
	ctx := t.Context()
	store := e.another(t, roomkv.WithFlushEvery(time.Hour))
	failed := errors.New("there is one already")
	add := func(old int, _ bool) (int, error) { return old + 1, nil }
	require.NoError(t, roomkv.Update(ctx, store, "n", add))
	require.NoError(t, roomkv.Update(ctx, store, "n", add))
	require.NoError(t, roomkv.Update(ctx, store, "first", func(_ int, found bool) (int, error) {
		if found {
			return 0, failed
		}
		return 1, nil
	}))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"n": 40, "first": 0}))
	require.ErrorIs(t, store.Flush(ctx), failed)
	require.NoError(t, store.Flush(ctx))
	assert.Equal(t, map[string]string{"n": "42", "first": "0"}, memoryOf(t, e.another(t)))
}
