package linearizability_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/linearizability"
)

var (
	seeds  = flag.Int("seeds", 150, "how many random runs the simulation makes of each kind of homeserver")
	within = flag.Duration("within", time.Minute, "how long the check of one key may take")
)

// Each key of each run of the simulation has an order of its operations, also where the simulation's own check gives up.
func TestSimulation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "histories")
	simulation := exec.CommandContext(t.Context(), "go", "test", "./internal/commit", "-count=1", "-timeout=0", "-v", "-run=^TestSimulation$",
		fmt.Sprint("-seeds=", *seeds), "-histories="+file)
	simulation.Dir = filepath.Join("..", "..")
	output, err := simulation.CombinedOutput()
	require.NoError(t, err, "the simulation fails:\n%s", output)
	from, err := os.Open(file)
	require.NoError(t, err)
	defer from.Close()

	var keys, operations, longest, undecided, unknown int
	var slowest time.Duration
	var mu sync.Mutex
	check := func(h linearizability.History) {
		began := time.Now()
		result := h.Check(*within)
		took := time.Since(began).Round(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		slowest = max(slowest, took)
		keys++
		operations += len(h.Operations)
		longest = max(longest, len(h.Operations))
		if h.Undecided {
			undecided++
			t.Logf("the simulation's own check gave up: -seed=%d, %s, %s, %d operations: here %s after %v",
				h.Seed, h.Mode, h.Key, len(h.Operations), result, took)
		}
		switch result {
		case porcupine.Illegal:
			t.Errorf("no order explains -seed=%d, %s, %s:\n%s", h.Seed, h.Mode, h.Key, h)
		case porcupine.Unknown:
			unknown++
			t.Logf("no result within %v: -seed=%d, %s, %s:\n%s", *within, h.Seed, h.Mode, h.Key, h)
		}
	}
	var workers sync.WaitGroup
	work := make(chan linearizability.History)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for h := range work {
				check(h)
			}
		})
	}
	for h, err := range linearizability.Read(from) {
		if !assert.NoError(t, err) {
			break
		}
		work <- h
	}
	close(work)
	workers.Wait()
	assert.NotZero(t, keys, "the simulation wrote no history")
	t.Logf("%d keys, %d operations, at most %d of a key, %d undecided by the simulation, %d undecided here, the slowest took %v",
		keys, operations, longest, undecided, unknown, slowest)
}
