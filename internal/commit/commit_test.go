package commit_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

func dict(stateKey string) commit.Address {
	return commit.Address{Room: "!room:example.org", Type: "test", StateKey: stateKey}
}

func TestLockLetsOneInAtATime(t *testing.T) {
	counter := 0 // unguarded but for the lock; the race detector watches too
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			unlock, err := commit.Lock(t.Context(), dict("a"))
			if assert.NoError(t, err) {
				before := counter
				time.Sleep(10 * time.Microsecond)
				counter = before + 1
				unlock()
			}
		})
	}
	group.Wait()
	assert.Equal(t, 100, counter)
}

func TestLockIsPerDict(t *testing.T) {
	unlock, err := commit.Lock(t.Context(), dict("a"))
	require.NoError(t, err)
	defer unlock()
	other, err := commit.Lock(t.Context(), dict("b"))
	require.NoError(t, err)
	other()
}

func TestLockGivesUpWithTheContext(t *testing.T) {
	unlock, err := commit.Lock(t.Context(), dict("a"))
	require.NoError(t, err)

	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = commit.Lock(short, dict("a"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = commit.Lock(short, dict("free"))
	require.ErrorIs(t, err, context.DeadlineExceeded, "a context that has ended gets no lock")

	unlock()
	again, err := commit.Lock(t.Context(), dict("a"))
	require.NoError(t, err, "whoever gave up holds nothing")
	again()
}

// A test that stands for several processes gives each one its own: they know nothing of each other.
func TestProcessesShareNothing(t *testing.T) {
	a, b := new(commit.Process), new(commit.Process)
	for _, p := range []*commit.Process{a, b} {
		unlock, err := p.Lock(t.Context(), dict("a"))
		require.NoError(t, err)
		defer unlock()
	}
	a.Written.Add(dict("a"), "$1")
	assert.Empty(t, b.Written.In("!room:example.org", "test"))
}

func TestWritten(t *testing.T) {
	var written commit.Written
	assert.Empty(t, written.In("!room:example.org", "test"))
	written.Add(dict("a"), "$1")
	written.Add(dict("a"), "$2")
	written.Add(dict("b"), "$3")
	written.Add(commit.Address{Room: "!other:example.org", Type: "test", StateKey: "a"}, "$4")
	assert.Equal(t, map[string]id.EventID{"a": "$2", "b": "$3"}, written.In("!room:example.org", "test"))

	written.Forget(dict("a"), "$1")
	assert.Contains(t, written.In("!room:example.org", "test"), "a", "a later write is still to be seen")
	written.Forget(dict("a"), "$2")
	written.Forget(dict("never"), "$2")
	assert.Equal(t, map[string]id.EventID{"b": "$3"}, written.In("!room:example.org", "test"))
}

func TestWrittenIsBounded(t *testing.T) {
	const most = 4096
	var written commit.Written
	for i := range most + 10 {
		written.Add(dict(fmt.Sprint(i)), "$event")
	}
	writes := written.In("!room:example.org", "test")
	assert.Len(t, writes, most)
	assert.NotContains(t, writes, "9", "the oldest go first")
	assert.Contains(t, writes, "10")
}
