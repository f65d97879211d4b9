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

	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/faults/load"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var (
	soak = flag.Bool("soak", false, "make long runs, with delays as in life")
	runs = flag.Int("runs", 0, "how many runs of each kind a test makes; 0 is the test's default")
	seed = flag.Uint64("seed", 1, "the seed of the first run of each kind")
)

func TestMain(m *testing.M) { hstest.Main(m) }

// known has the runs that show a fault of today, each with its reason. One of which a soak shows nothing has to go from here.
var known = map[string]string{
	"first writers, single":     "A1: what Dendrite lists behind a known event is not looked at",
	"power taken, single":       "A6: state resolution drops the dict's event, and nobody looks for the one before",
	"membership taken, single":  "A6",
	"power taken, per key":      "A6: a follower keeps what Synapse has dropped",
	"membership taken, per key": "A6",
	"sync skips":                "a follower's look back believes that the sync has brought all",
	"encrypted, sync skips":     "as without encryption",
}

// tolerated has what runs of other kinds show of the faults that [scripts] play. With the last script that a fault is listed for, it goes from here.
var tolerated = map[string]string{
	load.Lost:        "A1, A3 and A5",
	load.NotOneOrder: "A1 and A3",
	load.OwnUnread:   "A4",
	load.Unreadable:  "A2",
}

var world = sync.OnceValues(func() (*load.World, error) {
	server, err := hstest.Shared()
	return &load.World{Homeserver: server}, err
})

// tally counts what came of runs that are alike.
type tally struct {
	name                        string
	runs, bad                   int
	calls, acknowledged, tokens int // calls, those that returned nil, and Updates among these
	injected                    int
	kinds                       map[faults.Kind]int // of faults
	violations                  map[string]int
	reports, tolerated          []string // of runs with a violation that is not tolerated, and of others
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
	if len(run.Violations) == 0 {
		return
	}
	c.bad++
	report := run.Report(context.Background())
	var news []string
	for _, violation := range run.Violations {
		c.violations[violation.Kind]++
		if tolerated[violation.Kind] == "" {
			news = append(news, violation.Kind)
		}
	}
	if len(news) == 0 {
		c.tolerated = append(c.tolerated, report)
	} else {
		c.reports = append(c.reports, report)
	}
}

func (c *tally) String() string {
	return fmt.Sprintf("%s: %d of %d runs violate; %d calls, %d acknowledged, %d of them Updates; %d faults; %v",
		c.name, c.bad, c.runs, c.calls, c.acknowledged, c.tokens, c.injected, c.violations)
}

// judge makes the runs, so many at a time, and judges them.
func judge(t *testing.T, name string, atOnce int, configs ...load.Config) *tally {
	t.Helper()
	count := newTally(name)
	count.run(t, atOnce, configs...)
	count.judge(t)
	return count
}

