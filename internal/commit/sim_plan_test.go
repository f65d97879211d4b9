package commit_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// knobs are the ingredients of a run.
type knobs struct {
	Forking bool // a homeserver as Synapse, else one as Dendrite
	OneName bool // a state event for each key
	Single  bool // WithSingleWriter

	SameDepth bool // ordered: see [simServer]
	Shuffles  bool
	Silent    bool
	Lag       time.Duration // until lists and syncs show what was stored
	Slow      time.Duration // what a request takes each way, at most

	Fail        float64 // how many requests fail
	Late        float64 // how many events arrive after their request was answered, and perhaps made again
	LateBy      time.Duration
	Stall       float64 // how many take long
	StallBy     time.Duration
	StallBefore bool    // never on the way back
	Death       float64 // how many are a process's last

	Limited    float64 // of the responses of syncs
	Repeated   float64
	SlowSync   float64
	SlowSyncBy time.Duration

	MaxSize int // of a content, 0 without

	// What is not checked.
	IgnoreRefusals bool // what a call was refused for
	IgnoreOwn      bool // whether a process reads what it wrote, and what it read before
}

// plan is a run that is to be made. Whatever is taken away from it changes nothing about the rest.
type plan struct {
	Seed      uint64
	Knobs     knobs
	Processes []processPlan
	Incidents []incident

	// Alone: nobody writes once more in the end, so that all must have come to rest before.
	Alone bool
}

type processPlan struct {
	Name       string
	Account    string
	Follows    bool
	MaxAge     time.Duration // for how long its reads take what the homeserver has said, while it does not follow; 0 where each asks
	Begins     time.Duration // when it begins
	Mortal     bool
	Retries    int
	Plain      bool // it writes as opsdroid does, under a key of its own
	Goroutines [][]opPlan
}

// incident is something that happens to the homeserver or to a process.
type incident struct {
	At      time.Duration
	Kind    string // chat, foreign, clock, pause, power, redact
	Process string
	Count   int
	For     time.Duration
}

// planOf invents a run.
func planOf(seed uint64, forking bool) plan {
	mode := uint64(0)
	if forking {
		mode = 1
	}
	rng := rand.New(rand.NewPCG(seed, mode))
	chance := func(of float64) bool { return rng.Float64() < of }
	upTo := func(most time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(most) + 1)) }
	p := plan{Seed: seed*2 + mode}
	k := &p.Knobs
	k.Forking = forking
	k.OneName = chance(0.4)
	if !forking {
		k.SameDepth = chance(0.7) && !(k.OneName && knownFaults.off("unmarked forks"))
		k.Shuffles = k.SameDepth && chance(0.8) && !knownFaults.off("shuffled lists")
		k.Silent = chance(0.3)
		if chance(0.7) {
			k.Lag = upTo(20 * time.Millisecond)
		}
	}
	if chance(0.3) {
		k.Slow = 8*time.Millisecond + upTo(150*time.Millisecond)
	}
	if chance(0.3) && !knownFaults.off("failures") {
		k.Fail = 0.02 + 0.15*rng.Float64()
	}
	if chance(0.3) && !knownFaults.off("late duplicates") {
		k.Late, k.LateBy = 0.02+0.1*rng.Float64(), 1+upTo(time.Minute)
	}
	if chance(0.25) {
		k.Stall, k.StallBy = 0.02+0.2*rng.Float64(), upTo(time.Minute)
		if knownFaults.off("long stalls") {
			k.StallBy = upTo(8 * time.Second)
		}
	}
	if chance(0.25) && !knownFaults.off("deaths") {
		k.Death = 0.05
	}
	if chance(0.2) {
		k.Limited = 0.2 * rng.Float64()
	}
	if chance(0.2) && !knownFaults.off("repeated syncs") {
		k.Repeated = 0.3 * rng.Float64()
	}
	if chance(0.2) {
		k.SlowSync, k.SlowSyncBy = 0.3*rng.Float64(), 1+upTo(20*time.Second)
	}
	k.IgnoreRefusals = knownFaults.off("refusals")
	k.IgnoreOwn = knownFaults.off("own writes")
	p.Alone = k.Death == 0 && k.Late == 0 && !(k.OneName && k.Fail > 0) && chance(0.5) // what is made again can be a late delivery
	p.populate(rng)
	p.transact(rand.New(rand.NewPCG(seed, 2+mode)))
	p.expire(rand.New(rand.NewPCG(seed, 4+mode)))
	if chance(0.35) {
		p.disturb(rng)
	}
	if chance(0.3) {
		p.delay(rng)
	}
	p.remember(rand.New(rand.NewPCG(seed, 4+mode)))
	return p
}

