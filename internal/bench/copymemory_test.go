package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
)

// BenchmarkCopyMemory copies up to 10,000 entries in the per-key layout. peak-MB is how far the live heap grows. A real homeserver
// takes a second for some ten of them, so it is a stand-in, in this process, that keeps next to nothing.
func BenchmarkCopyMemory(b *testing.B) {
	sizes := []int{1_000, 3_000, 10_000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			var peak uint64
			for b.Loop() {
				s := &standIn{stored: make([]atomic.Bool, n)}
				server := httptest.NewServer(s.handler())
				client, err := mautrix.NewClient(server.URL, "@bot:localhost", "token")
				require.NoError(b, err)
				src, err := roomkv.New(client, "!from:localhost", roomkv.WithPerKeyState())
				require.NoError(b, err)
				dst, err := roomkv.New(client, "!to:localhost", roomkv.WithPerKeyState())
				require.NoError(b, err)

				stop := watchHeap(&peak)
				copied, err := roomkv.Copy(b.Context(), dst, src)
				stop()
				require.NoError(b, err)
				require.Equal(b, roomkv.Copied{Total: n, Written: n}, copied)
				for i := range n {
					require.True(b, s.stored[i].Load())
				}
				server.Close()
			}
			b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// watchHeap notes how far the live heap grows until stop is called, as each of the many garbage collections meanwhile finds it.
func watchHeap(peak *uint64) (stop func()) {
	heap := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before := debug.SetGCPercent(5)
	debug.FreeOSMemory()
	base := heap()
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			case <-time.After(5 * time.Millisecond):
				if now := heap(); now > base {
					*peak = max(*peak, now-base)
				}
			}
		}
	}()
	return func() {
		close(ended)
		<-done
		debug.SetGCPercent(before)
	}
}

// standIn is a homeserver with the room !from, whose state has a key for each index, and others, whose state has those that were
// stored.
type standIn struct {
	stored []atomic.Bool
}

func (s *standIn) handler() http.Handler {
	const state = "/_matrix/client/v3/rooms/{room}/state"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+state, s.list)
	mux.HandleFunc("GET "+state+"/{type}/{key}", s.get)
	mux.HandleFunc("PUT "+state+"/{type}/{key}", s.put)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"errcode":"M_NOT_FOUND"}`, http.StatusNotFound)
	})
	return mux
}

func standInKey(i int) string { return fmt.Sprintf("key %05d", i) }

// standInContent is what all rooms have under a key.
func standInContent(key string) string {
	return fmt.Sprintf(`{"%s":"%s"}`, key, strings.Repeat("x", 200))
}

func standInEvent(room, key string) string {
	return fmt.Sprintf(`{"type":%q,"state_key":%q,"event_id":"$%s in %s","sender":"@bot:localhost","origin_server_ts":1,"content":%s}`,
		roomkv.DefaultEventType, key, key, room, standInContent(key))
}

// index is that of the key, or -1.
func (s *standIn) index(key string) int {
	i := -1
	if _, err := fmt.Sscanf(key, "key %d", &i); err != nil || i >= len(s.stored) {
		return -1
	}
	return i
}

func (s *standIn) has(room string, i int) bool {
	return room == "!from:localhost" || s.stored[i].Load()
}

func (s *standIn) list(w http.ResponseWriter, r *http.Request) {
	room, separator := r.PathValue("room"), ""
	_, _ = io.WriteString(w, "[")
	for i := range s.stored {
		if s.has(room, i) {
			_, _ = io.WriteString(w, separator+standInEvent(room, standInKey(i)))
			separator = ","
		}
	}
	_, _ = io.WriteString(w, "]")
}

func (s *standIn) get(w http.ResponseWriter, r *http.Request) {
	room, key := r.PathValue("room"), r.PathValue("key")
	if i := s.index(key); i < 0 || !s.has(room, i) {
		http.Error(w, `{"errcode":"M_NOT_FOUND"}`, http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, standInEvent(room, key))
}

func (s *standIn) put(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	body, err := io.ReadAll(r.Body)
	i := s.index(key)
	var content map[string]json.RawMessage
	if err != nil || i < 0 || json.Unmarshal(body, &content) != nil || fmt.Sprintf(`{"%s":%s}`, key, content[key]) != standInContent(key) {
		http.Error(w, `{"errcode":"M_BAD_JSON"}`, http.StatusBadRequest)
		return
	}
	s.stored[i].Store(true)
	_, _ = fmt.Fprintf(w, `{"event_id":"$%s in %s"}`, key, r.PathValue("room"))
}
