package roomkv_test

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// errorRows are about what goes wrong, with each error by its name.
var errorRows = []row{
	{name: "ErrInvalidKey", in: layouts4, run: errInvalidKey},
	{name: "ErrInvalidValue", in: each, run: errInvalidValue},
	{name: "ErrInvalidOption", in: once, run: errInvalidOption},
	{name: "ErrDecode", in: each, run: errDecode},
	{name: "ErrCorrupt", in: each, run: errCorrupt},
	{name: "ErrTooLarge of a key", in: each, run: errTooLargeKey},
	{name: "ErrTooLarge of many small values", in: once, run: errTooLargeDict},
	{name: "ErrTooLarge of a value", in: inRooms, run: errTooLargeValue},
	{name: "ErrMissingMedia", in: each, run: errMissingMedia},
	{name: "ErrForbidden", in: each, run: errForbidden},
	{name: "ErrNotJoined", in: each, run: errNotJoined},
	{name: "ErrUnknownRoom", in: once, run: errUnknownRoom},
	{name: "ErrNoRoom", in: inAll, run: errNoRoom},
	{name: "ErrUndecryptable of an event that is not there", in: secretly, run: errUndecryptable},
	{name: "ErrRedacted of an encrypted value", in: secretly, run: errRedacted},
	{name: "A wrong access token", in: each, run: wrongToken},
	{name: "A redacted state event is an empty memory", in: each + " " + followed, run: redactedState},
}

func errInvalidKey(t *testing.T, e *env) {
	ctx := t.Context()
	e.requests.Reset()
	for _, key := range []string{"\xff", "a\xc3", "\xed\xa0\x80"} {
		require.ErrorIs(t, e.store.Put(ctx, key, 1), roomkv.ErrInvalidKey)
		require.ErrorIs(t, e.store.Get(ctx, key, new(int)), roomkv.ErrInvalidKey)
		require.ErrorIs(t, e.store.Delete(ctx, "fine", key), roomkv.ErrInvalidKey)
		require.ErrorIs(t, e.store.Pop(ctx, key, new(int)), roomkv.ErrInvalidKey)
		require.ErrorIs(t, e.store.Create(ctx, key, 1), roomkv.ErrInvalidKey)
		require.ErrorIs(t, roomkv.Update(ctx, e.store, key, increment), roomkv.ErrInvalidKey)
		for _, err := range e.store.History(ctx, key) {
			require.ErrorIs(t, err, roomkv.ErrInvalidKey)
		}
	}
	assert.Zero(t, e.requests.Count())
}

func errInvalidValue(t *testing.T, e *env) {
	ctx := t.Context()
	e.requests.Reset()
	for _, value := range []any{make(chan int), func() {}, json.RawMessage(`{`), json.RawMessage("\"\xff\""), math.Inf(1)} {
		require.ErrorIs(t, e.store.PutAll(ctx, map[string]any{"fine": 1, "bad": value}), roomkv.ErrInvalidValue)
		require.ErrorIs(t, e.store.Create(ctx, "bad", value), roomkv.ErrInvalidValue)
	}
	assert.Zero(t, e.requests.Count(), "nothing is sent for what cannot work")
	require.ErrorIs(t, e.store.Get(ctx, "fine", new(int)), roomkv.ErrNotFound)
}

func errInvalidOption(t *testing.T, e *env) {
	for name, opts := range map[string][]roomkv.Option{
		"nil":            {nil},
		"event type":     {roomkv.WithEventType("m.room.power_levels")},
		"no event type":  {roomkv.WithEventType("")},
		"long state key": {roomkv.WithSingleStateKey(strings.Repeat("x", 256))},
		"other's key":    {roomkv.WithSingleStateKey("@alice:example.org")},
		"room's name":    {roomkv.WithRooms(map[string]string{"#main:example.org": "!a:b"})},
		"short secret":   {roomkv.WithSealedKeys([]byte("too short"))},
		"secret":         {roomkv.WithSealedKeys(secret), roomkv.WithEncryption(false)},
		"size":           {roomkv.WithMaxValue(-1)},
		"no events":      {roomkv.WithShards(0)},
		"too many":       {roomkv.WithShards(501)},
	} {
		_, err := roomkv.New(e.client, e.room.String(), opts...)
		assert.ErrorIs(t, err, roomkv.ErrInvalidOption, name)
	}
	_, err := roomkv.New(nil, e.room.String())
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	own := open(t, e.client, e.room, roomkv.WithSingleStateKey(e.client.UserID.String()))
	require.NoError(t, own.Put(t.Context(), "k", 1), "one's own user ID is a state key like any other")
	require.NoError(t, own.Get(t.Context(), "k", new(int)))
}

