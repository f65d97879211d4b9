package load_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/faults/load"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var (
	soak = flag.Bool("soak", false, "make long runs, with delays as in life")
	runs = flag.Int("runs", 0, "how many runs of each kind a test makes; 0 is the test's default")
	seed = flag.Uint64("seed", 1, "the seed of the first run of each kind")
	real = flag.Bool("real", false, "run on a Dendrite, or the homeserver of ROOMKV_HOMESERVER, in place of those in memory")
)

func TestMain(m *testing.M) {
	// Loads wait for most of their time. With the default, the number of processors, they would wait for one another.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	hstest.Main(m)
}

// ground is a homeserver that loads run on.
type ground struct {
	*load.World
	name string
}

// grounds are those in memory, or a real one.
var grounds = sync.OnceValues(func() (all []*ground, err error) {
	if *real {
		server, err := hstest.Shared()
		return []*ground{{&load.World{Homeserver: server}, "real"}}, err
	}
	for _, mode := range fakehs.Modes {
		all = append(all, &ground{&load.World{Homeserver: fakehs.New(fakehs.Options{Mode: mode, Seed: *seed})}, mode.String()})
	}
	return all, nil
})

// eachGround runs a test on each homeserver, beside others but for a soak.
func eachGround(t *testing.T, test func(t *testing.T, on *ground)) {
	t.Helper()
	all, err := grounds()
	require.NoError(t, err)
	beside := func(t *testing.T) {
		if !*soak {
			t.Parallel()
		}
	}
	beside(t)
	for _, on := range all {
		t.Run(on.name, func(t *testing.T) {
			beside(t)
			test(t, on)
		})
	}
}

// tally counts what came of runs that are alike.
type tally struct {
	name                        string
	runs, bad                   int
	calls, acknowledged, tokens int // calls, those that returned nil, and Updates among these
	injected                    int
	kinds                       map[faults.Kind]int // of faults
	violations                  map[string]int
	reports                     []string // of runs with a violation
	excused                     []string // of runs with none but such that are the homeserver's doing
}

func newTally(name string) *tally {
	return &tally{name: name, kinds: map[faults.Kind]int{}, violations: map[string]int{}}
}

func (c *tally) add(run *load.Run) {
	c.runs++
	for _, call := range run.Calls {
		c.calls++
		if call.Outcome == load.Acknowledged {
			c.acknowledged++
			if call.Op == load.Append {
				c.tokens++
			}
		}
	}
	for _, injected := range run.Injected {
		c.injected += len(injected)
		for _, fault := range injected {
			c.kinds[fault.Kind]++
		}
	}
	switch {
	case len(run.Violations) == 0 && len(run.Excused) > 0:
		c.excused = append(c.excused, run.Report(context.Background()))
		fallthrough
	case len(run.Violations) == 0:
		return
	}
	c.bad++
	for _, violation := range run.Violations {
		c.violations[violation.Kind]++
	}
	c.reports = append(c.reports, run.Report(context.Background()))
}

func (c *tally) String() string {
	return fmt.Sprintf("%s: %d of %d runs violate, and %d by the homeserver's doing; %d calls, %d acknowledged, %d of them Updates; %d faults; %v",
		c.name, c.bad, c.runs, len(c.excused), c.calls, c.acknowledged, c.tokens, c.injected, c.violations)
}

// judge makes the runs, so many at a time, and judges them.
func judge(t *testing.T, on *ground, name string, atOnce int, configs ...load.Config) *tally {
	t.Helper()
	count := newTally(on.name + ", " + name)
	count.run(t, on, atOnce, configs...)
	count.judge(t)
	return count
}

func (c *tally) run(t *testing.T, on *ground, atOnce int, configs ...load.Config) {
	t.Helper()
	slots := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, config := range configs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			run, err := on.Start(context.Background(), config)
			mu.Lock()
			defer mu.Unlock()
			if assert.NoError(t, err) {
				c.add(run)
			}
		})
	}
	group.Wait()
}

// mostReports bounds what is told of runs that are alike.
const mostReports = 3

// judge fails where a guarantee was broken.
func (c *tally) judge(t *testing.T) {
	t.Helper()
	t.Log(c)
	for _, report := range c.excused {
		t.Logf("not roomkv's doing: %s", report)
	}
	for _, report := range c.reports[:min(len(c.reports), mostReports)] {
		t.Errorf("%s", report)
	}
}

// whereAskedFor skips what needs a real homeserver.
func whereAskedFor(t *testing.T) {
	t.Helper()
	if !*real {
		t.Skip("it is run with -real")
	}
}

// number is how many runs a test makes.
func number(byDefault, ofSoak int) int {
	switch {
	case *runs > 0:
		return *runs
	case *soak:
		return ofSoak
	}
	return byDefault
}

