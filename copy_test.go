package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
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

// various are values of every kind, under keys of every kind.
func various(n int) map[string]any {
	values := map[string]any{
		"": "the empty key", "float": 0.5, "large": int64(1) << 60, "marker": map[string]any{"json_val": "1"}, "null": nil,
		"@user:example.org": []any{1, "a<b>&\u2028", nil}, "roomkv.parents": true, strings.Repeat("long ", 60): map[string]any{"é": []int{}},
	}
	for i := range n {
		values[fmt.Sprint("key ", i)] = strings.Repeat(fmt.Sprint(i, " "), 20)
	}
	return values
}

// sameMemory compares values as JSON, for mautrix spells what it encrypts in its own way.
func sameMemory(t *testing.T, want map[string]string, store *roomkv.Store) {
	t.Helper()
	memory := memoryOf(t, store)
	assert.Len(t, memory, len(want))
	for key, value := range want {
		assert.JSONEq(t, value, memory[key], key)
	}
}

func TestCopy(t *testing.T) {
	for from, source := range layouts {
		for to, destination := range layouts {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, client, _ := newStore(t, source)
				values := various(20)
				require.NoError(t, src.PutAll(t.Context(), values))
				before := memoryOf(t, src)

				dst := open(t, client, hstest.Room(t, client), destination)
				require.NoError(t, dst.Put(t.Context(), "theirs", 1))
				var seen []roomkv.Copied
				copied, err := roomkv.Copy(t.Context(), dst, src, roomkv.CopyProgress(func(c roomkv.Copied) { seen = append(seen, c) }))
				require.NoError(t, err)
				assert.Equal(t, roomkv.Copied{Total: len(values), Written: len(values)}, copied)
				assert.Equal(t, copied, seen[len(seen)-1])
				assert.Equal(t, before, memoryOf(t, src))
				want := memoryOf(t, src)
				want["theirs"] = "1"
				sameMemory(t, want, dst)

				recorder := hstest.Record(client)
				copied, err = roomkv.Copy(t.Context(), dst, src)
				require.NoError(t, err)
				assert.Equal(t, roomkv.Copied{Total: len(values), Equal: len(values)}, copied)
				for _, request := range recorder.Requests() {
					assert.NotEqual(t, "PUT", request.Method, request.Path)
				}
			})
		}
	}
}

// Layouts of one room and event type, which see nothing of each other but what they share.
func TestCopyWithinARoom(t *testing.T) {
	src, client, room := newStore(t)
	require.NoError(t, src.PutAll(t.Context(), various(5)))
	dst := open(t, client, room, roomkv.WithPerKeyState())
	_, err := roomkv.Copy(t.Context(), dst, src)
	require.NoError(t, err)
	assert.Equal(t, memoryOf(t, src), memoryOf(t, dst))

	_, err = roomkv.Copy(t.Context(), open(t, client, room), src)
	assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = roomkv.Copy(t.Context(), dst, src, nil)
	assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = roomkv.Copy(t.Context(), dst, src, roomkv.CopyProgress(nil))
	assert.NoError(t, err)
}

// Between accounts, rooms in the clear and encrypted ones, with sealed keys and without.
func TestCopyEncrypted(t *testing.T) {
	secret := roomkv.WithSealedKeys([]byte("a secret of the copying test"))
	plain, _, _ := newStore(t)
	sealed, _, _ := newEncrypted(t, secret)
	perKey, _, _ := newEncrypted(t, secret, roomkv.WithPerKeyState())
	encrypted, client, room := newEncrypted(t)
	values := various(10)
	require.NoError(t, plain.PutAll(t.Context(), values))
	want := memoryOf(t, plain)
	src := plain
	for _, dst := range []*roomkv.Store{sealed, perKey, encrypted} {
		copied, err := roomkv.Copy(t.Context(), dst, src)
		require.NoError(t, err)
		assert.Equal(t, len(values), copied.Written)
		sameMemory(t, want, dst)
		src = dst
	}
	assert.Empty(t, clearNames(t, client, room))
	back, _, _ := newStore(t, roomkv.WithPerKeyState())
	_, err := roomkv.Copy(t.Context(), back, src)
	require.NoError(t, err)
	sameMemory(t, want, back)
}

func TestCopyKeepsWhatIsThere(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		src, client, _ := newStore(t)
		require.NoError(t, src.PutAll(t.Context(), map[string]any{"same": 1, "other": "new", "new": true}))
		dst := open(t, client, hstest.Room(t, client), layout)
		require.NoError(t, dst.PutAll(t.Context(), map[string]any{"same": 1, "other": "old"}))

		copied, err := roomkv.Copy(t.Context(), dst, src)
		assert.ErrorIs(t, err, roomkv.ErrExists)
		assert.ErrorContains(t, err, `"other"`)
		assert.NotContains(t, err.Error(), "old")
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 1, Equal: 1, Kept: 1}, copied)
		assert.Equal(t, map[string]string{"same": "1", "other": `"old"`, "new": "true"}, memoryOf(t, dst))

		copied, err = roomkv.Copy(t.Context(), dst, src, roomkv.CopyOverwrite())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 1, Equal: 2}, copied)
		assert.Equal(t, memoryOf(t, src), memoryOf(t, dst))
	})
}

