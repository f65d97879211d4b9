package roomkv_test

import (
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
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

// newEncrypted is a store of an encrypted room, with a client that can encrypt.
func newEncrypted(t testing.TB, opts ...roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID) {
	t.Helper()
	client := hstest.Client(t)
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	return open(t, client, room, opts...), client, room
}

// memoryState is the content of every state event of the store's type in the room, by state key.
func memoryState(t testing.TB, client *mautrix.Client, room id.RoomID) map[string]json.RawMessage {
	t.Helper()
	state, err := client.State(t.Context(), room)
	require.NoError(t, err)
	contents := map[string]json.RawMessage{}
	for _, events := range state {
		for _, evt := range events {
			if evt.Type.Type == roomkv.DefaultEventType {
				contents[*evt.StateKey] = evt.Content.VeryRaw
			}
		}
	}
	return contents
}

// clearNames are the names in the room's memory behind which stands something else than a reference to an event.
func clearNames(t testing.TB, client *mautrix.Client, room id.RoomID) (names []string) {
	t.Helper()
	for _, content := range memoryState(t, client, room) {
		var dict map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(content, &dict))
		for name, stored := range dict {
			if !strings.HasPrefix(string(stored), `{"encrypted_val":"$`) && !strings.HasPrefix(name, "roomkv.") {
				names = append(names, name)
			}
		}
	}
	return names
}

func TestEncryptedValuesComeBack(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newEncrypted(t, layout)
		values := map[string]string{
			"float": `1.5`, "large": `123456789012345678901234567890`, "huge": `1e400`, "deep": strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "text": `"é <&> \" \\ \u2028"`, "null": `null`,
			"marker": `{"encrypted_val":"$x"}`, "json": `{"json_val":"1"}`, "media": `{"media_val":{}}`,
			"m.relates_to": `{"rel_type":"m.replace","event_id":"$x"}`, "m.mentions": `1`, `quote"d`: `{"a\\b":[1e9]}`,
			"roomkv.x": `true`, "": `"the empty key"`, "é\u2028": `[]`,
		}
		for key, value := range values {
			require.NoError(t, store.Put(t.Context(), key, json.RawMessage(value)), key)
		}
		assert.Empty(t, clearNames(t, client, room))
		cold := open(t, client, room, layout)
		for _, s := range []*roomkv.Store{store, cold} {
			for key, value := range values {
				got, err := roomkv.Get[json.RawMessage](t.Context(), s, key)
				require.NoError(t, err, key)
				assert.True(t, wire.Same(json.RawMessage(value), got), "%s: %.100s", key, got)
			}
			entry, err := s.Entry(t.Context(), "text")
			require.NoError(t, err)
			assert.True(t, entry.Encrypted)
			assert.Equal(t, client.UserID, entry.EncryptedBy)
			assert.Equal(t, id.TrustStateVerified, entry.Trust)
			assert.Len(t, memoryOf(t, s), len(values))
		}

		count := func(n int, found bool) (int, error) { return n + 1, nil }
		for range 3 {
			require.NoError(t, roomkv.Update(t.Context(), cold, "count", count))
		}
		n, err := roomkv.Get[int](t.Context(), store, "count")
		require.NoError(t, err)
		assert.Equal(t, 3, n)
		require.ErrorIs(t, store.Create(t.Context(), "count", 7), roomkv.ErrExists)
		entry, err := store.Entry(t.Context(), "count")
		require.NoError(t, err)
		require.NoError(t, store.CompareAndPut(t.Context(), "count", 4, entry.Revision))
		require.ErrorIs(t, store.CompareAndPut(t.Context(), "count", 5, entry.Revision), roomkv.ErrConflict)
		require.NoError(t, cold.Pop(t.Context(), "count", &n))
		assert.Equal(t, 4, n)
		require.NoError(t, store.Delete(t.Context(), "float", "large"))
		keys, err := cold.Keys(t.Context())
		require.NoError(t, err)
		assert.Len(t, keys, len(values)-2)
		assert.Empty(t, clearNames(t, client, room))
	})
}

