package roomkv_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
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

// spellings are the ways in which a text can cross the wire.
func spellings(t testing.TB, text string) (all [][]byte) {
	t.Helper()
	escaped, err := json.Marshal(text)
	require.NoError(t, err)
	var unicode strings.Builder
	for _, r := range text {
		fmt.Fprintf(&unicode, `\u%04x`, r)
	}
	all = append(all, []byte(text), escaped[1:len(escaped)-1], []byte(url.PathEscape(text)), []byte(url.QueryEscape(text)), []byte(unicode.String()))
	for shift := range 3 { // base64 of a text that begins anywhere in a group of three
		padded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		inner := padded[4:]
		if shift == 0 {
			inner = padded
		}
		inner = inner[:len(inner)-len(inner)%4-4]
		all = append(all, []byte(inner), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(inner)))
	}
	return all
}

// Everything that crosses the wire is looked at, in both directions.
func TestSealedKeysAndValuesNeverCrossTheWire(t *testing.T) {
	for name, layout := range map[string]roomkv.Option{"single": roomkv.WithSingleStateKey(""), "perkey": roomkv.WithPerKeyState()} {
		t.Run("layout="+name, func(t *testing.T) { testWire(t, layout) })
	}
}

func testWire(t *testing.T, layout roomkv.Option) {
	client := hstest.Client(t)
	recorder := hstest.Record(client)
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	store := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
	require.NoError(t, store.Follow())
	defer syncing(t, client)()
	changes := watching(t, store, 1+50+49, roomkv.WatchPrefix("patient "))

	require.NoError(t, store.Put(t.Context(), "patient warm", "diagnosis"))
	values := map[string]any{}
	var texts []string
	for i := range 50 {
		key, value := fmt.Sprintf("patient \"%02d\" é", i), fmt.Sprintf("diagnosis <%d> \\ ü", i)
		texts = append(texts, key, value)
		if values[key] = value; i%2 == 0 {
			require.NoError(t, store.Put(t.Context(), key, value))
		}
	}
	require.NoError(t, store.PutAll(t.Context(), values))
	cold := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
	for key, value := range values {
		got, err := roomkv.Get[string](t.Context(), cold, key)
		require.NoError(t, err)
		assert.Equal(t, value, got)
	}
	keys, err := cold.Keys(t.Context())
	require.NoError(t, err)
	assert.Len(t, keys, 51)
	assert.True(t, slices.IsSorted(keys))
	assert.Len(t, memoryOf(t, cold), 51)
	for key := range values {
		if !strings.Contains(key, "49") {
			require.NoError(t, store.Delete(t.Context(), key))
		}
	}
	assert.Equal(t, []string{`patient "49" é`, "patient warm"}, must(cold.Keys(t.Context()))(t))
	told := map[string]int{}
	for _, change := range changes() {
		told[change.Key]++
	}
	assert.Len(t, told, 51)

	var wire bytes.Buffer
	for _, request := range recorder.Requests() {
		fmt.Fprintf(&wire, "%s %s?%s\n%s\n%s\n", request.Method, request.Path, request.Query, request.Body, request.Response)
	}
	for _, text := range append(texts, "patient", "diagnosis", string(secret)) {
		for _, spelling := range spellings(t, text) {
			assert.False(t, bytes.Contains(wire.Bytes(), spelling), "%q crossed the wire as %q", text, spelling)
		}
	}
	for _, spelling := range spellings(t, room.String()) { // so that the search is one that finds
		if bytes.Contains(wire.Bytes(), spelling) {
			return
		}
	}
	t.Error("not even the room's ID was found")
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		require.NoError(t, err)
		return value
	}
}

func TestWrongSecretIsNoEmptyStore(t *testing.T) {
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
