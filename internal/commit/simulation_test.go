package commit_test

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

var (
	seeds   = flag.Int("seeds", 150, "how many random runs TestSimulation makes of each kind of homeserver")
	oneSeed = flag.Int64("seed", -1, "the number of the one run that TestSimulation makes, of each kind of homeserver")
	census  = flag.Bool("census", false, "TestSimulation goes on after a failure, and counts them")
)

// outcome is what came of a run.
type outcome struct {
	failure   *failure
	trace     []string
	undecided int
	recorded  []keyHistory
	steps     int
}

// run makes a run.
func run(t *testing.T, p plan) outcome { return runWith(t, p, false, nil) }

// trace makes a run and tells what happens.
func trace(t *testing.T, p plan) outcome { return runWith(t, p, true, nil) }

func runWith(t *testing.T, p plan, traces bool, intercept func(q *request)) (result outcome) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(p.Seed, p.Knobs)
		w.traces, w.intercept = traces, intercept
		w.start()
		w.play(p)
		w.finish()
		result = w.outcome()
	})
	return result
}

func (w *world) start() {
	w.stopped = make(chan struct{})
	go func() {
		defer close(w.stopped)
		w.loop()
	}()
}

func (w *world) finish() {
	w.cancel()
	<-w.stopped
	time.Sleep(time.Hour) // every request fails now, and whoever waits gives up
	w.flush()
}

func (w *world) outcome() outcome {
	o := outcome{trace: w.trace, undecided: w.undecided, recorded: w.recorded, steps: w.steps}
	if w.failure != nil {
		o.failure = w.failure.(*failure)
	}
	return o
}

// patience is how long anybody waits for a call to return.
const patience = 2 * time.Hour

// play lets the processes do what is planned, and then looks at what is left.
func (w *world) play(p plan) {
	type caller struct {
		process *process
		done    chan struct{}
	}
	var callers []caller
	for _, one := range p.Processes {
		process := w.processFrom(one.Name, one.Follows, one.Begins)
		process.account, process.mortal, process.retries, process.plain, process.maxAge = one.Account, one.Mortal, one.Retries, one.Plain, one.MaxAge
		for _, ops := range one.Goroutines {
			c := caller{process, make(chan struct{})}
			callers = append(callers, c)
			go func() {
				defer close(c.done)
				if sleep(w.ctx, one.Begins) != nil {
					return
				}
				for _, o := range ops {
					if sleep(w.ctx, o.Think) != nil || process.dead {
						return
					}
					process.perform(o)
				}
			}()
		}
	}
	for _, i := range p.Incidents {
		w.after(i.At, fmt.Sprintf("incident %s %s", i.Kind, i.Process), func() { w.happen(i) })
	}
	deadline := time.After(patience)
	for _, c := range callers {
		select {
		case <-c.done:
		case <-c.process.died:
		case <-w.ctx.Done():
			return
		case <-deadline:
			w.fail("stuck", "a call does not return")
			return
		}
	}
	w.quiet(p.Alone)
}

// happen is an incident.
func (w *world) happen(i incident) {
	w.note("incident", "%s %s %d %v", i.Kind, i.Process, i.Count, i.For)
	switch i.Kind {
	case "chat":
		w.server.chat(i.Count)
	case "foreign":
		w.server.foreign(i.Count)
	case "clock":
		w.server.skew = i.For
	case "power":
		w.disempower(i)
	case "redact":
		keys := slices.Sorted(maps.Keys(w.server.state(w.server.tips)))
		if e := w.server.current(keys[i.Count%len(keys)]); e.kind == dictEvent {
			w.redacted = true
			text := string(e.content)
			for _, same := range slices.Clone(w.server.log) { // a merge that two have made is two events
				if same.kind == dictEvent && same.key == e.key && string(same.content) == text {
					w.server.redact(same)
				}
			}
		}
	case "pause":
		for _, p := range w.processes {
			if p.name == i.Process {
				p.pause(i.For)
			}
		}
	}
}

// disempower takes an account's power and gives it back after a while.
func (w *world) disempower(i incident) {
	at, from := w.server.begin(), time.Now()
	index := len(w.powerless)
	w.powerless = append(w.powerless, powerless{i.Process, from, from.Add(time.Hour)})
	key := fmt.Sprintf("power of %s %v", i.Process, i.At)
	w.after(time.Duration(w.server.random.Int64N(int64(20*time.Millisecond))), key, func() {
		w.stored(w.server.empower(i.Process, false, at))
		w.powerless[index].until = time.Now()
		w.after(i.For, key, func() { w.stored(w.server.empower(i.Process, true, w.server.begin())) })
	})
}