// The figures of docs/encryption.md, warm.
func TestEncryptedRequests(t *testing.T) { // alone: a busy machine makes a store ask more often
	hstest.Real(t)
	following := false
	count := func(t *testing.T, recorder *hstest.Recorder, what func() error) int {
		recorder.Reset()
		require.NoError(t, what())
		if following {
			return requests(recorder)
		}
		return counted(recorder)
	}
	hundred := map[string]any{}
	for i := range 100 {
		hundred[fmt.Sprint("key ", i)] = i
	}
	for name, test := range map[string]struct {
		opts                []roomkv.Option
		follow              bool
		put, get, cold, all int
	}{
		"following":     {follow: true, put: 2, get: 0, cold: 2, all: 2},
		"single writer": {opts: []roomkv.Option{roomkv.WithSingleWriter()}, put: 2, get: 1, cold: 2, all: 2},
		"default":       {put: 3, get: 1, cold: 2, all: 3},
	} {
		t.Run(name, func(t *testing.T) {
			store, client, room := newEncrypted(t, test.opts...)
			recorder := hstest.Record(client)
			if following = test.follow; following {
				require.NoError(t, store.Follow())
				defer syncing(t, client)()
			}
			require.NoError(t, store.Put(t.Context(), "warm", 0))
			if following { // which it does once the sync has caught up with the first write
				eventually(t, func() bool {
					return count(t, recorder, func() error { return store.Get(t.Context(), "warm", new(int)) }) == 0
				}, "it reads from memory")
			}
			var n, put int
			for _, what := range []string{"put new", "overwrite"} {
				for try := range 4 { // a store that follows asks more where its sync is late
					put++
					took := count(t, recorder, func() error { return store.Put(t.Context(), "new", put) })
					if following && took > test.put && try < 3 {
						continue
					}
					assert.Equal(t, test.put, took, "%s: %s", what, sent(recorder))
					break
				}
			}
			assert.Equal(t, test.get, count(t, recorder, func() error { return store.Get(t.Context(), "new", &n) }), "get")
			assert.Equal(t, put, n)
			assert.Equal(t, test.all, count(t, recorder, func() error { return store.PutAll(t.Context(), hundred) }), "put all")
			cold := open(t, client, room, test.opts...)
			assert.Equal(t, test.cold, count(t, recorder, func() error { return cold.Get(t.Context(), "key 99", &n) }), "get, cold")
			assert.Equal(t, 99, n)
			assert.Equal(t, 1, count(t, recorder, func() error { return cold.Get(t.Context(), "key 98", &n) }), "of the same event")
		})
	}
}

// Nothing is known when a process starts: not that the room is encrypted, not who is in it.
func TestFirstPutIsEncrypted(t *testing.T) {
	hstest.Parallel(t)
	failures := []func(*http.Request) (*http.Response, error){
		func(*http.Request) (*http.Response, error) { return nil, errors.New("no answer") },
		func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Request: req, Body: readCloser(`{"errcode":"M_UNKNOWN","error":"no idea"}`)}, nil
		},
		func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req, Body: readCloser(`{}`)}, nil
		},
	}
	for i := range *rounds {
		client := hstest.Client(t)
		room := hstest.EncryptedRoom(t, client)
		hstest.Crypto(t, client)
		recorder := hstest.Record(client)
		writers, fails := 5, func() bool { return false } // whether the homeserver does not tell if the room is encrypted
		switch i % 4 {
		case 1:
			writers = 1
		case 2:
			fails = func() bool { return rand.IntN(2) == 0 }
		case 3:
			fails = func() bool { return true }
		}
		next := client.Client.Transport
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/state/m.room.encryption") && fails() {
				return failures[rand.IntN(len(failures))](req)
			}
			return next.RoundTrip(req)
		})
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		var done atomic.Int64
		var group sync.WaitGroup
		for j := range writers {
			group.Go(func() {
				err := open(t, client, room).Put(ctx, fmt.Sprint(j), "secret")
				if err == nil {
					done.Add(1)
				} else if i%4 < 2 {
					assert.NoError(t, err)
				}
			})
		}
		group.Wait()
		for _, request := range recorder.Requests() {
			assert.NotContains(t, string(request.Body), "secret")
			if i%4 == 3 {
				assert.NotEqual(t, http.MethodPut, request.Method, request.Path)
			}
		}
		assert.Empty(t, clearNames(t, client, room))
		if i%4 == 3 {
			assert.Zero(t, done.Load())
		}
		assert.Len(t, memoryOf(t, open(t, client, room)), int(done.Load()))
	}
}