// disturb invents incidents.
func (p *plan) disturb(rng *rand.Rand) {
	upTo := func(most time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(most) + 1)) }
	span := []time.Duration{200 * time.Millisecond, 2 * time.Second, 30 * time.Second}[rng.IntN(3)]
	kinds := []string{"chat", "foreign", "pause"}
	for kind, fault := range map[string]string{"clock": "clocks", "power": "power", "redact": "redactions"} {
		if !knownFaults.off(fault) {
			kinds = append(kinds, kind)
		}
	}
	if slices.ContainsFunc(p.Processes, func(one processPlan) bool { return one.Plain }) { // which does not notice that the clock was set back
		kinds = slices.DeleteFunc(kinds, func(kind string) bool { return kind == "clock" })
	}
	slices.Sort(kinds)
	kinds = kinds[rng.IntN(len(kinds)):]
	for range 1 + rng.IntN(8) {
		i := incident{At: upTo(span), Kind: kinds[rng.IntN(len(kinds))]}
		switch i.Kind {
		case "chat", "foreign":
			i.Count = 1 + rng.IntN(60)
		case "clock":
			i.For = -upTo(6 * time.Hour) // set forward, it ends look backs early: how far they go is a matter of time
			// Set back and forth again, it lets state resolution bring back an old event in a way that the latest events do not show.
			kinds = slices.DeleteFunc(slices.Clone(kinds), func(kind string) bool { return kind == "clock" })
		case "power":
			i.Process = p.Processes[rng.IntN(len(p.Processes))].Name
			i.For = upTo(10 * time.Second)
		case "redact":
			i.Count = rng.IntN(3)
		case "pause":
			i.Process = p.Processes[rng.IntN(len(p.Processes))].Name
			i.For = upTo(8 * time.Second)
			if !knownFaults.off("long stalls") {
				i.For = upTo(time.Minute)
			}
		}
		p.Incidents = append(p.Incidents, i)
	}
}

// populate invents processes and what they do.
func (p *plan) populate(rng *rand.Rand) {
	chance := func(of float64) bool { return rng.Float64() < of }
	following := []float64{0, 0.5, 1}[rng.IntN(3)]
	keys := 1 + rng.IntN(3)
	mix := mixes[rng.IntN(len(mixes))]
	if knownFaults.off("plain beside conditional") && slices.ContainsFunc(mix, opKind.conditional) {
		mix = slices.DeleteFunc(slices.Clone(mix), func(k opKind) bool { return k == put || k == remove })
	}
	pace := []time.Duration{time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second}[rng.IntN(6)]
	processes := 2 + rng.IntN(3)
	if chance(0.2) {
		processes += rng.IntN(5)
	}
	total := 0
	for i := range processes {
		one := processPlan{Name: fmt.Sprint("p", i), Account: fmt.Sprint("p", i), Follows: chance(following), Mortal: chance(0.5), Retries: 3 * rng.IntN(2)}
		for g := range 1 + rng.IntN(2) {
			var ops []opPlan
			for n := range 1 + rng.IntN(5) {
				if total++; total > 40 {
					break
				}
				o := opPlan{
					ID: fmt.Sprintf("%s.%d.%d", one.Name, g, n), Kind: mix[rng.IntN(len(mix))], Key: fmt.Sprint("k", rng.IntN(keys)),
					Think: time.Duration(1 + rng.Int64N(int64(pace))),
				}
				if !p.Knobs.OneName && o.Kind == put && chance(0.3) {
					o.Keys = []string{fmt.Sprint("k", keys)}
				}
				if chance(0.05) && !(p.Alone && p.Knobs.Stall > 0) { // what its caller has given up can arrive when nobody looks any more
					o.Timeout = time.Duration(1 + rng.Int64N(int64(20*time.Second)))
					if chance(0.5) {
						o.Timeout /= 200
					}
				}
				ops = append(ops, o)
			}
			one.Goroutines = append(one.Goroutines, ops)
		}
		p.Processes = append(p.Processes, one)
	}
	if !p.Knobs.OneName && chance(0.15) {
		one := processPlan{Name: "ops", Account: "ops", Plain: true}
		p.Alone = false // what it overwrites is put back by the next writer
		var ops []opPlan
		for n := range 1 + rng.IntN(4) {
			ops = append(ops, opPlan{ID: fmt.Sprint("ops.0.", n), Kind: put, Key: "ops", Think: time.Duration(1 + rng.Int64N(int64(pace)))})
		}
		one.Goroutines = append(one.Goroutines, ops)
		p.Processes = append(p.Processes, one)
	}
}