// quiet lets everything come to rest, has one more operation made, and checks what everybody reads.
func (w *world) quiet(alone bool) {
	if sleep(w.ctx, 3*time.Minute) != nil {
		return
	}
	w.calm, w.alone = true, alone
	w.note("quiet", "")
	if sleep(w.ctx, time.Minute) != nil {
		return
	}
	if !alone {
		last := w.process("last", false)
		keys := w.keys()
		if !w.OneName {
			keys = []string{"last"}
		}
		for _, key := range keys {
			if o := last.perform(opPlan{ID: "last." + key, Kind: update, Key: key}); o.done && o.err != nil {
				w.fail("last", "%s fails: %v", o, o.err)
			}
		}
	}
	if sleep(w.ctx, 10*time.Second) == nil {
		w.checkEnd()
	}
}

// formerly are the numbers of runs that have failed once and were far from the first ones, by kind of homeserver. TestSimulation makes them too.
var formerly = map[bool][]uint64{
	false: {36929, 37510},
	true:  {3231, 9229, 20217, 20993, 22540},
}

// TestSimulation makes random runs of the commit protocol. A failing one is shrunk and told. -seeds=N makes so many of each kind of
// homeserver, -seed=K the one of that number. -histories=FILE keeps the operations of each key for internal/linearizability.
func TestSimulation(t *testing.T) {
	kept := openHistories(t)
	for _, forking := range []bool{false, true} {
		name := "ordered"
		if forking {
			name = "forking"
		}
		numbers := []uint64{uint64(max(0, *oneSeed))}
		if *oneSeed < 0 {
			numbers = slices.Clone(formerly[forking])
			for i := range uint64(*seeds) {
				numbers = append(numbers, i)
			}
		}
		t.Run(name, func(t *testing.T) {
			var next, undecided, steps, failed atomic.Int64
			began := time.Now()
			tally := newTally()
			t.Run("runs", func(t *testing.T) {
				for worker := range 2 {
					t.Run(fmt.Sprint(worker), func(t *testing.T) {
						t.Parallel()
						for {
							i := next.Add(1) - 1
							if i >= int64(len(numbers)) || failed.Load() > 0 && !*census {
								return
							}
							seed := numbers[i]
							p := planOf(seed, forking)
							result := run(t, p)
							undecided.Add(int64(result.undecided))
							steps.Add(int64(result.steps))
							kept.write(t, seed, result.recorded)
							if result.failure == nil {
								continue
							}
							if failed.Add(1); *census {
								tally.add(seed, p, result)
								continue
							}
							report(t, seed, p, result)
						}
					})
				}
			})
			taken := time.Since(began)
			t.Logf("%d runs, %d failed, %.0f a second, %d steps, %d keys undecided", next.Load(), failed.Load(), float64(len(numbers))/taken.Seconds(), steps.Load(), undecided.Load())
			tally.log(t)
		})
	}
}

// report tells of a failing run, as small as it gets.
func report(t *testing.T, seed uint64, p plan, result outcome) {
	smaller := shrink(t, p, result.failure.kind)
	again := trace(t, smaller)
	if again.failure == nil {
		smaller, again = p, trace(t, p)
	}
	t.Errorf("run %d (-seed=%d): %v\n\n%s\n%s", seed, seed, again.failure, describe(smaller), strings.Join(again.trace, "\n"))
}

// describe is a plan for people.
func describe(p plan) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%+v alone=%v\n", p.Knobs, p.Alone)
	for _, one := range p.Processes {
		fmt.Fprintf(&text, "%s follows=%v maxAge=%v mortal=%v retries=%d:", one.Name, one.Follows, one.MaxAge, one.Mortal, one.Retries)
		for _, ops := range one.Goroutines {
			fmt.Fprint(&text, " [")
			for _, o := range ops {
				fmt.Fprintf(&text, " +%v %s(%s)", o.Think, o.Kind, strings.Join(slices.Concat([]string{o.Key}, o.Keys, o.Reads), " "))
			}
			fmt.Fprint(&text, " ]")
		}
		fmt.Fprintln(&text)
	}
	for _, i := range p.Incidents {
		fmt.Fprintf(&text, "%+v\n", i)
	}
	return text.String()
}

// The same seed is the same run, on one processor.
func TestSimulationRepeats(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // who wakes at the same moment goes on in the same order
	for seed := range uint64(10) {
		for _, forking := range []bool{false, true} {
			p := planOf(seed, forking)
			a, b := trace(t, p), trace(t, p)
			if i := firstDifference(a.trace, b.trace); i >= 0 {
				assert.Fail(t, "two runs differ", "seed %d, line %d:\n%s\n%s", seed, i, line(a.trace, i), line(b.trace, i))
			}
		}
	}
}

func firstDifference(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if line(a, i) != line(b, i) {
			return i
		}
	}
	return -1
}

func line(trace []string, i int) string {
	if i < len(trace) {
		return trace[i]
	}
	return ""
}
