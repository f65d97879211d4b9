package roomkv_test

import (
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// peak is how much the heap grows while do runs, in bytes, with what is garbage and not collected yet.
func peak(do func()) uint64 {
	runtime.GC()
	runtime.GC()
	heap := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before := heap()
	most := before
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			most = max(most, heap())
			select {
			case <-done:
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	}()
	do()
	close(done)
	<-stopped
	return most - before
}

// withRace is a bound for peak, in bytes.
func withRace(bytes uint64) uint64 {
	if underRace {
		return bytes * 3 / 2
	}
	return bytes
}

// A large value takes less than four times its size, itself included, to write or to read.
func TestMemoryOfLargeValues(t *testing.T) {
	long(t)
	const size = 40_000_000
	value := strings.Repeat("0123456789", size/10)
	eachRoom(t, func(t *testing.T, encrypted bool, layout roomkv.Option) {
		store, client, room := newIn(t, encrypted, layout)
		require.NoError(t, store.Put(t.Context(), "small", 1))
		put := peak(func() { require.NoError(t, store.Put(t.Context(), "large", value)) })
		reader := open(t, client, room, layout)
		var got string
		get := peak(func() { require.NoError(t, reader.Get(t.Context(), "large", &got)) })
		assert.True(t, got == value)
		put += size // which was there before
		t.Logf("times the value: Put %.2f, Get %.2f", float64(put)/size, float64(get)/size)
		assert.Less(t, max(put, get), withRace(4*size))
	})
}
