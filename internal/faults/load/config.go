package load

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/faults"
)

// Config says how a run goes. The same Config has the same calls and faults; their order is the homeserver's and the scheduler's.
type Config struct {
	Seed  uint64
	Kinds []faults.Kind
	Rate  float64 // as [faults.Plan] has it
	Pace  float64

	PerKey       bool
	Shards       int // over how many state events keys are spread, 0 where they are not
	Follow       bool
	Encrypted    bool
	SingleWriter bool // then there is one process
	OneAccount   bool // whether the processes are devices of one account

	Processes, Goroutines, Calls int           // goroutines of a process, calls of a goroutine
	Shortest, Longest            time.Duration // of a call's deadline
	Backoff                      time.Duration // of mautrix, after the first failure
	Settle                       time.Duration // how long a goroutine may go on after the last call

	Only      Op   // Append where no other calls are made
	FreshRoom bool // whether the memory is the first of its room

	// Separate makes each process one of the operating system's: this executable, started again.
	Separate bool

	// Decide replaces the plan of the kinds, for a process. Processes that are separate do not have it.
	Decide func(process int) faults.Decide `json:"-"`
}

// Quick is a short run of a kind, made for the default tests.
func Quick(seed uint64, kinds ...faults.Kind) Config {
	config := Config{
		Seed: seed, Kinds: kinds, Rate: 0.15, Pace: 0.02,
		Processes: 2, Goroutines: 2, Calls: 3,
		Shortest: 2 * time.Second, Longest: 6 * time.Second,
		Backoff: 20 * time.Millisecond, Settle: 60 * time.Second,
	}
	return config.vary()
}

// FirstWriters is a run without faults, in which three accounts are the first that write to a room's memory.
func FirstWriters(seed uint64, perKey bool) Config {
	return Config{
		Seed: seed, PerKey: perKey, Only: Append, FreshRoom: true,
		Processes: 3, Goroutines: 2, Calls: 2,
		Shortest: time.Minute, Longest: time.Minute, Settle: 60 * time.Second,
	}
}

// Soak is a long run of a kind, with delays as in life.
func Soak(seed uint64, kinds ...faults.Kind) Config {
	config := Config{
		Seed: seed, Kinds: kinds, Rate: 0.12, Pace: 0.3,
		Processes: 3, Goroutines: 3, Calls: 7,
		Shortest: time.Second, Longest: 10 * time.Second,
		Backoff: 100 * time.Millisecond, Settle: 60 * time.Second,
	}
	config = config.vary()
	random := rand.New(rand.NewPCG(seed, 2))
	if random.IntN(3) == 0 { // mautrix's own
		config.Backoff = 4 * time.Second
	}
	return config
}

// vary chooses by the seed what a run can be like. A kind that is of syncs alone needs one who follows.
func (c Config) vary() Config {
	random := rand.New(rand.NewPCG(c.Seed, 1))
	c.PerKey = random.IntN(2) == 0
	c.Follow = random.IntN(2) == 0
	c.OneAccount = random.IntN(3) == 0
	c.SingleWriter = random.IntN(6) == 0
	if slices.ContainsFunc(c.Kinds, faults.Kind.OfSync) {
		c.Follow = true
	}
	if len(c.Kinds) == 1 {
		switch kind := c.Kinds[0]; {
		case kind.OfSync():
			c.Rate = 0.4
		case kind == faults.Partitioned || kind == faults.Suspended:
			c.Rate = 0.1
		}
	}
	if c.SingleWriter {
		c.Processes, c.Goroutines = 1, c.Goroutines+c.Processes
	}
	if !c.PerKey && random.IntN(2) == 0 {
		c.Shards = 1 + random.IntN(6)
	}
	return c
}

func (c Config) String() string {
	var kinds []string
	for _, kind := range c.Kinds {
		kinds = append(kinds, string(kind))
	}
	words := []string{fmt.Sprintf("seed %d", c.Seed), strings.Join(kinds, ", ")}
	for _, option := range []struct {
		word string
		set  bool
	}{{"per key", c.PerKey}, {fmt.Sprintf("%d shards", c.Shards), c.Shards > 0}, {"following", c.Follow}, {"encrypted", c.Encrypted}, {"single writer", c.SingleWriter}, {"one account", c.OneAccount}, {"separate processes", c.Separate}} {
		if option.set {
			words = append(words, option.word)
		}
	}
	words = append(words, fmt.Sprintf("%d×%d×%d calls", c.Processes, c.Goroutines, c.Calls))
	return strings.Join(words, "; ")
}
