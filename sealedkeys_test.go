package roomkv_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var (
	secret      = []byte("a secret of these tests")
	otherSecret = []byte("another secret of these tests")
)

func TestWrongSecretIsNoEmptyStore(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newEncrypted(t, layout, roomkv.WithSealedKeys(secret))
		_, err := store.Keys(ctx)
		require.NoError(t, err)
		require.ErrorIs(t, store.Get(ctx, "key", new(any)), roomkv.ErrNotFound)
		require.NoError(t, store.Put(ctx, "key", 1))
		before := memoryState(t, client, room)
		for name, other := range map[string]*roomkv.Store{
			"another": open(t, client, room, layout, roomkv.WithSealedKeys(otherSecret)),
			"none":    open(t, client, room, layout),
		} {
			_, perKey := before[""] // the dict of the single-state-key layout is elsewhere only with another state key
			perKey = len(before) > 1 && !perKey
			plain := name == "none" && perKey
			_, err = other.Keys(ctx)
			require.ErrorIs(t, err, roomkv.ErrWrongSecret, name)
			for _, err := range other.All(ctx) {
				require.ErrorIs(t, err, roomkv.ErrWrongSecret, name)
			}
			require.ErrorIs(t, other.Put(ctx, "key", 2), roomkv.ErrWrongSecret, name)
			require.ErrorIs(t, other.Create(ctx, "key", 2), roomkv.ErrWrongSecret, name)
			if plain {
				continue // it asks for a state key that is not there
			}
			require.ErrorIs(t, other.Get(ctx, "key", new(any)), roomkv.ErrWrongSecret, name)
			require.ErrorIs(t, other.Delete(ctx, "key"), roomkv.ErrWrongSecret, name)
			require.ErrorIs(t, other.Pop(ctx, "key", new(any)), roomkv.ErrWrongSecret, name)
		}
		assert.Equal(t, before, memoryState(t, client, room))
		assert.Equal(t, map[string]string{"key": "1"}, memoryOf(t, store))
	})
}

func TestSealedNamesDifferBetweenRooms(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newEncrypted(t, roomkv.WithPerKeyState(), roomkv.WithSealedKeys(secret))
	second := hstest.EncryptedRoom(t, client)
	other, err := store.WithRoom(t.Context(), second)
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "key", 1))
	require.NoError(t, other.Put(t.Context(), "key", 1))
	first := memoryState(t, client, room)
	for stateKey := range memoryState(t, client, second) {
		if stateKey != "roomkv.seal" {
			assert.NotContains(t, first, stateKey)
		}
	}
}

func TestSealedKeysNeedAnEncryptedRoom(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		hstest.Crypto(t, client)
		room := hstest.Room(t, client)
		store := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
		require.ErrorIs(t, store.Put(t.Context(), "key", 1), roomkv.ErrNoCrypto)
		require.ErrorIs(t, store.Create(t.Context(), "key", 1), roomkv.ErrNoCrypto)
		assert.Empty(t, memoryState(t, client, room))
	})
	client := hstest.Client(t)
	for _, opts := range [][]roomkv.Option{
		{roomkv.WithSealedKeys(nil)}, {roomkv.WithSealedKeys([]byte("too short"))},
		{roomkv.WithSealedKeys(secret), roomkv.WithEncryption(false)},
	} {
		_, err := roomkv.New(client, "!room:example.org", opts...)
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	}
}

func TestEncryptAllSealsKeys(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		plain, client, room := newEncrypted(t, layout)
		require.NoError(t, open(t, client, room, layout, roomkv.WithEncryption(false)).PutAll(ctx, map[string]any{"clear": 1, "number": 1.5}))
		require.NoError(t, plain.Put(ctx, "encrypted", "x"))
		sealed := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
		assert.Empty(t, memoryOf(t, sealed))
		require.NoError(t, sealed.Put(ctx, "new", 2))
		n, err := sealed.EncryptAll(ctx)
		require.NoError(t, err)
		assert.Equal(t, 3, n)
		assert.Equal(t, map[string]string{"clear": "1", "number": "1.5", "encrypted": `"x"`, "new": "2"}, memoryOf(t, open(t, client, room, layout, roomkv.WithSealedKeys(secret))))
		for _, content := range memoryState(t, client, room) {
			var names map[string]any
			require.NoError(t, json.Unmarshal(content, &names))
			for name := range names {
				assert.True(t, strings.HasPrefix(name, "roomkv."), name)
			}
		}
		n, err = sealed.EncryptAll(ctx)
		require.NoError(t, err)
		assert.Zero(t, n)
	})
}

// What somebody puts into the state must not pass for a sealed key.
func TestHostileSealedNames(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newEncrypted(t, roomkv.WithSealedKeys(secret))
	require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 1, "b": 2}))
	var dict map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(memoryState(t, client, room)[""], &dict))
	forged := "roomkv.sealed." + strings.Repeat("A", 43)
	for name, stored := range dict {
		if strings.HasPrefix(name, "roomkv.sealed.") {
			dict[forged] = stored
		}
	}
	dict["roomkv.sealed."+strings.Repeat("B", 43)] = json.RawMessage(`7`)
	_, err := client.SendStateEvent(t.Context(), room, event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "", dict)
	require.NoError(t, err)
	keys, err := open(t, client, room, roomkv.WithSealedKeys(secret)).Keys(t.Context())
	require.ErrorIs(t, err, roomkv.ErrCorrupt)
	assert.Equal(t, []string{"a", "b"}, keys)
}

// The keys of sealed entries must be read before their order is known, but not the large values.
func TestSealedLargeValuesAreReadOneByOne(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newEncrypted(t, roomkv.WithSealedKeys(secret))
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": text(300_000, 0), "b": text(300_000, 1), "c": 1}))
	recorder := hstest.Record(client)
	downloads := func() (n int) {
		for _, request := range recorder.Requests() {
			if strings.Contains(request.Path, "/download/") {
				n++
			}
		}
		return n
	}
	fresh := open(t, client, room, roomkv.WithSealedKeys(secret))
	for entry, err := range fresh.All(ctx) {
		require.NoError(t, err)
		assert.Equal(t, "a", entry.Key)
		break
	}
	assert.Equal(t, 1, downloads())
	recorder.Reset()
	snapshot, err := fresh.At(ctx, roomkv.AtTime(time.Now()))
	require.NoError(t, err)
	keys, err := snapshot.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b", "c"}, keys)
	assert.Zero(t, downloads())
	for entry, err := range snapshot.All(ctx) {
		require.NoError(t, err)
		assert.Equal(t, "a", entry.Key)
		break
	}
	assert.Equal(t, 1, downloads())
}
