package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
	hstest.Parallel(t)
	for from, source := range layouts {
		for to, destination := range layouts {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, client, _ := newStore(t, source)
				values := various(2)
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
	hstest.Parallel(t)
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
	hstest.Parallel(t)
	secret := roomkv.WithSealedKeys([]byte("a secret of the copying test"))
	plain, _, _ := newStore(t)
	sealed, _, _ := newEncrypted(t, secret)
	perKey, _, _ := newEncrypted(t, secret, roomkv.WithPerKeyState())
	encrypted, client, room := newEncrypted(t)
	values := various(3)
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
	hstest.Parallel(t)
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
	hstest.Parallel(t)
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

// What each generation of opsdroid has left in a room is copied by one call, also where that is interrupted again and again.
func TestCopyFromOpsdroid(t *testing.T) {
	hstest.Parallel(t)
	all := fixtures(t)
	for i, fixture := range all {
		t.Run(fixture.Name, func(t *testing.T) {
			client := hstest.Client(t)
			req := &mautrix.ReqCreateRoom{Preset: "private_chat"}
			for stateKey, content := range fixture.Events {
				evt := &event.Event{Type: event.Type{Type: fixture.EventType, Class: event.StateEventType}, StateKey: &stateKey}
				require.NoError(t, json.Unmarshal(content, &evt.Content))
				req.InitialState = append(req.InitialState, evt)
			}
			room := hstest.Room(t, client, req)
			layout := layouts[[]string{"single", "perkey", "custom"}[i%3]]
			options := []roomkv.CopyOption{}
			if i%2 == 1 {
				options = append(options, roomkv.CopyRedactSource())
			}
			breaker := breakable(client)
			for range (20 + len(all) - 1) / len(all) {
				breaker.during(t, 14, func(ctx context.Context) error {
					_, err := roomkv.Copy(ctx, open(t, client, room, layout), open(t, client, room, fixture.options()...), options...)
					return err
				})
			}
			dst := open(t, client, room, layout)
			src := open(t, client, room, fixture.options()...)
			copied, err := roomkv.Copy(t.Context(), dst, src, options...)
			require.NoError(t, err)
			assert.Equal(t, copied.Total, copied.Written+copied.Equal)
			want := map[string]string{}
			for key, value := range fixture.Memory {
				want[key] = string(value)
			}
			sameMemory(t, want, dst)
			eventually(t, func() bool { return len(memoryState(t, client, room)) <= len(want) }, "nothing is there twice")
			if len(options) > 0 {
				eventually(t, func() bool { return len(memoryOf(t, src)) == 0 }, "the source was redacted")
			} else {
				sameMemory(t, want, src)
			}
		})
	}
}

// breaker is a transport that can break.
type breaker struct {
	broken atomic.Pointer[func(*http.Request) (*http.Response, error)]
}

func (b *breaker) RoundTrip(req *http.Request) (*http.Response, error) {
	if broken := b.broken.Load(); broken != nil {
		return (*broken)(req)
	}
	return http.DefaultTransport.RoundTrip(req)
}

// breakable puts a breaker under the client.
func breakable(client *mautrix.Client) *breaker {
	b := new(breaker)
	client.Client = &http.Client{Transport: b}
	return b
}

// during calls do while requests fail from a random one of the first so many on, some of them after the homeserver has
// carried it out, with a context in which none is tried again and that may end then.
func (b *breaker) during(t *testing.T, within int, do func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(mautrix.WithMaxRetries(t.Context(), 0))
	defer cancel()
	var n atomic.Int64
	last, after, end := rand.Int64N(int64(within)), rand.IntN(2) == 0, rand.IntN(2) == 0
	broken := func(req *http.Request) (*http.Response, error) {
		at := n.Add(1) - 1
		if at == last && end {
			cancel()
		}
		if at < last {
			return http.DefaultTransport.RoundTrip(req)
		}
		if at == last && after {
			if resp, err := http.DefaultTransport.RoundTrip(req.WithContext(context.WithoutCancel(req.Context()))); err == nil {
				_ = resp.Body.Close()
			}
		}
		return nil, errors.New("the connection is gone")
	}
	b.broken.Store(&broken)
	defer b.broken.Store(nil)
	t.Logf("broken off at request %d: %v", last, do(ctx))
}

// The source is redacted when all of it is in the destination, and not before.
func TestCopyRedactSource(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		options := []roomkv.Option{layout, roomkv.WithSealedKeys([]byte("a secret of the copying test"))}
		src, client, room := newEncrypted(t, options...)
		values := various(2)
		require.NoError(t, src.PutAll(ctx, values))
		require.NoError(t, src.Put(ctx, "alone", true))
		want := memoryOf(t, src)
		dst, _, _ := newStore(t)

		require.NoError(t, dst.Put(ctx, "alone", "another"))
		_, err := roomkv.Copy(ctx, dst, src, roomkv.CopyRedactSource())
		require.ErrorIs(t, err, roomkv.ErrExists)
		for evt, redacted := range encryptedEvents(t, client, room) {
			assert.False(t, redacted, evt)
		}
		assert.Equal(t, want, memoryOf(t, src))

		require.NoError(t, dst.Delete(ctx, "alone"))
		inUse := id.EventID("")
		for inUse = range used(t, client, room) {
			break
		}
		elsewhere := "" // of another layout
		if _, single := dictStateKey(t, client, room); single {
			elsewhere = "elsewhere"
		}
		_, err = client.SendStateEvent(ctx, room, database, elsewhere, map[string]any{"x": map[string]any{"encrypted_val": inUse}})
		require.NoError(t, err)
		breaker := breakable(client)
		for range 5 {
			breaker.during(t, 12, func(ctx context.Context) error {
				_, err := roomkv.Copy(ctx, dst, open(t, client, room, options...), roomkv.CopyRedactSource())
				return err
			})
		}
		_, err = roomkv.Copy(ctx, dst, src, roomkv.CopyRedactSource())
		require.NoError(t, err)
		sameMemory(t, want, dst)
		eventually(t, func() bool { return len(memoryOf(t, open(t, client, room, options...))) == 0 }, "the source is empty")
		eventually(t, func() bool {
			for evt, redacted := range encryptedEvents(t, client, room) {
				if redacted == (evt == inUse) {
					return false
				}
			}
			return true
		}, "what nothing refers to is redacted, and nothing else")
		require.NoError(t, src.Put(ctx, "new", 1))
		assert.Equal(t, map[string]string{"new": "1"}, memoryOf(t, src))
	})
}