// ofRequests are all kinds but those that kill the homeserver, for which see TestHomeserverKilled.
func ofRequests() (kinds []faults.Kind) {
	for _, kind := range faults.Kinds {
		if !kind.Kills() {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// By default each run has a few of the kinds together, so that each kind has a few runs in little time.
func TestKinds(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		if *soak || *runs > 0 {
			for _, kind := range ofRequests() {
				t.Run(string(kind), func(t *testing.T) { kinds(t, on, string(kind), number(1, 15), false, kind) })
			}
			return
		}
		count := newTally(on.name + ", a few kinds")
		count.run(t, on, 6, few(false)...)
		count.judge(t)
		var missing []faults.Kind // by chance, and the more the fewer requests a slow machine makes
		for _, kind := range ofRequests() {
			if count.kinds[kind] == 0 {
				missing = append(missing, kind)
			}
		}
		assert.Less(t, len(missing), len(ofRequests())/2, "there were no faults of the kinds %v", missing)
	})
}

// few are runs with three kinds each, which have every kind once.
func few(encrypted bool) (configs []load.Config) {
	all := ofRequests()
	rand.New(rand.NewPCG(*seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for kinds := range slices.Chunk(all, 3) {
		config := load.Quick(*seed+uint64(len(configs)), kinds...)
		config.Rate *= 3
		config.Encrypted = encrypted
		configs = append(configs, config)
	}
	return configs
}

func TestAllKindsTogether(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		kinds(t, on, "all kinds together", number(2, 30), false, ofRequests()...)
	})
}

// Where values are encrypted, a write has more requests that can fail, and what is written must be readable too.
func TestAllKindsTogetherEncrypted(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		kinds(t, on, "all kinds together, encrypted", number(2, 30), true, ofRequests()...)
	})
}

// What the load says of no faults is what the faults are not to blame for.
func TestWithoutFaults(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		for _, encrypted := range []bool{false, true} {
			name := fmt.Sprintf("without faults, encrypted=%t", encrypted)
			t.Run(name, func(t *testing.T) { kinds(t, on, name, number(1, 20), encrypted) })
		}
	})
}

func TestKindsEncrypted(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		for _, kind := range ofRequests() {
			if !*soak && *runs == 0 && kind != faults.Lose && kind != faults.Twice && kind != faults.Reset {
				continue // for time
			}
			t.Run(string(kind), func(t *testing.T) { kinds(t, on, "encrypted, "+string(kind), number(1, 6), true, kind) })
		}
	})
}

// kinds makes runs with faults of the kinds.
func kinds(t *testing.T, on *ground, name string, n int, encrypted bool, kinds ...faults.Kind) {
	t.Helper()
	var configs []load.Config
	for i := range n {
		config := load.Quick(*seed+uint64(i), kinds...)
		if *soak {
			config = load.Soak(*seed+uint64(i), kinds...)
		}
		if config.Encrypted = encrypted; encrypted {
			config.Goroutines = 2
		}
		configs = append(configs, config)
	}
	count := judge(t, on, name, 4, configs...)
	if len(kinds) == 0 || *soak || *runs > 0 { // a few short runs can be without, by chance
		assert.Equal(t, len(kinds) > 0, count.injected > 0, "faults")
	}
}

// Processes of the operating system share nothing, and can be stopped and killed in the middle of anything.
func TestSeparateProcesses(t *testing.T) {
	whereAskedFor(t)
	eachGround(t, func(t *testing.T, on *ground) {
		for name, kinds := range map[string][]faults.Kind{
			"stopped":            {load.Stopped},
			"killed":             {load.Died},
			"stopped and faults": {load.Stopped, faults.Lose, faults.Late, faults.Internal},
		} {
			t.Run(name, func(t *testing.T) {
				var configs []load.Config
				for i := range number(1, 20) {
					config := load.Quick(*seed+uint64(i), kinds...)
					if *soak {
						config = load.Soak(*seed+uint64(i), kinds...)
					}
					config.Separate = true
					configs = append(configs, config)
				}
				count := judge(t, on, "separate processes, "+name, 2, configs...)
				assert.Positive(t, count.injected)
			})
		}
	})
}

// A Dendrite of the test's own is killed while eight processes write, and runs again a moment later.
func TestHomeserverKilled(t *testing.T) {
	whereAskedFor(t)
	server, err := homeserver.Start(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, server.Close()) }()
	w := &load.World{Homeserver: server}
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted=%t", encrypted), func(t *testing.T) {
			count := newTally(fmt.Sprintf("homeserver killed, encrypted=%t", encrypted))
			kills := 0
			for i := uint64(0); kills < number(1, 50); i++ {
				config := load.Quick(*seed+i, faults.Killed, faults.KilledAfter)
				config.Encrypted, config.SingleWriter, config.Processes, config.Goroutines = encrypted, false, 8, 1
				config.Shortest, config.Longest = 10*time.Second, 20*time.Second
				config.Rate, config.Pace, config.Backoff = 0.01, 0.2, 400*time.Millisecond // which is enough for the homeserver to be back
				run, err := w.Start(context.Background(), config)
				if !assert.NoError(t, err) {
					break
				}
				count.add(run)
				kills += len(run.Kills)
			}
			t.Log(kills, "kills")
			count.judge(t)
		})
	}
}

// Three accounts are the first that write to a room's memory. Each run has a room of its own.
func TestFirstWriters(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		for _, layout := range []string{"single", "per key"} {
			t.Run(layout, func(t *testing.T) {
				var configs []load.Config
				for i := range number(4, 200) {
					configs = append(configs, load.FirstWriters(*seed+uint64(i), layout == "per key"))
				}
				judge(t, on, "first writers, "+layout, 2, configs...)
			})
		}
	})
}