func errDecode(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"n": 424242, "s": "the secret"}))
	err := e.store.Get(ctx, "n", new(int8))
	require.ErrorIs(t, err, roomkv.ErrDecode)
	assert.NotContains(t, err.Error(), "424242")
	for _, dest := range []any{nil, 7, (*int)(nil), new(int)} {
		err := e.store.Get(ctx, "s", dest)
		require.ErrorIs(t, err, roomkv.ErrDecode)
		assert.NotContains(t, err.Error(), "secret")
	}
	_, err = roomkv.Get[[]string](ctx, e.store, "s")
	require.ErrorIs(t, err, roomkv.ErrDecode)
}

// Somebody with the power to send state puts something else there.
func errCorrupt(t *testing.T, e *env) {
	ctx := t.Context()
	for _, stored := range []string{`{"encrypted_val":7}`, `{"json_val":"{"}`, `{"json_val":{"a":1}}`, `{"media_val":"x"}`} {
		sent := e.sendRaw(t, "k", map[string]json.RawMessage{"k": json.RawMessage(stored)})
		_, err := e.store.Entry(ctx, "k")
		require.ErrorIs(t, err, roomkv.ErrCorrupt, stored)
		assert.ErrorContains(t, err, sent.String(), "it names the event")
		require.ErrorIs(t, e.store.Pop(ctx, "k", new(any)), roomkv.ErrCorrupt, stored)
	}
	require.NoError(t, e.store.Put(ctx, "k", "mended"))
	require.NoError(t, e.store.Get(ctx, "k", new(string)))
}

func errTooLargeKey(t *testing.T, e *env) {
	ctx := t.Context()
	long := strings.Repeat("long ", 13_500)
	require.NoError(t, e.store.Put(ctx, "k", 1))
	e.requests.Reset()
	err := e.store.PutAll(ctx, map[string]any{"k": 2, long: "the value"})
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.ErrorContains(t, err, "65536")
	assert.NotContains(t, err.Error(), "the value")
	assert.Zero(t, writes(e.requests))
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, e.store))
}

func errTooLargeDict(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, small("first", 40_000)))
	err := e.store.PutAll(ctx, small("second", 40_000))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	require.ErrorContains(t, err, "WithPerKeyState")
	keys, err := e.another(t).Keys(ctx)
	require.NoError(t, err)
	assert.Len(t, keys, len(small("first", 40_000)))
	require.NoError(t, e.store.Put(ctx, "first 000", 1), "nobody is blocked")
}

func errTooLargeValue(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", text(90_000, 0)))
	limited := e.another(t, roomkv.WithMaxValue(50_000))
	err := limited.Get(ctx, "k", new(string))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	require.ErrorIs(t, limited.Put(ctx, "j", text(60_000, 1)), roomkv.ErrTooLarge)
	require.ErrorIs(t, limited.Get(ctx, "j", new(string)), roomkv.ErrNotFound)
	require.NoError(t, limited.Put(ctx, "j", text(1000, 1)))
	got, err := roomkv.Get[string](ctx, e.store, "k")
	require.NoError(t, err)
	assert.Equal(t, text(90_000, 0), got)
}

func errMissingMedia(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": text(90_000, 0), "other": 1}))
	raw := e.raw(t, "k")
	media := raw["k"].(map[string]any)["media_val"].(map[string]any)
	media["url"] = "mxc://" + e.client.UserID.Homeserver() + "/nothing"
	e.sendRaw(t, "k", raw)
	err := e.another(t).Get(ctx, "k", new(string))
	require.ErrorIs(t, err, roomkv.ErrMissingMedia)
	assert.ErrorContains(t, err, "mxc://")
	require.NoError(t, e.store.Put(ctx, "k", text(90_000, 0)), "a Put mends it, also with the same value")
	got, err := roomkv.Get[string](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, text(90_000, 0), got)
}