// A memory that has outgrown one state event moves to many: what it had, or with -rounds=50 as much as it ever can have, and
// all 2,000 keys go there.
func TestCopyOfWhatIsTooLarge(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	all, some := map[string]any{}, map[string]any{}
	for i := range 2000 {
		key := fmt.Sprintf("key %04d", i)
		all[key] = strings.Repeat("x", 200)
		if i < 30 || *rounds >= 50 && i < 260 {
			some[key] = all[key]
		}
	}
	full, client, room := newStore(t)
	require.NoError(t, full.PutAll(ctx, some))
	want := memoryOf(t, full)
	require.ErrorIs(t, full.PutAll(ctx, all), roomkv.ErrTooLarge)
	require.Equal(t, want, memoryOf(t, open(t, client, room)), "nothing is lost")

	dst := open(t, client, hstest.Room(t, client), roomkv.WithPerKeyState())
	copied, err := roomkv.Copy(ctx, dst, full)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: len(some), Written: len(some)}, copied)
	sameMemory(t, want, dst)
	if *rounds < 50 {
		return
	}
	require.NoError(t, dst.PutAll(ctx, all))
	require.Len(t, memoryOf(t, dst), len(all))
	_, err = roomkv.Copy(ctx, full, dst)
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	require.Equal(t, want, memoryOf(t, full))
	elsewhere := open(t, client, hstest.Room(t, client), roomkv.WithPerKeyState())
	copied, err = roomkv.Copy(ctx, elsewhere, dst)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: len(all), Written: len(all)}, copied)
}

// A value that the destination does not take is left out, and no other with it.
func TestCopyLeavesOutWhatIsTooLarge(t *testing.T) {
	hstest.Parallel(t)
	src, client, _ := newStore(t)
	require.NoError(t, src.PutAll(t.Context(), map[string]any{"a": 1, "large": strings.Repeat("x", 60_000), "b": 2}))
	file := exported(t, src)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		dst := open(t, client, hstest.Room(t, client), layout, roomkv.WithMaxValue(50_000))
		copied, err := roomkv.Copy(t.Context(), dst, src, roomkv.CopyRedactSource())
		require.ErrorIs(t, err, roomkv.ErrTooLarge)
		assert.ErrorContains(t, err, `"large"`)
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 2, TooLarge: 1}, copied)
		assert.Len(t, memoryOf(t, dst), 2)
		assert.Len(t, memoryOf(t, src), 3)

		dst = open(t, client, hstest.Room(t, client), layout, roomkv.WithMaxValue(50_000))
		imported, err := dst.Import(t.Context(), bytes.NewReader(file))
		require.ErrorIs(t, err, roomkv.ErrTooLarge)
		assert.Equal(t, roomkv.Imported{Total: 3, Written: 2, TooLarge: 1}, imported)
		assert.Len(t, memoryOf(t, dst), 2)
	})
}

// A dict where a key of the other layout would be is neither copied nor overwritten.
func TestCopyBesideADict(t *testing.T) {
	hstest.Parallel(t)
	single, client, room := newStore(t, roomkv.WithSingleStateKey("b"))
	require.NoError(t, single.PutAll(t.Context(), map[string]any{"a": 1, "b": 2}))
	perKey := open(t, client, room, roomkv.WithPerKeyState())
	copied, err := roomkv.Copy(t.Context(), perKey, single)
	require.ErrorIs(t, err, roomkv.ErrExists)
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 1, Kept: 1}, copied)
	assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, single))
	copied, err = roomkv.Copy(t.Context(), single, perKey)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 1, Equal: 1}, copied)
}

// A copy that ends at any request is resumed by another, and nothing is there twice.
func TestCopyIsResumed(t *testing.T) {
	hstest.Parallel(t)
	for i := range min(20, max(1, *rounds/2)) {
		from, to := []string{"single", "custom", "perkey", "shards"}[i%4], []string{"perkey", "single", "shards"}[i%3]
		src, client, _ := newStore(t, layouts[from])
		require.NoError(t, src.PutAll(t.Context(), various(8)))
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
		if to != "single" {
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

// What somebody overwrites between the write and the look at it is not taken for copied.
func TestCopyReadsBack(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		src, client, _ := newStore(t)
		require.NoError(t, src.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
		room := hstest.Room(t, client)
		other := open(t, client, room, layout)
		overwrite := sync.OnceFunc(func() { assert.NoError(t, other.Put(ctx, "a", "other")) })
		copied, err := roomkv.Copy(ctx, open(t, client, room, layout), src, roomkv.CopyProgress(func(c roomkv.Copied) {
			if c.Written == 2 {
				overwrite()
			}
		}))
		require.ErrorIs(t, err, roomkv.ErrConflict)
		assert.ErrorContains(t, err, `"a"`)
		assert.Equal(t, 1, copied.Written)
		assert.Equal(t, map[string]string{"a": `"other"`, "b": "2"}, memoryOf(t, other))
	})
}
