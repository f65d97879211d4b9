package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
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
)

// BenchmarkPutCost changes one value of a warm memory with values of 40 bytes. The figures are of one Put:
//
//   - x-raw compares the medians, for a sync and a homeserver on one machine now and then wait for each other.
//   - KB-down/op is what the homeserver sent, the sync's answer included.
//   - KB-allocated/op is of the whole process, up to when the sync has brought the event. A homeserver in memory is part of that process.
//
// Algorithm synced is a bare client whose sync runs, and brings what it has sent. A pace says what lies between two Puts: rested, longer than
// homeservers take for an event; rapid, nothing but the raw call.
func BenchmarkPutCost(b *testing.B) {
	sizes := []int{10, 100, 1000}
	if testing.Short() {
		sizes = sizes[:2]
	}
	for _, keys := range sizes {
		for _, algorithm := range []string{"roomkv", "following", "raw", "synced"} {
			for _, pace := range []string{"rested", "rapid"} {
				b.Run(fmt.Sprintf("keys=%d/algorithm=%s/pace=%s", keys, algorithm, pace), func(b *testing.B) {
					putCost(b, algorithm, keys, pace == "rested")
				})
			}
		}
	}
}

func putCost(b *testing.B, algorithm string, keys int, rested bool) {
	syncs := algorithm == "following" || algorithm == "synced"
	client, raw := hstest.Client(b), bare{client: hstest.Client(b)}
	meter := meterOf(client)
	room := hstest.Room(b, client)
	store, err := roomkv.New(client, room.String())
	require.NoError(b, err)
	values := make(map[string]any, keys)
	for i := range keys {
		values[fmt.Sprintf("key %04d", i)] = value(i)
	}
	require.NoError(b, store.PutAll(b.Context(), values))
	var brought atomic.Int64 // events of the memory
	if syncs {
		if algorithm == "following" {
			require.NoError(b, store.Follow())
		}
		client.Syncer.(*mautrix.DefaultSyncer).OnEventType(database, func(context.Context, *event.Event) { brought.Add(1) })
		runSync(b, client)
	}
	put := func(n int) { require.NoError(b, store.Put(b.Context(), "key 0000", value(n))) }
	put(-1)
	raw.room = hstest.Room(b, raw.client)
	require.NoError(b, client.StateEvent(b.Context(), room, database, "", &raw.content))
	if algorithm == "raw" || algorithm == "synced" {
		put = func(n int) { sendRaw(b, client, room, raw.content, n) }
	}
	rest := func() {
		if rested {
			time.Sleep(1100 * time.Millisecond) // twice what a look back allows for, and some
		}
	}
	for n := range 10 { // until all is warm, and a look back knows where it can end
		put(-2 - n)
		sendRaw(b, raw.client, raw.room, raw.content, -n)
		rest()
	}

	var spent cost
	var opTimes, rawTimes []time.Duration
	n := 0
	for b.Loop() {
		n++
		b.StopTimer()
		rest()
		seen, before := brought.Load(), costOf(meter)
		began := time.Now()
		b.StartTimer()
		put(n)
		b.StopTimer()
		opTimes = append(opTimes, time.Since(began))
		for syncs && brought.Load() == seen {
			time.Sleep(time.Millisecond)
		}
		spent = spent.plus(before, costOf(meter))
		began = time.Now()
		sendRaw(b, raw.client, raw.room, raw.content, n)
		rawTimes = append(rawTimes, time.Since(began))
		b.StartTimer()
	}
	b.ReportMetric(float64(spent.requests)/float64(n), "requests/op")
	b.ReportMetric(float64(spent.down)/1000/float64(n), "KB-down/op")
	b.ReportMetric(float64(spent.allocated)/1000/float64(n), "KB-allocated/op")
	b.ReportMetric(median(opTimes).Seconds()/median(rawTimes).Seconds(), "x-raw")
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// value is the n-th one of 40 bytes.
func value(n int) string { return fmt.Sprintf("%040d", n) }

func sendRaw(b *testing.B, client *mautrix.Client, room id.RoomID, content map[string]any, n int) {
	content["key 0000"] = value(n)
	_, err := client.SendStateEvent(b.Context(), room, database, "", content)
	require.NoError(b, err)
}

// cost is what was spent since the process began. The requests are those that are not the sync's.
type cost struct{ requests, down, allocated int64 }

func (c cost) plus(before, after cost) cost {
	return cost{c.requests + after.requests - before.requests, c.down + after.down - before.down, c.allocated + after.allocated - before.allocated}
}

func costOf(meter *meter) cost {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return cost{meter.requests.Load(), meter.down.Load(), int64(memory.TotalAlloc)}
}

// meter counts what crosses a client's transport, and keeps none of it.
type meter struct {
	next           http.RoundTripper
	requests, down atomic.Int64
}

func meterOf(client *mautrix.Client) *meter {
	m := &meter{next: http.DefaultTransport}
	metered := *client.Client
	metered.Transport = m
	client.Client = &metered
	return m
}

// RoundTrip implements [http.RoundTripper].
func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/sync") {
		m.requests.Add(1)
	}
	resp, err := m.next.RoundTrip(req)
	if err == nil {
		resp.Body = &metered{resp.Body, m}
	}
	return resp, err
}

type metered struct {
	io.ReadCloser
	meter *meter
}

func (r *metered) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.meter.down.Add(int64(n))
	return n, err
}

// BenchmarkKnown reads from memory, while the store follows, and in turn with that has encoding/json read the same values. The figures are of the
// fastest of many batches, for the rest is what else the machine does.
func BenchmarkKnown(b *testing.B) {
	type score struct {
		Name   string `json:"name"`
		Points int    `json:"points"`
	}
	b.Run("type=int", func(b *testing.B) { known(b, 12345) })
	b.Run("type=string", func(b *testing.B) { known(b, value(1)) })
	b.Run("type=struct", func(b *testing.B) { known(b, score{"somebody", 17}) })
}

func known[T any](b *testing.B, value T) {
	text, err := json.Marshal(value)
	require.NoError(b, err)
	s := newSubject(b, layouts[0], "following", 100)
	ctx := b.Context()
	require.NoError(b, s.store.Put(ctx, "k", value))
	require.Eventually(b, func() bool { // until the sync has brought it
		s.recorder.Reset()
		_, err := roomkv.Get[T](ctx, s.store, "k")
		return err == nil && requests(s.recorder) == 0
	}, 5*time.Second, 10*time.Millisecond)
	get, unmarshal := batches{}, batches{}
	for b.Loop() {
		get.add(b, func() error {
			_, err := roomkv.Get[T](ctx, s.store, "k")
			return err
		})
		unmarshal.add(b, func() error {
			var read T
			return json.Unmarshal(text, &read)
		})
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(get.ns(), "ns/get")
	b.ReportMetric(get.ns()-unmarshal.ns(), "ns-more")
	b.ReportMetric(float64(get.allocations-unmarshal.allocations)/float64(b.N*batch), "allocs-more")
}

// batch is how many calls are timed together.
const batch = 1000

// batches are the fastest of several, and the allocations of all of them.
type batches struct {
	fastest     time.Duration
	allocations int64
}

func (t *batches) add(b *testing.B, call func() error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	for range batch {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
	taken := time.Since(began)
	runtime.ReadMemStats(&after)
	t.allocations += int64(after.Mallocs - before.Mallocs)
	if t.fastest == 0 || taken < t.fastest {
		t.fastest = taken
	}
}

func (t *batches) ns() float64 { return float64(t.fastest.Nanoseconds()) / batch }
