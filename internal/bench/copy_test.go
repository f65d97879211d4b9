package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// copyParallel is how many state events Copy has under way at the same time.
const copyParallel = 8

// BenchmarkCopy copies 1,000 entries from room to room in the per-key layout. x-raw is its time over that of the raw
// PUTs that filled the source's room just before, as many of which were under way at the same time.
func BenchmarkCopy(b *testing.B) {
	n := 1_000
	if testing.Short() {
		n = 100
	}
	var copyTime, rawTime time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		b.StopTimer()
		client := hstest.Client(b)
		from, to := hstest.Room(b, client), hstest.Room(b, client)
		rawTime += rawPuts(b, client, from, n)
		src, err := roomkv.New(client, from.String(), roomkv.WithPerKeyState())
		require.NoError(b, err)
		dst, err := roomkv.New(client, to.String(), roomkv.WithPerKeyState())
		require.NoError(b, err)
		b.StartTimer()

		began := time.Now()
		copied, err := roomkv.Copy(b.Context(), dst, src)
		copyTime += time.Since(began)
		require.NoError(b, err)
		require.Equal(b, roomkv.Copied{Total: n, Written: n}, copied)
	}
	b.ReportMetric(copyTime.Seconds()/rawTime.Seconds(), "x-raw")
	b.ReportMetric(copyTime.Seconds()/float64(rounds), "s/op")
	b.ReportMetric(0, "ns/op")
}

// rawPuts times raw calls that each send a state event such as Copy sends.
func rawPuts(b *testing.B, client *mautrix.Client, room id.RoomID, n int) time.Duration {
	value := strings.Repeat("x", 200)
	var next atomic.Int64
	var workers sync.WaitGroup
	failures := make(chan error, copyParallel)
	began := time.Now()
	for range copyParallel {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := rawSend(b.Context(), client, room, fmt.Sprintf("key %05d", i), value); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	workers.Wait()
	took := time.Since(began)
	select {
	case err := <-failures:
		b.Fatal(err)
	default:
	}
	return took
}

func rawSend(ctx context.Context, client *mautrix.Client, room id.RoomID, key, value string) error {
	_, err := client.SendStateEvent(ctx, room, database, key, map[string]any{key: value})
	return err
}
