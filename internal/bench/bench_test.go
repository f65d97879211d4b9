// Package bench measures roomkv against a real homeserver:
//
//	go test -tags goolm -run '^$' -bench . ./internal/bench
//
// Each operation is measured by three algorithms: roomkv; raw, the bare mautrix call that moves the same
// bytes; and readmodifywrite, which reads the event, changes it and writes it back, as opsdroid does and as one
// would by hand. The figures:
//
//   - requests/op is exact and the same on every machine.
//   - x-raw is the operation's time over that of the raw call, made in turn with it in the same loop.
package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestMain(m *testing.M) { hstest.Main(m) }

// keys is how many keys the memory has beside the one that is measured.
const keys = 20

var database = event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}

// subject is one memory, and the state event that holds its key "k".
type subject struct {
	client   *mautrix.Client
	recorder *hstest.Recorder
	room     id.RoomID
	store    *roomkv.Store
	stateKey string
}

func newSubject(b *testing.B, layout roomkv.Option, stateKey string) subject {
	client := hstest.Client(b)
	room := hstest.Room(b, client)
	store, err := roomkv.New(client, room.String(), layout)
	require.NoError(b, err)
	values := map[string]any{"k": 0}
	for i := range keys {
		values[fmt.Sprint("key ", i)] = i
	}
	require.NoError(b, store.PutAll(b.Context(), values))
	return subject{client, hstest.Record(client), room, store, stateKey}
}

// each runs a benchmark of both layouts and all algorithms.
func each(b *testing.B, algorithms map[string]func(subject) func(*testing.B, int)) {
	for _, layout := range []struct {
		name, stateKey string
		option         roomkv.Option
	}{
		{"single", "", roomkv.WithSingleStateKey("")},
		{"perkey", "k", roomkv.WithPerKeyState()},
	} {
		for _, name := range []string{"roomkv", "raw", "readmodifywrite"} {
			prepare := algorithms[name]
			if prepare == nil {
				continue
			}
			b.Run(fmt.Sprintf("layout=%s/algorithm=%s", layout.name, name), func(b *testing.B) {
				subject := newSubject(b, layout.option, layout.stateKey)
				measure(b, subject.recorder, prepare(subject), algorithms["raw"](subject))
			})
		}
	}
}

// measure times op and, in turn with it, raw.
func measure(b *testing.B, recorder *hstest.Recorder, op, raw func(*testing.B, int)) {
	var requests, n int
	var opTime, rawTime time.Duration
	for b.Loop() {
		n++
		recorder.Reset()
		began := time.Now()
		op(b, n)
		opTime += time.Since(began)
		requests += recorder.Count()

		b.StopTimer()
		began = time.Now()
		raw(b, -n)
		rawTime += time.Since(began)
		b.StartTimer()
	}
	b.ReportMetric(float64(requests)/float64(n), "requests/op")
	b.ReportMetric(opTime.Seconds()/rawTime.Seconds(), "x-raw")
}

func BenchmarkGet(b *testing.B) {
	each(b, map[string]func(subject) func(*testing.B, int){
		"roomkv": func(s subject) func(*testing.B, int) {
			return func(b *testing.B, _ int) {
				_, err := roomkv.Get[int](b.Context(), s.store, "k")
				require.NoError(b, err)
			}
		},
		"raw":             rawGet,
		"readmodifywrite": rawGet, // it reads as the raw call does
	})
}

func rawGet(s subject) func(*testing.B, int) {
	return func(b *testing.B, _ int) {
		var content map[string]json.RawMessage
		require.NoError(b, s.client.StateEvent(b.Context(), s.room, database, s.stateKey, &content))
		var value int
		require.NoError(b, json.Unmarshal(content["k"], &value))
	}
}

func BenchmarkPut(b *testing.B) {
	each(b, map[string]func(subject) func(*testing.B, int){
		"roomkv": func(s subject) func(*testing.B, int) {
			return func(b *testing.B, n int) { require.NoError(b, s.store.Put(b.Context(), "k", n)) }
		},
		"raw": func(s subject) func(*testing.B, int) {
			var content map[string]any
			require.NoError(b, s.client.StateEvent(b.Context(), s.room, database, s.stateKey, &content))
			return func(b *testing.B, n int) {
				content["k"] = n
				_, err := s.client.SendStateEvent(b.Context(), s.room, database, s.stateKey, content)
				require.NoError(b, err)
			}
		},
		"readmodifywrite": func(s subject) func(*testing.B, int) {
			return func(b *testing.B, n int) {
				content := map[string]any{}
				err := s.client.StateEvent(b.Context(), s.room, database, s.stateKey, &content)
				if !errors.Is(err, mautrix.MNotFound) {
					require.NoError(b, err)
				}
				content["k"] = n
				_, err = s.client.SendStateEvent(b.Context(), s.room, database, s.stateKey, content)
				require.NoError(b, err)
			}
		},
	})
}

// BenchmarkKeys lists 50 keys of a room with 1,000 other state events. Making that room takes a minute or two.
func BenchmarkKeys(b *testing.B) {
	const unrelated, listed = 1000, 50
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
