package commit_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shrinkFor bounds the search for a smaller run that fails as well, in real time.
const shrinkFor = 20 * time.Second

// shrink finds a smaller plan that fails in the same way.
func shrink(t *testing.T, p plan, kind string) plan {
	deadline := time.Now().Add(shrinkFor)
	for smaller := true; smaller; {
		smaller = false
		for _, change := range p.smaller() {
			if time.Now().After(deadline) {
				return p
			}
			if result := run(t, change); result.failure != nil && result.failure.kind == kind {
				p, smaller = change, true
				break
			}
		}
	}
	return p
}

// smaller are plans with one thing less.
func (p plan) smaller() (all []plan) {
	for i := range p.Processes {
		q := p.clone()
		q.Processes = slices.Delete(q.Processes, i, i+1)
		all = append(all, q)
	}
	for i := range p.Incidents {
		q := p.clone()
		q.Incidents = slices.Delete(q.Incidents, i, i+1)
		all = append(all, q)
	}
	for i := range p.Processes {
		for j := range p.Processes[i].Goroutines {
			q := p.clone()
			q.Processes[i].Goroutines = slices.Delete(q.Processes[i].Goroutines, j, j+1)
			all = append(all, q)
		}
	}
	for i := range p.Processes {
		for j := range p.Processes[i].Goroutines {
			for k := range p.Processes[i].Goroutines[j] {
				q := p.clone()
				q.Processes[i].Goroutines[j] = slices.Delete(q.Processes[i].Goroutines[j], k, k+1)
				all = append(all, q)
			}
		}
	}
	for _, calm := range []func(*knobs){
		func(k *knobs) { k.Fail = 0 }, func(k *knobs) { k.Late, k.LateBy = 0, 0 }, func(k *knobs) { k.Stall, k.StallBy = 0, 0 }, func(k *knobs) { k.Death = 0 },
		func(k *knobs) { k.Limited = 0 }, func(k *knobs) { k.Repeated = 0 }, func(k *knobs) { k.SlowSync = 0 },
		func(k *knobs) { k.Slow = 0 }, func(k *knobs) { k.Lag = 0 }, func(k *knobs) { k.SameDepth, k.Shuffles = false, false }, func(k *knobs) { k.Shuffles = false }, func(k *knobs) { k.Silent = false },
	} {
		q := p.clone()
		if calm(&q.Knobs); q.Knobs != p.Knobs {
			all = append(all, q)
		}
	}
	for i := range p.Processes {
		if p.Processes[i].Follows {
			q := p.clone()
			q.Processes[i].Follows = false
			all = append(all, q)
		}
		if p.Processes[i].MaxAge > 0 {
			q := p.clone()
			q.Processes[i].MaxAge = 0
			all = append(all, q)
		}
	}
	return all
}

func (p plan) clone() plan {
	p.Processes = slices.Clone(p.Processes)
	p.Incidents = slices.Clone(p.Incidents)
	for i := range p.Processes {
		p.Processes[i].Goroutines = slices.Clone(p.Processes[i].Goroutines)
		for j := range p.Processes[i].Goroutines {
			p.Processes[i].Goroutines[j] = slices.Clone(p.Processes[i].Goroutines[j])
		}
	}
	return p
}

// tally counts failures.
type tally struct {
	mu    sync.Mutex
	kinds map[string][]uint64
	with  map[string]int // by ingredient
}

func newTally() *tally { return &tally{kinds: map[string][]uint64{}, with: map[string]int{}} }

func (c *tally) add(seed uint64, p plan, result outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[result.failure.kind] = append(c.kinds[result.failure.kind], seed)
	c.with[p.Knobs.names()]++
}

func (c *tally) log(t *testing.T) {
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		seeds := c.kinds[kind]
		t.Logf("%-10s %4d: %v", kind, len(seeds), seeds[:min(12, len(seeds))])
	}
	for _, names := range slices.SortedFunc(maps.Keys(c.with), func(a, b string) int { return c.with[b] - c.with[a] }) {
		t.Logf("%4d %s", c.with[names], names)
	}
}

// names are the ingredients that are there.
func (k knobs) names() string {
	var names []string
	for name, on := range map[string]bool{
		"one name": k.OneName, "same depth": k.SameDepth, "shuffles": k.Shuffles, "failures": k.Fail > 0, "late": k.Late > 0, "stalls": k.Stall > 0,
		"deaths": k.Death > 0, "limited": k.Limited > 0, "repeated": k.Repeated > 0, "slow sync": k.SlowSync > 0,
	} {
		if on {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return fmt.Sprint(strings.Join(names, ", "))
}