func errForbidden(t *testing.T, e *env) {
	ctx := t.Context()
	powerless := e.member(t, 0)
	require.NoError(t, e.store.Put(ctx, "k", 1))
	store := open(t, powerless, e.room, e.opts()...)
	got, err := roomkv.Get[int](ctx, store, "k")
	require.NoError(t, err, "reading takes no power")
	assert.Equal(t, 1, got)
	for what, err := range map[string]error{
		"put":    store.Put(ctx, "k", "the secret"),
		"create": store.Create(ctx, "j", "the secret"),
		"update": roomkv.Update(ctx, store, "k", increment),
		"delete": store.Delete(ctx, "k"),
		"pop":    store.Pop(ctx, "k", new(int)),
	} {
		require.ErrorIs(t, err, roomkv.ErrForbidden, what)
		require.ErrorIs(t, err, mautrix.MForbidden, what)
		assert.ErrorContains(t, err, "power level 50", what)
		assert.ErrorContains(t, err, "has 0", what)
		assert.NotContains(t, err.Error(), "secret", what)
	}
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, e.another(t)))
	e.setLevel(t, powerless.UserID, 50)
	require.NoError(t, store.Put(ctx, "k", 2))
}

func errNotJoined(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	stranger := e.user(t)
	for _, room := range []string{e.room.String(), "!nowhere:" + e.client.UserID.Homeserver()} {
		store, err := roomkv.New(stranger, room, e.opts()...)
		require.NoError(t, err)
		_, keysErr := store.Keys(ctx)
		for what, err := range map[string]error{
			"get":    store.Get(ctx, "k", new(int)),
			"put":    store.Put(ctx, "k", 2),
			"delete": store.Delete(ctx, "k", "j"),
			"update": roomkv.Update(ctx, store, "k", increment),
			"keys":   keysErr,
		} {
			require.ErrorIs(t, err, roomkv.ErrNotJoined, "%s in %s", what, room)
			require.NotErrorIs(t, err, roomkv.ErrNotFound, "%s in %s", what, room)
		}
	}
	member := e.member(t, 50)
	store := open(t, member, e.room, e.opts()...)
	require.NoError(t, store.Get(ctx, "k", new(int)))
	_, err := member.LeaveRoom(ctx, e.room)
	require.NoError(t, err)
	require.ErrorIs(t, store.Put(ctx, "k", 2), roomkv.ErrNotJoined)
	require.Error(t, open(t, member, e.room, e.opts()...).Get(ctx, "never", new(any)))
}

func errUnknownRoom(t *testing.T, e *env) {
	ctx := t.Context()
	for _, room := range []string{"main", "!", "#", "@alice:example.org"} {
		_, err := roomkv.New(e.client, room)
		require.ErrorIs(t, err, roomkv.ErrUnknownRoom, room)
	}
	_, err := e.store.WithRoom(ctx, "main")
	require.ErrorIs(t, err, roomkv.ErrUnknownRoom)
	alias := "#nowhere:" + e.client.UserID.Homeserver()
	store, err := roomkv.New(e.client, alias)
	require.NoError(t, err)
	err = store.Get(ctx, "k", new(int))
	require.ErrorIs(t, err, roomkv.ErrUnknownRoom)
	require.ErrorIs(t, err, mautrix.MNotFound)
	assert.ErrorContains(t, err, alias)
	require.ErrorIs(t, store.Put(ctx, "k", 1), roomkv.ErrUnknownRoom)
}