// transact makes the operations of some runs Transacts, or some of them.
func (p *plan) transact(rng *rand.Rand) {
	if p.Knobs.OneName || p.Knobs.Single || rng.IntN(10) >= 3 {
		return
	}
	keys := 2 + rng.IntN(3)
	mix := [][]opKind{{transact}, {transact, update}, {transact, transact, get}, {transact, put, get}, {transact, update, put, get}}[rng.IntN(5)]
	for _, one := range p.Processes {
		if one.Plain {
			continue
		}
		for _, ops := range one.Goroutines {
			for i := range ops {
				o := &ops[i]
				o.Kind, o.Keys = mix[rng.IntN(len(mix))], nil
				o.Looks, o.Picky = rng.IntN(6) == 0, rng.IntN(6) == 0
				at := rng.Perm(keys)
				o.Key = fmt.Sprint("k", at[0])
				if o.Kind != transact {
					continue
				}
				for _, other := range at[1:min(keys, 2+rng.IntN(2))] {
					if key := fmt.Sprint("k", other); rng.IntN(2) == 0 {
						o.Reads = append(o.Reads, key)
					} else {
						o.Keys = append(o.Keys, key)
					}
				}
			}
		}
	}
}

// expire has the values of some Puts expire in some runs, and somebody sweep.
func (p *plan) expire(rng *rand.Rand) {
	if rng.IntN(10) >= 3 {
		return
	}
	span := []time.Duration{20 * time.Millisecond, 500 * time.Millisecond, 20 * time.Second}[rng.IntN(3)]
	for _, one := range p.Processes {
		if one.Plain {
			continue
		}
		for _, ops := range one.Goroutines {
			for i := range ops {
				switch o := &ops[i]; {
				case o.Kind == transact:
				case rng.IntN(3) == 0:
					o.Kind, o.Expires = put, time.Duration(1+rng.Int64N(int64(span)))
				case rng.IntN(10) == 0 && o.Keys == nil:
					o.Kind = sweep
				}
			}
		}
	}
}

// delay has processes begin later, as those that begin again: the first response of the sync has what was written before.
func (p *plan) delay(rng *rand.Rand) {
	span := []time.Duration{50 * time.Millisecond, time.Second, 20 * time.Second, 3 * time.Minute}[rng.IntN(4)]
	for i := range p.Processes {
		if one := &p.Processes[i]; one.Follows && rng.IntN(2) == 0 {
			one.Begins = time.Duration(rng.Int64N(int64(span)))
		}
	}
}

// remember has processes that do not follow read from memory, with a word now and then of what others have written.
func (p *plan) remember(rng *rand.Rand) {
	for i := range p.Processes {
		if one := &p.Processes[i]; !one.Follows && !one.Plain && rng.IntN(3) == 0 {
			one.MaxAge = []time.Duration{20 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second}[rng.IntN(3)]
		}
	}
}

// mixes are what callers do in a run.
var mixes = [][]opKind{
	{update},
	{update, get},
	{put, get},
	{put, update, get},
	{create, pop, get},
	{create, update, pop, compareAndPut},
	{put, update, create, compareAndPut, remove, pop, get},
	{update, update, put, remove},
}