// The session that the first of them shares must reach all who are in the room, whatever the others do meanwhile.
func TestFirstPutsAtOnceAskOnce(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newEncrypted(t, roomkv.WithPerKeyState())
	reader := again(t, client)
	hstest.Crypto(t, reader)
	syncing(t, reader)
	recorder := hstest.Record(client)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() { assert.NoError(t, store.Put(t.Context(), fmt.Sprint(i), i)) })
		group.Go(func() {
			assert.NoError(t, open(t, client, room, roomkv.WithPerKeyState()).Put(t.Context(), fmt.Sprint(100+i), i))
		})
	}
	group.Wait()
	asked := 0
	for _, request := range recorder.Requests() {
		if strings.HasSuffix(request.Path, "/members") {
			asked++
		}
	}
	assert.Equal(t, 1, asked)
	assert.Len(t, memoryOf(t, open(t, reader, room, roomkv.WithPerKeyState())), 40)
}

func TestNothingIsWrittenWhereEncryptionIsNotKnown(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newEncrypted(t, layout)
		client.StateStore = mautrix.NewMemoryStateStore()
		recorder := hstest.Record(client)
		next := client.Client.Transport
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/state/m.room.encryption") {
				return nil, fmt.Errorf("no answer")
			}
			return next.RoundTrip(req)
		})
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		require.Error(t, store.Put(ctx, "key", "secret"))
		for _, request := range recorder.Requests() {
			assert.NotEqual(t, http.MethodPut, request.Method, request.Path)
		}
		client.Client.Transport = next
		require.NoError(t, store.Put(ctx, "key", "secret"))
		assert.Empty(t, clearNames(t, client, room))
	})
}

func TestRoomThatBecomesEncrypted(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		hstest.Crypto(t, client)
		room := hstest.Room(t, client)
		store := open(t, client, room, layout)
		require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 1, "b": 2.5, "c": "text"}))
		_, err := store.EncryptAll(t.Context())
		require.ErrorIs(t, err, roomkv.ErrNoCrypto)
		_, err = client.SendStateEvent(t.Context(), room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
		require.NoError(t, err)

		require.NoError(t, store.Put(t.Context(), "d", "secret"))
		assert.ElementsMatch(t, []string{"a", "b", "c"}, clearNames(t, client, room))
		n, err := store.EncryptAll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3, n)
		assert.Empty(t, clearNames(t, client, room))
		assert.Equal(t, map[string]string{"a": "1", "b": "2.5", "c": `"text"`, "d": `"secret"`}, memoryOf(t, open(t, client, room, layout)))
		n, err = store.EncryptAll(t.Context())
		require.NoError(t, err)
		assert.Zero(t, n)
	})
}

// sharedSize is what values share of an encrypted event, in bytes of its content as canonical JSON, which is what mautrix encrypts.
const sharedSize = 45_000

