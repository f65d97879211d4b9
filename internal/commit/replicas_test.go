package commit_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/commit"
)

// idle is a dict of which the registry alone knows.
func idle() *commit.Replica { return commit.NewReplica(nil, commit.Mode{}) }

func fill(d *commit.Replicas) {
	for n := range commit.MaxReplicas {
		d.Get(commit.Address{Room: "!room:example.org", StateKey: fmt.Sprint("other ", n)}, idle)
	}
}

// However many others come, whoever still has a dict has the one that there is.
func TestDictInUseIsTheOnlyOne(t *testing.T) {
	var d commit.Replicas
	at := commit.Address{Room: "!room:example.org", StateKey: "key"}
	held := d.Get(at, idle)
	fill(&d)
	runtime.GC()
	assert.Same(t, held, d.Find(at))
	assert.Contains(t, d.In(at.Room), held, "the sync feeds it")
	assert.Same(t, held, d.Get(at, idle))
	runtime.KeepAlive(held)
}

// What nobody uses takes no memory for long.
func TestDictsAreBounded(t *testing.T) {
	var d commit.Replicas
	for n := range 3 * commit.MaxReplicas {
		d.Get(commit.Address{Room: "!room:example.org", StateKey: fmt.Sprint(n)}, idle)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(d.In("!room:example.org")) > commit.MaxReplicas {
		require.True(t, time.Now().Before(deadline))
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}
