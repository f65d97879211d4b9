package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	shardedKeys   = 10_000 // in the memory of [BenchmarkShards], a tenth where the benchmarks are only to be seen to work
	shards        = 64     // state events over which they are spread
	interruptions = 10     // of a copy
)

// sharded is a memory in shards.
type sharded struct {
	client    *mautrix.Client
	room      id.RoomID
	recorder  *hstest.Recorder
	values    map[string]any
	encrypted bool
}

func newSharded(b *testing.B, encrypted bool) *sharded {
	s := &sharded{client: hstest.Client(b), values: map[string]any{}, encrypted: encrypted}
	s.recorder = hstest.Record(s.client)
	if encrypted {
		hstest.Crypto(b, s.client)
		s.room = hstest.EncryptedRoom(b, s.client)
	} else {
		s.room = hstest.Room(b, s.client)
	}
	keys := shardedKeys
	if testing.Short() {
		keys /= 10
	}
	for i := range keys {
		s.values[fmt.Sprintf("key %05d", i)] = value(i)
	}
	require.NoError(b, s.open(b, shards).PutAll(b.Context(), s.values))
	return s
}

func (s *sharded) open(b *testing.B, n int, options ...roomkv.Option) *roomkv.Store {
	store, err := roomkv.New(s.client, s.room.String(), append(options, roomkv.WithShards(n))...)
	require.NoError(b, err)
	return store
}

// BenchmarkShards has a memory of 10,000 keys with values of 40 bytes in 64 state events. Put is of a store that follows, and in turn with it are made
// the same requests bare: the state event and, where the room is encrypted, the event with the value before it. Copy goes to 128 state events and is
// interrupted ten times.
//
//   - x-raw compares the medians.
//   - KB/op is what crosses the network both ways, without the sync.
//   - lost and doubled are keys of the copy that are not there, or in two state events.
func BenchmarkShards(b *testing.B) {
	for _, encrypted := range []bool{false, true} {
		b.Run(fmt.Sprintf("Put/encrypted=%v", encrypted), func(b *testing.B) { putInShard(b, newSharded(b, encrypted)) })
		b.Run(fmt.Sprintf("Keys/encrypted=%v", encrypted), func(b *testing.B) { keysOfShards(b, newSharded(b, encrypted)) })
		if !testing.Short() { // a test copies fewer
			b.Run(fmt.Sprintf("Copy/encrypted=%v", encrypted), func(b *testing.B) { copyShards(b, newSharded(b, encrypted)) })
		}
	}
}

func putInShard(b *testing.B, s *sharded) {
	store := s.open(b, shards)
	require.NoError(b, store.Follow())
	runSync(b, s.client)
	key := func() string { return fmt.Sprintf("key %05d", rand.IntN(len(s.values))) }
	require.NoError(b, store.Put(b.Context(), key(), "warm"))
	time.Sleep(time.Second) // what the first response of a sync has is not believed at once
	raw := newRawShard(b, s)
	var opTimes, rawTimes []time.Duration
	var made, crossed int
	for b.Loop() {
		s.recorder.Reset()
		began := time.Now()
		require.NoError(b, store.Put(b.Context(), key(), fmt.Sprintf("%040d", rand.Uint64())))
		opTimes = append(opTimes, time.Since(began))
		b.StopTimer()
		for _, request := range s.recorder.Requests() {
			if !strings.HasSuffix(request.Path, "/sync") {
				made++
				crossed += len(request.Body) + len(request.Response)
			}
		}
		began = time.Now()
		raw.put(b)
		rawTimes = append(rawTimes, time.Since(began))
		b.StartTimer()
	}
	b.ReportMetric(float64(made)/float64(len(opTimes)), "requests/op")
	b.ReportMetric(float64(crossed)/1000/float64(len(opTimes)), "KB/op")
	b.ReportMetric(median(opTimes).Seconds()/median(rawTimes).Seconds(), "x-raw")
}

// rawShard sends what a Put does, in a room of its own that has as many state events.
type rawShard struct {
	client    *mautrix.Client
	room      id.RoomID
	stateKey  string
	content   map[string]any
	encrypted bool
}

func newRawShard(b *testing.B, s *sharded) *rawShard {
	same := newSharded(b, s.encrypted)
	raw := &rawShard{client: same.client, room: same.room, encrypted: s.encrypted, stateKey: wire.ShardKey(wire.Shard("key 00000", shards), shards)}
	require.NoError(b, raw.client.StateEvent(b.Context(), raw.room, database, raw.stateKey, &raw.content))
	raw.put(b)
	return raw
}

func (r *rawShard) put(b *testing.B) {
	value := fmt.Sprintf("%040d", rand.Uint64())
	r.content["key 00000"] = value
	if r.encrypted {
		inside, err := r.client.Crypto.Encrypt(b.Context(), r.room, event.Type{Type: database.Type, Class: event.MessageEventType}, map[string]any{"key 00000": value})
		require.NoError(b, err)
		sent, err := r.client.SendMessageEvent(b.Context(), r.room, event.EventEncrypted, inside, mautrix.ReqSendEvent{DontEncrypt: true})
		require.NoError(b, err)
		r.content["key 00000"] = map[string]any{"encrypted_val": sent.EventID}
	}
	_, err := r.client.SendStateEvent(b.Context(), r.room, database, r.stateKey, r.content)
	require.NoError(b, err)
}

func keysOfShards(b *testing.B, s *sharded) {
	store := s.open(b, shards)
	list := func() {
		keys, err := store.Keys(b.Context())
		require.NoError(b, err)
		require.Len(b, keys, len(s.values))
	}
	require.Eventually(b, func() bool { // until the sync shows every write
		s.recorder.Reset()
		list()
		return s.recorder.Count() == 1
	}, 10*time.Second, 50*time.Millisecond)
	made, n := 0, 0
	for b.Loop() {
		n++
		s.recorder.Reset()
		list()
		made += s.recorder.Count()
	}
	b.ReportMetric(float64(made)/float64(n), "requests/op")
}

func copyShards(b *testing.B, s *sharded) {
	transport := s.client.Client.Transport
	lost, doubled, n := 0, 0, 0
	for b.Loop() {
		n++
		eventType := event.Type{Type: fmt.Sprintf("com.example.more%d", n), Class: event.StateEventType}
		more := func() *roomkv.Store { return s.open(b, 2*shards, roomkv.WithEventType(eventType.Type)) }
		interrupted := 0
		for interrupted < interruptions {
			ctx, interrupt := context.WithCancel(mautrix.WithMaxRetries(b.Context(), 0))
			var left atomic.Int64 // requests
			left.Store(rand.Int64N(4 * shards))
			s.client.Client.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
				if left.Add(-1) == 0 {
					interrupt()
				}
				return transport.RoundTrip(req)
			})
			if _, err := roomkv.Copy(ctx, more(), s.open(b, shards)); err != nil {
				interrupted++
			}
			interrupt()
		}
		s.client.Client.Transport = transport
		_, err := roomkv.Copy(b.Context(), more(), s.open(b, shards))
		require.NoError(b, err)
		state, err := s.client.State(b.Context(), s.room)
		require.NoError(b, err)
		times := map[string]int{}
		for _, evt := range state[eventType] {
			var content map[string]json.RawMessage
			require.NoError(b, json.Unmarshal(evt.Content.VeryRaw, &content))
			for name := range content {
				times[name]++
			}
		}
		for key := range s.values {
			switch times[key] {
			case 0:
				lost++
			case 1:
			default:
				doubled++
			}
		}
	}
	b.ReportMetric(float64(lost), "lost")
	b.ReportMetric(float64(doubled), "doubled")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