func (c *tally) run(t *testing.T, atOnce int, configs ...load.Config) {
	t.Helper()
	w, err := world()
	require.NoError(t, err)
	slots := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, config := range configs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			run, err := w.Start(context.Background(), config)
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

// judge fails where a guarantee was broken that is not known to be.
func (c *tally) judge(t *testing.T) {
	t.Helper()
	t.Log(c)
	reason, isKnown := known[c.name]
	for i, report := range slices.Concat(c.reports, c.tolerated) {
		switch {
		case !isKnown && i < len(c.reports):
			t.Errorf("%s", report)
		case *soak || testing.Verbose():
			t.Logf("known, %s\n%s", reason, report)
		}
		if i == mostReports {
			break
		}
	}
	if isKnown && *soak && c.bad == 0 {
		t.Errorf("%s holds, and is listed as a known fault: %s", c.name, reason)
	}
}

// whereAskedFor skips what takes minutes.
func whereAskedFor(t *testing.T) {
	t.Helper()
	if !*soak && *runs == 0 {
		t.Skip("it is run with -soak or -runs=N")
	}
}

// besideOthers lets a test run beside others, but for a soak's.
func besideOthers(t *testing.T) {
	t.Helper()
	whereAskedFor(t)
	if !*soak {
		t.Parallel()
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

// By default each run has a few of the kinds together, so that each kind has a few runs in little time.
func TestKinds(t *testing.T) {
	besideOthers(t)
	var single []faults.Kind
	for _, kind := range faults.Kinds {
		if !kind.Kills() { // see TestHomeserverKilled
			single = append(single, kind)
		}
	}
	if *soak || *runs > 0 {
		for _, kind := range single {
			t.Run(string(kind), func(t *testing.T) { kinds(t, string(kind), number(1, 15), false, kind) })
		}
		t.Run("all together", func(t *testing.T) { kinds(t, "all together", number(1, 30), false, single...) })
		return
	}
	count := newTally("a few kinds")
	var configs []load.Config
	for i := range uint64(2) {
		rest := slices.DeleteFunc(slices.Clone(single), func(kind faults.Kind) bool { return known[string(kind)] != "" })
		rand.New(rand.NewPCG(*seed, i)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		for few := range slices.Chunk(rest, 3) {
			config := load.Quick(*seed+uint64(len(configs)), few...)
			config.Rate *= 3
			configs = append(configs, config)
		}
	}
	count.run(t, 6, configs...)
	count.judge(t)
	var missing []faults.Kind // by chance, one or the other
	for _, kind := range single {
		if count.kinds[kind] == 0 && known[string(kind)] == "" {
			missing = append(missing, kind)
		}
	}
	assert.LessOrEqual(t, len(missing), 3, "there were no faults of the kinds %v", missing)
}

// What the load says of no faults is what the faults are not to blame for.
func TestWithoutFaults(t *testing.T) {
	besideOthers(t)
	for _, encrypted := range []bool{false, true} {
		if encrypted && !*soak && *runs == 0 { // for time
			continue
		}
		t.Run(fmt.Sprintf("encrypted=%t", encrypted), func(t *testing.T) {
			kinds(t, fmt.Sprintf("without faults, encrypted=%t", encrypted), number(1, 20), encrypted)
		})
	}
}

// Where values are encrypted, a write has more requests that can fail, and what is written must be readable too. By default this is made with
// the faults that have to do with that alone.
func TestKindsEncrypted(t *testing.T) {
	besideOthers(t)
	for _, kind := range faults.Kinds {
		if kind.Kills() || !*soak && kind != faults.Lose {
			continue
		}
		t.Run(string(kind), func(t *testing.T) { kinds(t, "encrypted, "+string(kind), number(1, 6), true, kind) })
	}
}

// kinds makes runs with faults of the kinds.
func kinds(t *testing.T, name string, n int, encrypted bool, kinds ...faults.Kind) {
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
	count := judge(t, name, 4, configs...)
	assert.Equal(t, len(kinds) > 0, count.injected > 0, "faults")
}

// Processes of the operating system share nothing, and can be stopped and killed in the middle of anything.
func TestSeparateProcesses(t *testing.T) {
	besideOthers(t)
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
			count := judge(t, "separate processes, "+name, 2, configs...)
			assert.Positive(t, count.injected)
		})
	}
}

// The homeserver is killed while eight processes write, and runs again a moment later.
func TestHomeserverKilled(t *testing.T) {
	besideOthers(t)
	server, err := homeserver.Start(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, server.Close()) }()
	w := &load.World{Homeserver: server}
	for _, encrypted := range []bool{false, true} {
		if encrypted && !*soak && *runs == 0 { // for time
			continue
		}
		t.Run(fmt.Sprintf("encrypted=%t", encrypted), func(t *testing.T) {
			name := fmt.Sprintf("homeserver killed, encrypted=%t", encrypted)
			count := newTally(name)
			for i := uint64(0); count.kinds[faults.Killed]+count.kinds[faults.KilledAfter] < number(1, 50); i++ {
				config := load.Quick(*seed+i, faults.Killed, faults.KilledAfter)
				config.Encrypted, config.SingleWriter, config.Processes, config.Goroutines = encrypted, false, 8, 1
				config.Shortest, config.Longest = 10*time.Second, 20*time.Second
				config.Rate, config.Pace, config.Backoff = 0.05, 0.2, 400*time.Millisecond // which is enough for the homeserver to be back
				run, err := w.Start(context.Background(), config)
				require.NoError(t, err)
				count.add(run)
			}
			count.judge(t)
		})
	}
}

func TestFirstWriters(t *testing.T) {
	besideOthers(t)
	for _, layout := range []string{"single", "per key"} {
		t.Run(layout, func(t *testing.T) {
			var configs []load.Config
			for i := range number(1, 200) {
				configs = append(configs, load.FirstWriters(*seed+uint64(i), layout == "per key"))
			}
			judge(t, "first writers, "+layout, 2, configs...)
		})
	}
}