// A store without a room has the rooms of others.
func errNoRoom(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	store, err := roomkv.New(e.twin(t), "", e.opts()...)
	require.NoError(t, err)
	for what, err := range map[string]error{
		"Get":      store.Get(ctx, "k", new(int)),
		"Put":      store.Put(ctx, "k", 2),
		"Delete":   store.Delete(ctx, "k"),
		"Update":   roomkv.Update(ctx, store, "k", increment),
		"Transact": store.Transact(ctx, func(*roomkv.Tx) error { return nil }),
	} {
		require.ErrorIs(t, err, roomkv.ErrNoRoom, what)
		require.ErrorIs(t, err, roomkv.ErrUnknownRoom, what)
	}
	for _, err := range store.All(ctx) {
		require.ErrorIs(t, err, roomkv.ErrNoRoom)
	}
	_, err = store.WithRoom(ctx, "")
	require.ErrorIs(t, err, roomkv.ErrNoRoom)
	require.NoError(t, store.Flush(ctx))
	scoped, err := store.WithRoom(ctx, e.room)
	require.NoError(t, err)
	got, err := roomkv.Get[int](ctx, scoped, "k")
	require.NoError(t, err)
	assert.Equal(t, 1, got)
	store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
		assert.NoError(t, room.Put(ctx, "k", 2))
	})(ctx, &event.Event{RoomID: e.room})
	if e.following {
		return // the sync tells a moment later
	}
	eventually(t, func() bool { return slices.Contains(roomsOf(t, store), e.room) }, "the list")
}

func errUndecryptable(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	e.sendRaw(t, "bad", map[string]any{"bad": map[string]any{"encrypted_val": "$nothing"}})
	err := e.another(t, roomkv.WithKeyWait(0)).Get(ctx, "bad", new(any))
	require.ErrorIs(t, err, roomkv.ErrUndecryptable)
	assert.ErrorContains(t, err, "$nothing")
	require.NoError(t, e.store.Put(ctx, "bad", "mended"))
	eventually(t, func() bool { return e.another(t).Get(ctx, "bad", new(string)) == nil }, "a busy Dendrite gives the new value's event some time later")
}

func errRedacted(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	for reference := range used(t, e.client, e.room) {
		_, err := e.client.RedactEvent(ctx, e.room, reference)
		require.NoError(t, err)
	}
	eventually(t, func() bool { return e.another(t, roomkv.WithKeyWait(0)).Get(ctx, "k", new(int)) != nil }, "the redaction")
	err := e.another(t, roomkv.WithKeyWait(0)).Get(ctx, "k", new(int))
	require.ErrorIs(t, err, roomkv.ErrUndecryptable)
	require.ErrorIs(t, err, roomkv.ErrRedacted)
	keys, err := e.another(t).Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"k"}, keys)
	require.NoError(t, e.another(t).Put(ctx, "k", 2), "a Put replaces it")
	require.NoError(t, e.another(t).Get(ctx, "k", new(int)))
}

func wrongToken(t *testing.T, e *env) {
	ctx := t.Context()
	client := e.twin(t)
	client.AccessToken = "wrong"
	recorder := hstest.Record(client)
	store := open(t, client, e.room, e.opts()...)
	require.ErrorIs(t, store.Put(ctx, "k", 1), mautrix.MUnknownToken)
	require.ErrorIs(t, store.Get(ctx, "k", new(int)), mautrix.MUnknownToken)
	_, err := store.Keys(ctx)
	require.ErrorIs(t, err, mautrix.MUnknownToken)
	for _, request := range recorder.Requests() {
		assert.Equal(t, http.StatusUnauthorized, request.Status)
	}
	down := e.twin(t)
	down.Client.Transport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	err = open(t, down, e.room, e.opts()...).Put(mautrix.WithMaxRetries(ctx, 0), "k", "the secret")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "nor is a lost connection an answer")
	assert.NotContains(t, err.Error(), "secret")
}

func redactedState(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", "secret"))
	_, err := e.client.RedactEvent(ctx, e.room, revision(t, e.store, "k"))
	require.NoError(t, err)
	eventually(t, func() bool { return e.store.Get(ctx, "k", new(string)) != nil }, "the redaction")
	require.ErrorIs(t, e.store.Get(ctx, "k", new(string)), roomkv.ErrNotFound)
	require.NoError(t, e.store.Put(ctx, "other", 1))
	want := map[string]string{"other": "1"}
	eventually(t, func() bool { return len(memoryOf(t, e.store)) == 1 }, "the list")
	assert.Equal(t, want, memoryOf(t, e.store), "it does not come back with the next write")
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}