func TestCopyLeavesOutWhatCannotBeRead(t *testing.T) {
	src, client, room := newStore(t)
	_, err := client.SendStateEvent(t.Context(), room, event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "",
		json.RawMessage(`{"good": 1, "bad": {"encrypted_val": "$nothing"}}`))
	require.NoError(t, err)
	dst := open(t, client, hstest.Room(t, client))
	copied, err := roomkv.Copy(t.Context(), dst, src)
	assert.ErrorContains(t, err, "$nothing")
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 1, Unreadable: 1}, copied)
	assert.Equal(t, map[string]string{"good": "1"}, memoryOf(t, dst))
}

// What each generation of opsdroid has left in a room, by event type and layout.
func TestCopyFromOpsdroid(t *testing.T) {
	want := map[string]string{"score": `{"alice":3}`, "name": `{"first":"Ada"}`}
	for name, generation := range map[string]struct {
		eventType string
		layout    roomkv.Option
		state     map[string]string // contents by state key
	}{
		"the first, by key":   {"opsdroid.database", roomkv.WithPerKeyState(), map[string]string{"score": `{"alice":3}`, "name": `{"first":"Ada"}`}},
		"the second, by key":  {"opsdroid.database", roomkv.WithPerKeyState(), map[string]string{"score": `{"score":{"alice":3}}`, "name": `{"name":{"first":"Ada"}}`}},
		"the second, in one":  {"opsdroid.database", roomkv.WithSingleStateKey(""), map[string]string{"": `{"score":{"alice":3},"name":{"first":"Ada"}}`}},
		"today's, by key":     {"dev.opsdroid.database", roomkv.WithPerKeyState(), map[string]string{"score": `{"score":{"alice":3}}`, "name": `{"name":{"first":"Ada"}}`}},
		"today's, in one":     {"dev.opsdroid.database", roomkv.WithSingleStateKey(""), map[string]string{"": `{"score":{"alice":3},"name":{"first":"Ada"}}`}},
		"today's, in another": {"dev.opsdroid.database", roomkv.WithSingleStateKey("bot"), map[string]string{"bot": `{"score":{"alice":3},"name":{"first":"Ada"}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			client := hstest.Client(t)
			room := hstest.Room(t, client)
			for stateKey, content := range generation.state {
				_, err := client.SendStateEvent(t.Context(), room, event.Type{Type: generation.eventType, Class: event.StateEventType}, stateKey, json.RawMessage(content))
				require.NoError(t, err)
			}
			src := open(t, client, room, roomkv.WithEventType(generation.eventType), generation.layout)
			require.Eventually(t, func() bool { return len(memoryOf(t, src)) == len(want) }, 5*time.Second, 10*time.Millisecond,
				"Dendrite's sync lags behind what another has written")
			for _, layout := range layouts {
				dst := open(t, client, room, layout)
				_, err := roomkv.Copy(t.Context(), dst, src)
				require.NoError(t, err)
				memory := memoryOf(t, dst)
				for key, value := range want {
					assert.JSONEq(t, value, memory[key])
				}
			}
		})
	}
}

// A copy that ends at any request is resumed by another, and nothing is there twice.
func TestCopyIsResumed(t *testing.T) {
	for i := range min(20, max(1, *rounds/2)) {
		from, to := []string{"single", "custom", "perkey"}[i%3], []string{"perkey", "single"}[i%2]
		src, client, _ := newStore(t, layouts[from])
		require.NoError(t, src.PutAll(t.Context(), various(30)))
		want := memoryOf(t, src)
		var room id.RoomID
		writer := again(t, client)
		if i%4 == 3 {
			hstest.Crypto(t, writer)
			room = hstest.EncryptedRoom(t, writer)
		} else {
			room = hstest.Room(t, writer)
		}
		ctx, cancel := context.WithCancel(mautrix.WithMaxRetries(t.Context(), 0))
		last := 0 // of the state events that it sends
		if to == "perkey" {
			last = rand.IntN(len(want))
		}
		interrupt(writer, func(n int) {
			if n == last {
				cancel()
			}
		}, nil)
		_, err := roomkv.Copy(ctx, open(t, writer, room, layouts[to]), src)
		cancel()
		interrupt(writer, nil, nil)
		if err != nil { // the last event may have been stored all the same
			assert.ErrorIs(t, err, context.Canceled)
		}
		dst := open(t, writer, room, layouts[to])
		copied, err := roomkv.Copy(t.Context(), dst, src)
		require.NoError(t, err)
		assert.Equal(t, len(want), copied.Written+copied.Equal)
		t.Logf("%s to %s, ended at event %d", from, to, last)
		sameMemory(t, want, dst)
	}
}
