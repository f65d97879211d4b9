package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// BenchmarkFirstSync feeds a store the first response of the sync of a bot in many rooms, each with a memory of ten keys of 40 bytes and some
// messages. It runs on a homeserver in memory. The time of an operation is the feeding's alone: without the request, the response's decoding, and
// what mautrix does with it. The figures of a room:
//
//   - cpu-ns/room is the process's time on processors for that.
//   - kept-B/room is what stays of it in memory until somebody asks for the room's memory, and read-B/room what does once each was asked for.
//   - state-B/room is how long the memory's state events are in the response.
func BenchmarkFirstSync(b *testing.B) {
	for _, layout := range layouts {
		for _, rooms := range []int{100, 1000} {
			if testing.Short() {
				rooms /= 10
			}
			b.Run(fmt.Sprintf("%s/rooms=%d", layout.name, rooms), func(b *testing.B) {
				f := newFirstSync(b, layout, rooms)
				before := heap()
				store := f.open(b)
				f.feed(b, f.response(b))
				kept := heap() - before
				for room := range f.rooms {
					scoped, err := store.WithRoom(b.Context(), id.RoomID(room))
					require.NoError(b, err)
					require.NoError(b, scoped.Get(b.Context(), "key 0", new(string)))
				}
				read := heap() - before
				require.Zero(b, f.recorder.Count())
				runtime.KeepAlive(store)

				response := f.response(b)
				b.ReportAllocs()
				b.ResetTimer()
				var cpu time.Duration
				for range b.N {
					b.StopTimer()
					f.open(b)
					runtime.GC()
					before := processorTime(b)
					b.StartTimer()
					f.feed(b, response)
					b.StopTimer()
					cpu += processorTime(b) - before
				}
				perRoom := func(of int, unit string) { b.ReportMetric(float64(of)/float64(rooms), unit) }
				perRoom(int(cpu)/b.N, "cpu-ns/room")
				perRoom(kept, "kept-B/room")
				perRoom(read, "read-B/room")
				perRoom(f.size, "state-B/room")
			})
		}
	}
}

// firstSync is the first response of a bot's sync.
type firstSync struct {
	layout   layout
	client   *mautrix.Client
	recorder *hstest.Recorder
	feeds    *feeds
	body     []byte
	rooms    map[string]bool
	size     int // of the memories' state events, in bytes
}

// feeds is a syncer that notes who is to be fed.
type feeds struct {
	*mautrix.DefaultSyncer
	last mautrix.SyncHandler
}

func (f *feeds) OnSync(handler mautrix.SyncHandler) { f.last = handler }

func newFirstSync(b *testing.B, layout layout, rooms int) *firstSync {
	server := fakehstest.New(b, fakehs.Options{Mode: fakehs.Forking})
	client := fakehstest.Client(b, server)
	values := map[string]any{}
	for i := range 10 {
		values[fmt.Sprint("key ", i)] = fmt.Sprintf("%040d", i)
	}
	f := &firstSync{layout: layout, client: client, feeds: &feeds{DefaultSyncer: mautrix.NewDefaultSyncer()}, rooms: map[string]bool{}}
	for range rooms {
		room := hstest.Room(b, client)
		store, err := roomkv.New(client, room.String(), layout.option)
		require.NoError(b, err)
		require.NoError(b, store.PutAll(b.Context(), values))
		for n := range 5 {
			_, err := client.SendText(b.Context(), room, fmt.Sprint("message ", n))
			require.NoError(b, err)
		}
		f.rooms[room.String()] = true
	}
	url := client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, map[string]string{"filter": `{"room":{"timeline":{"limit":50}}}`}) // as mautrix's
	var err error
	f.body, err = client.MakeRequest(b.Context(), http.MethodGet, url, nil, nil)
	require.NoError(b, err)
	for _, joined := range f.response(b).Rooms.Join {
		for _, evt := range append(joined.State.Events, joined.Timeline.Events...) {
			if evt.Type.Type == database.Type {
				text, err := json.Marshal(evt)
				require.NoError(b, err)
				f.size += len(text)
			}
		}
	}
	client.Syncer = f.feeds
	f.recorder = hstest.Record(client)
	return f
}

// open makes a store that follows.
func (f *firstSync) open(b *testing.B) *roomkv.Store {
	var any string
	for room := range f.rooms {
		any = room
	}
	store, err := roomkv.New(f.client, any, f.layout.option)
	require.NoError(b, err)
	require.NoError(b, store.Follow())
	return store
}

// feed gives the store that was opened last the response.
func (f *firstSync) feed(b *testing.B, response *mautrix.RespSync) {
	require.True(b, f.feeds.last(context.Background(), response, ""))
}

func (f *firstSync) response(b *testing.B) *mautrix.RespSync {
	var response *mautrix.RespSync
	require.NoError(b, json.Unmarshal(f.body, &response))
	return response
}

// heap is how much is in use.
func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

// processorTime is how long the process has run on processors.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
