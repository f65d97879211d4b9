// Package bench measures roomkv against a real homeserver:
//
//	go test -tags goolm -run '^$' -bench . -timeout 30m ./internal/bench
//
// Each operation is measured by several algorithms: roomkv as it is by default; following, with Follow and the
// client's sync running; singlewriter, with WithSingleWriter; raw, the bare mautrix call that moves the same bytes;
// and readmodifywrite, which reads the event, changes it and writes it back, as opsdroid does and as one would by
// hand. The figures:
//
//   - requests/op is exact and the same on every machine. The sync's own requests are not counted: the bot has it anyway.
//   - x-raw is the operation's time over that of the raw call, made in turn with it in the same loop.
//   - lost/op is how many writes were acknowledged and are not there.
//
// With -short, which is for seeing that the benchmarks run, the rooms are small: making large ones takes minutes.
package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var inMemory = flag.Bool("memory", false, "run on the homeserver in memory")

func TestMain(m *testing.M) {
	if flag.Parse(); *inMemory {
		hstest.InMemory(fakehs.Linear)
	}
	hstest.Main(m)
}

var database = event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}

// layout is one of the two.
type layout struct {
	name     string
	stateKey string // that its key "k" is under
	keys     int    // how many keys are under that beside "k"
	option   roomkv.Option
}

// A room's other state events make its homeserver slower, so that the room of the raw calls must have as many: none.
var layouts = []layout{
	{"single", "", 20, roomkv.WithSingleStateKey("")},
	{"perkey", "k", 0, roomkv.WithPerKeyState()},
}

// subject is one memory that a store has, and a copy of the state event that holds its key "k" for the raw calls.
type subject struct {
	recorder *hstest.Recorder
	client   *mautrix.Client
	room     id.RoomID
	store    *roomkv.Store
	stateKey string
	raw      bare
}

// bare is a state event that raw calls read and write: one of their own, for in the store's they would be another
// writer, and of another bot, for the store's sync would bring them.
type bare struct {
	client   *mautrix.Client
	room     id.RoomID
	stateKey string
	content  map[string]any // what the store sends
}

// newSubject makes a memory of so many keys beside "k", and a warm store for the algorithm.
func newSubject(b *testing.B, layout layout, algorithm string, keys int) subject {
	client := hstest.Client(b)
	s := subject{client: client, recorder: hstest.Record(client), room: hstest.Room(b, client), stateKey: layout.stateKey}
	values := make(map[string]any, keys)
	for i := range keys {
		values[fmt.Sprint("key ", i)] = i
	}
	filled, err := roomkv.New(client, s.room.String(), layout.option)
	require.NoError(b, err)
	require.NoError(b, filled.PutAll(b.Context(), values))

	options := []roomkv.Option{layout.option}
	if algorithm == "singlewriter" {
		options = append(options, roomkv.WithSingleWriter())
	}
	s.store, err = roomkv.New(client, s.room.String(), options...)
	require.NoError(b, err)
	if algorithm == "following" {
		require.NoError(b, s.store.Follow())
		runSync(b, client)
	}
	s.recorder.Reset()
	require.NoError(b, s.store.Put(b.Context(), "k", 0)) // which also asks whether the room is encrypted
	s.raw = bare{client: hstest.Client(b), stateKey: layout.stateKey}
	for _, request := range s.recorder.Requests() {
		if request.Method == http.MethodPut {
			require.NoError(b, json.Unmarshal(request.Body, &s.raw.content))
		}
	}
	s.raw.client.Client = client.Client // one transport and one recorder for both
	s.raw.room = hstest.Room(b, s.raw.client)
	s.raw.put(b, 0)
	return s
}