// How much fits into an encrypted event must not depend on what it is: <, > and & are not escaped there.
func TestEncryptedSizes(t *testing.T) {
	hstest.Parallel(t)
	for name, server := range map[string]registrar{
		"homeserver": hstest.Server(t), "linear": fakehs.New(fakehs.Options{}), "forking": fakehs.New(fakehs.Options{Mode: fakehs.Forking}),
		"long addresses": fakehs.New(fakehs.Options{Name: strings.Repeat("a", 230)}),
	} {
		t.Run(name, func(t *testing.T) {
			eventType := roomkv.DefaultEventType
			if name == "long addresses" {
				eventType = strings.Repeat("t", wire.MaxType)
			}
			for _, layout := range []string{"single", "perkey"} {
				client, err := server.Register(t.Context(), "bot")
				require.NoError(t, err)
				hstest.Crypto(t, client)
				room := hstest.EncryptedRoom(t, client)
				recorder := hstest.Record(client)
				opts := []roomkv.Option{layouts[layout], roomkv.WithEventType(eventType)}
				store := open(t, client, room, opts...)
				took := func(values map[string]string) (events, files int) {
					t.Helper()
					recorder.Reset()
					all := map[string]any{}
					for key, value := range values {
						all[key] = value
					}
					require.NoError(t, store.PutAll(t.Context(), all))
					events, files = sentEncrypted(recorder), uploads(recorder)
					cold := open(t, client, room, opts...)
					for key, value := range values {
						got, err := roomkv.Get[string](t.Context(), cold, key)
						require.NoError(t, err)
						require.True(t, got == value, key)
					}
					return events, files
				}
				for _, part := range []string{"x", "<>&", "é", `"\`} {
					fill := func(bytes int) string { // a text of that many bytes as it is encoded
						encoded := wire.Size(json.RawMessage(mustMarshal(t, part))) - len(`""`)
						return strings.Repeat(part, bytes/encoded) + strings.Repeat("y", bytes%encoded)
					}
					most := sharedSize - len(`{"k":""}`)
					events, files := took(map[string]string{"k": fill(most)})
					assert.Equal(t, [2]int{1, 0}, [2]int{events, files}, "%s, %q: a value that fills an event", layout, part)
					events, files = took(map[string]string{"k": fill(most + 1)})
					assert.Equal(t, [2]int{1, 1}, [2]int{events, files}, "%s, %q: one byte more", layout, part)
					half, rest := fill(20_000), sharedSize-20_000-len(`{"a":"","b":""}`)
					events, files = took(map[string]string{"a": half, "b": fill(rest)})
					assert.Equal(t, [2]int{1, 0}, [2]int{events, files}, "%s, %q: two values that fill an event", layout, part)
					events, files = took(map[string]string{"a": half + "z", "b": fill(rest-1) + "w"})
					assert.Equal(t, [2]int{2, 0}, [2]int{events, files}, "%s, %q: one byte more of two values", layout, part)
				}
			}
		})
	}
}

// registrar is a homeserver on which users can register.
type registrar interface {
	Register(ctx context.Context, prefix string) (*mautrix.Client, error)
}

func mustMarshal(t testing.TB, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return text
}

// sentEncrypted is how many were sent.
func sentEncrypted(recorder *hstest.Recorder) (sent int) {
	for _, request := range recorder.Requests() {
		if strings.Contains(request.Path, "/send/m.room.encrypted/") {
			sent++
		}
	}
	return sent
}

// Several send the state events of a PutAll in the per-key layout, and whichever comes first has the values encrypted.
func TestValuesOfAPutAllShareAnEvent(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		hstest.Crypto(t, client)
		room := hstest.EncryptedRoom(t, client)
		recorder := hstest.Record(client)
		store := open(t, client, room, roomkv.WithPerKeyState())
		for round := range 20 {
			for _, test := range []struct{ values, size, want int }{{8, 10, 1}, {40, 10, 1}, {9, 14_900, 3}} {
				values := map[string]any{}
				for i := range test.values {
					values[fmt.Sprint("key ", i)] = text(test.size-len(fmt.Sprint(round)), byte(round)) + fmt.Sprint(round)
				}
				recorder.Reset()
				require.NoError(t, store.PutAll(t.Context(), values))
				require.Equal(t, test.want, sentEncrypted(recorder), "%d values of %d bytes", test.values, test.size)
			}
		}
	})
}

// Of a PutAll that changes one value, only what shares an event with that is encrypted.
func TestPutAllThatChangesOneValue(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		hstest.Crypto(t, client)
		room := hstest.EncryptedRoom(t, client)
		recorder := hstest.Record(client)
		store := open(t, client, room, roomkv.WithPerKeyState())
		require.NoError(t, store.Follow())
		fakehstest.Sync(t, client)
		values := map[string]any{}
		for i := range 12 {
			values[fmt.Sprintf("key %02d", i)] = text(20_000, byte(i))
		}
		require.NoError(t, store.PutAll(t.Context(), values))
		require.Equal(t, 6, sentEncrypted(recorder))
		known := func() bool { // while the sync is late the store knows nothing
			recorder.Reset()
			for key := range values {
				require.NoError(t, store.Get(t.Context(), key, new(string)))
			}
			return requests(recorder) == 0
		}
		for _, i := range []int{11, 0, 5} {
			eventually(t, known, "reads take no request")
			values[fmt.Sprintf("key %02d", i)] = text(20_000, byte(i+1))
			recorder.Reset()
			require.NoError(t, store.PutAll(t.Context(), values))
			assert.Equal(t, 1, sentEncrypted(recorder), i)
		}
	})
}