// runSync runs the client's sync until the benchmark ends. It returns when the first response is there.
func runSync(b *testing.B, client *mautrix.Client) {
	first := make(chan struct{})
	client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(_ context.Context, _ *mautrix.RespSync, since string) bool {
		if since == "" {
			close(first)
		}
		return true
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	b.Cleanup(func() {
		stop()
		<-ended
	})
	<-first
}

func (r bare) get(b *testing.B) {
	var content map[string]json.RawMessage
	require.NoError(b, r.client.StateEvent(b.Context(), r.room, database, r.stateKey, &content))
	var value int
	require.NoError(b, json.Unmarshal(content["k"], &value))
}

func (r bare) put(b *testing.B, n int) {
	r.content["k"] = n
	_, err := r.client.SendStateEvent(b.Context(), r.room, database, r.stateKey, r.content)
	require.NoError(b, err)
}

// change reads the event, puts value under key and writes that.
func (r bare) change(ctx context.Context, key string, value any) error {
	content := map[string]any{}
	if err := r.client.StateEvent(ctx, r.room, database, r.stateKey, &content); err != nil {
		return err
	}
	content[key] = value
	_, err := r.client.SendStateEvent(ctx, r.room, database, r.stateKey, content)
	return err
}

// requests is how many were made since the last Reset, without those of the sync.
func requests(recorder *hstest.Recorder) (n int) {
	for _, request := range recorder.Requests() {
		if !strings.HasSuffix(request.Path, "/sync") {
			n++
		}
	}
	return n
}

// operation is done for the n-th time.
type operation func(b *testing.B, s subject, n int)

// each runs a benchmark of both layouts and some algorithms, each in turn with raw.
func each(b *testing.B, raw operation, algorithms ...algorithm) {
	for _, layout := range layouts {
		for _, algorithm := range algorithms {
			b.Run(fmt.Sprintf("layout=%s/algorithm=%s", layout.name, algorithm.name), func(b *testing.B) {
				measure(b, newSubject(b, layout, algorithm.name, layout.keys), algorithm.do, raw)
			})
		}
	}
}

type algorithm struct {
	name string
	do   operation
}

// measure times op and, in turn with it, raw.
func measure(b *testing.B, s subject, op, raw operation) {
	var made, n int
	var opTime, rawTime time.Duration
	for b.Loop() {
		n++
		s.recorder.Reset()
		began := time.Now()
		op(b, s, n)
		opTime += time.Since(began)

		b.StopTimer()
		made += requests(s.recorder)
		began = time.Now()
		raw(b, s, -n)
		rawTime += time.Since(began)
		b.StartTimer()
	}
	b.ReportMetric(float64(made)/float64(n), "requests/op")
	b.ReportMetric(opTime.Seconds()/rawTime.Seconds(), "x-raw")
}

func rawGet(b *testing.B, s subject, _ int) { s.raw.get(b) }

func rawPut(b *testing.B, s subject, n int) { s.raw.put(b, n) }

func readModifyWrite(b *testing.B, s subject, n int) {
	require.NoError(b, s.raw.change(b.Context(), "k", n))
}

func BenchmarkGet(b *testing.B) {
	each(b, rawGet,
		algorithm{"roomkv", func(b *testing.B, s subject, _ int) {
			_, err := roomkv.Get[int](b.Context(), s.store, "k")
			require.NoError(b, err)
		}},
		algorithm{"raw", rawGet},
		algorithm{"readmodifywrite", rawGet}, // it reads as the raw call does
	)
	many := 500
	if testing.Short() {
		many = 50
	}
	for _, layout := range layouts {
		for _, keys := range []int{20, many} { // which must make no difference
			b.Run(fmt.Sprintf("layout=%s/algorithm=following/keys=%d", layout.name, keys), func(b *testing.B) {
				getFollowing(b, newSubject(b, layout, "following", keys))
			})
		}
	}
}

// getFollowing is not measured in turn with anything, for it takes less time than the clock's own.
func getFollowing(b *testing.B, s subject) {
	ctx := b.Context()
	_, err := roomkv.Get[int](ctx, s.store, "k")
	require.NoError(b, err)
	s.recorder.Reset()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := roomkv.Get[int](ctx, s.store, "k"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(requests(s.recorder))/float64(b.N), "requests/op")
}

func BenchmarkPut(b *testing.B) {
	put := func(b *testing.B, s subject, n int) { require.NoError(b, s.store.Put(b.Context(), "k", n)) }
	each(b, rawPut,
		algorithm{"roomkv", put},
		algorithm{"following", put},
		algorithm{"singlewriter", put},
		algorithm{"raw", rawPut},
		algorithm{"readmodifywrite", readModifyWrite},
	)
}

func BenchmarkUpdate(b *testing.B) {
	increment := func(b *testing.B, s subject, _ int) {
		require.NoError(b, roomkv.Update(b.Context(), s.store, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
	}
	each(b, rawPut, algorithm{"roomkv", increment}, algorithm{"following", increment})
}

// BenchmarkPutParallel has many goroutines put a key each into one dict at once, and looks what is there afterwards.
func BenchmarkPutParallel(b *testing.B) {
	const writers = 40
	for _, algorithm := range []struct {
		name string
		put  func(ctx context.Context, s subject, key string, n int) error
		read func(b *testing.B, s subject) map[string]any
	}{
		{
			"roomkv",
			func(ctx context.Context, s subject, key string, n int) error { return s.store.Put(ctx, key, n) },
			func(b *testing.B, s subject) map[string]any { return read(b, s.client, s.room, s.stateKey) },
		},
		{
			"readmodifywrite",
			func(ctx context.Context, s subject, key string, n int) error { return s.raw.change(ctx, key, n) },
			func(b *testing.B, s subject) map[string]any { return read(b, s.raw.client, s.raw.room, s.raw.stateKey) },
		},
	} {
		b.Run("algorithm="+algorithm.name, func(b *testing.B) {
			s := newSubject(b, layouts[0], algorithm.name, layouts[0].keys)
			var made, lost, n int
			for b.Loop() {
				n++
				s.recorder.Reset()
				var errs [writers]error
				var all sync.WaitGroup
				for i := range writers {
					all.Go(func() { errs[i] = algorithm.put(b.Context(), s, fmt.Sprint("writer ", i), n) })
				}
				all.Wait()

				b.StopTimer()
				made += requests(s.recorder)
				content := algorithm.read(b, s)
				for i, err := range errs {
					require.NoError(b, err)
					if content[fmt.Sprint("writer ", i)] != float64(n) {
						lost++
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(made)/float64(n*writers), "requests/put")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(n), "ms/op")
			b.ReportMetric(0, "ns/op") // ms/op instead, which is of all the writers together
			b.ReportMetric(float64(lost)/float64(n), "lost/op")
		})
	}
}

func read(b *testing.B, client *mautrix.Client, room id.RoomID, stateKey string) (content map[string]any) {
	require.NoError(b, client.StateEvent(b.Context(), room, database, stateKey, &content))
	return content
}

// BenchmarkKeys lists 50 keys of a room with 1,000 other state events. Making that room takes a minute or two.
func BenchmarkKeys(b *testing.B) {
	const listed = 50
	unrelated := 1000
	if testing.Short() {
		unrelated = 100
	}
	var client *mautrix.Client
	var room id.RoomID
	for _, layout := range []struct {
		name   string
		option roomkv.Option
	}{
		{"single", roomkv.WithSingleStateKey("")},
		{"perkey", roomkv.WithPerKeyState()},
	} {
		b.Run("layout="+layout.name, func(b *testing.B) {
			if client == nil {
				client = hstest.Client(b)
				room = hstest.Room(b, client, largeRoom(unrelated))
			}
			store, err := roomkv.New(client, room.String(), layout.option, roomkv.WithEventType("com.example."+layout.name))
			require.NoError(b, err)
			values := map[string]any{}
			for i := range listed {
				values[fmt.Sprintf("key-%02d", i)] = map[string]any{"score": i, "name": "somebody"}
			}
			require.NoError(b, store.PutAll(b.Context(), values))
			recorder := hstest.Record(client)
			require.Eventually(b, func() bool { // until the sync shows every write
				recorder.Reset()
				_, err := store.Keys(b.Context())
				return err == nil && recorder.Count() == 1
			}, 10*time.Second, 50*time.Millisecond)

			var requests, bytes, n int
			for b.Loop() {
				n++
				recorder.Reset()
				got, err := store.Keys(b.Context())
				require.NoError(b, err)
				require.Len(b, got, listed)
				for _, request := range recorder.Requests() {
					requests++
					bytes += len(request.Response)
				}
			}
			b.ReportMetric(float64(requests)/float64(n), "requests/op")
			b.ReportMetric(float64(bytes)/float64(n), "response-bytes/op")
		})
	}
}

func largeRoom(unrelated int) *mautrix.ReqCreateRoom {
	req := &mautrix.ReqCreateRoom{Preset: "private_chat"}
	for i := range unrelated {
		stateKey := fmt.Sprint("unrelated ", i)
		req.InitialState = append(req.InitialState, &event.Event{
			Type: event.Type{Type: "com.example.unrelated", Class: event.StateEventType}, StateKey: &stateKey,
			Content: event.Content{Raw: map[string]any{"padding": strings.Repeat("x", 100)}},
		})
	}
	return req
}
