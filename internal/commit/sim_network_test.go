package commit_test

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/merge"
)

// item is something that happens at a moment.
type item struct {
	at  time.Time
	key string // orders what happens at one moment
	run func()
}

type agenda []item

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if a[i].at.Equal(a[j].at) {
		return a[i].key < a[j].key
	}
	return a[i].at.Before(a[j].at)
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(item)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// maxSteps bounds a run that would not end.
const maxSteps = 60_000

// world is one run: a homeserver, processes, and what happens between them, one thing after the other.
type world struct {
	knobs
	seed   uint64
	server *simServer
	began  time.Time
	calm   bool // whether nothing fails any more
	alone  bool // whether nobody writes once more in the end

	ctx    context.Context // of everybody, until the run ends
	cancel context.CancelFunc
	wake   chan struct{}

	mu        sync.Mutex
	agenda    agenda
	notes     []note // of the present moment
	trace     []string
	processes []*process
	ops       []*op
	failure   error

	traces    bool          // whether there is a trace
	stopped   chan struct{} // closed when the loop has ended
	redacted  bool          // whether what was acknowledged was taken away
	powerless []powerless
	undecided int          // keys with too many possible orders
	recorded  []keyHistory // keys whose operations were put in an order, or tried to
	known     int          // how many events histories have
	histories map[string]*merge.History
	changed   map[string]bool
	merged    map[string]map[string]string

	steps   int
	checked [2]int // how many events and results there were when that was last checked
	results int

	// intercept, where it is not nil, changes what happens to a request. It is for scenarios.
	intercept func(r *request)
}

type note struct {
	at        time.Time
	key, text string
}

func newWorld(seed uint64, knobs knobs) *world {
	w := &world{knobs: knobs, seed: seed, began: time.Now(), wake: make(chan struct{}, 1), server: newSimServer(),
		changed: map[string]bool{}, merged: map[string]map[string]string{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.server.forking, w.server.oneName, w.server.sameDepth = knobs.Forking, knobs.OneName, knobs.SameDepth
	w.server.silent, w.server.shuffles = knobs.Silent, knobs.Shuffles
	w.server.random = w.rng("server")
	w.server.lag = knobs.Lag
	return w
}

// rng gives random numbers that depend on nothing else that happens in the run.
func (w *world) rng(key string) *rand.Rand {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(key))
	return rand.New(rand.NewPCG(w.seed, hash.Sum64()))
}

// note adds to the trace.
func (w *world) note(key, format string, args ...any) {
	if !w.traces {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, note{time.Now(), key, fmt.Sprintf("%10.4fs  %-8s ", time.Since(w.began).Seconds(), key) + fmt.Sprintf(format, args...)})
}

// flush ends a moment. What goroutines noted in it has no order but that of their names.
func (w *world) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.notes, func(a, b note) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.key, b.key)) })
	for _, n := range w.notes {
		w.trace = append(w.trace, n.text)
	}
	w.notes = w.notes[:0]
}

// after has something happen after a while.
func (w *world) after(wait time.Duration, key string, run func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	heap.Push(&w.agenda, item{time.Now().Add(wait), key, run})
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// loop has everything happen, each thing once nobody can go on without it.
func (w *world) loop() {
	for {
		synctest.Wait()
		w.flush()
		if w.ctx.Err() != nil {
			return
		}
		w.check()
		w.mu.Lock()
		var next *item
		if len(w.agenda) > 0 {
			next = &w.agenda[0]
		}
		wait := time.Hour
		if next != nil {
			wait = time.Until(next.at)
		}
		if next != nil && wait <= 0 {
			due := heap.Pop(&w.agenda).(item)
			w.mu.Unlock()
			if w.steps++; w.steps > maxSteps {
				w.fail("endless", "the run does not end")
				return
			}
			due.run()
			continue
		}
		w.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-w.wake:
		case <-w.ctx.Done():
		}
		timer.Stop()
	}
}

// powerless is when an account was losing its power: what it sends then can be dropped.
type powerless struct {
	account     string
	from, until time.Time
}

// failure is what is wrong with a run.
type failure struct{ kind, text string }

func (f *failure) Error() string { return f.kind + ": " + f.text }

// fail ends the run.
func (w *world) fail(kind, format string, args ...any) {
	w.mu.Lock()
	if w.failure == nil {
		w.failure = &failure{kind, fmt.Sprintf(format, args...)}
	}
	w.mu.Unlock()
	w.cancel()
}

// fate is what becomes of a request on its way.
type fate int

const (
	arrives    fate = iota
	refused         // HTTP 500, without effect
	lost            // it never arrives, and the connection breaks
	unanswered      // it is carried out, and the connection breaks
	late            // a gateway answers that it took too long, and then it is carried out
)

func (f fate) String() string {
	return [...]string{"", "HTTP 500", "lost", "answer lost", "HTTP 504, arrives later"}[f]
}

// request is one request of a process.
type request struct {
	id      string // of who makes it, with a number
	process *process
	kind    string // GET, LIST, PUT, PLACE
	attempt int
	number  int // how many of that kind the process has made before
	fate    fate
	there   time.Duration // until it arrives
	within  time.Duration // until it is carried out
	back    time.Duration // until the answer is there
	overdue time.Duration // of one that is late: until it arrives after all

	dies bool // the process dies as this arrives
}

// errors of the network.
var (
	errServer  = errors.New("HTTP 500")
	errNetwork = errors.New("the connection broke")
	errGateway = errors.New("HTTP 504")
	errEnded   = errors.New("the run has ended")
	errDenied  = fmt.Errorf("HTTP 403: %w", fault.ErrRefused)
)

type askerKey struct{}

// asker is whose requests a context's are.
type asker struct {
	id       string
	requests int
}

// do makes a request, and makes it again as mautrix does where a gateway or the network failed. Begin is called as it arrives, and what
// that gives as it is carried out.
func (r *simRoom) do(ctx context.Context, kind, what string, begin func(q *request) func() (answer string, err error)) error {
	for attempt := 0; ; attempt++ {
		err := r.try(ctx, attempt, kind, what, begin)
		if attempt >= r.process.retries || !errors.Is(err, errGateway) && !errors.Is(err, errNetwork) {
			return err
		}
		if err := sleep(ctx, 4*time.Second<<attempt); err != nil {
			return err
		}
	}
}

func (r *simRoom) try(ctx context.Context, attempt int, kind, what string, begin func(q *request) func() (string, error)) error {
	w, p := r.process.world, r.process
	if w.ctx.Err() != nil {
		return errEnded
	}
	from, ok := ctx.Value(askerKey{}).(*asker)
	if !ok {
		from = &r.asker
	}
	p.mu.Lock()
	from.requests++
	q := &request{id: fmt.Sprintf("%s#%d", from.id, from.requests), process: p, kind: kind, attempt: attempt, number: p.requests[kind]}
	p.requests[kind]++
	p.mu.Unlock()
	w.draw(q)
	done := make(chan error, 1)
	answer := func(after time.Duration, err error, text string) {
		w.after(p.awake(after), q.id+" answer", func() {
			if !p.dead {
				w.note(q.id, "%s %s: %s", kind, what, text)
				done <- err
			}
		})
	}
	arrive := func(after time.Duration, reply bool) {
		w.after(after, q.id+" arrives", func() {
			if q.dies && !p.dead {
				p.die()
			}
			carryOut := begin(q)
			w.after(q.within, q.id+" is carried out", func() {
				text, err := carryOut()
				suffix := ""
				if !reply {
					suffix = " (" + q.fate.String() + ")"
				}
				if err != nil {
					text = err.Error()
				}
				if kind == "PUT" || q.fate != arrives {
					w.note(q.id, "  server: %s %s: %s%s", kind, what, text, suffix)
				}
				if reply {
					answer(q.back, err, text)
				}
			})
		})
	}
	there := p.awake(q.there)
	switch q.fate {
	case arrives:
		arrive(there, true)
	case refused:
		answer(there+q.back, errServer, errServer.Error())
	case lost:
		answer(there+q.back, errNetwork, errNetwork.Error())
	case unanswered:
		arrive(there, false)
		answer(there+q.within+q.back, errNetwork, errNetwork.Error())
	case late:
		arrive(there+q.overdue, false)
		answer(there+q.back, errGateway, errGateway.Error())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ctx.Done():
		return errEnded
	}
}

// draw decides what becomes of a request.
func (w *world) draw(q *request) {
	rng := w.rng(q.id)
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from)+1)) }
	slow := w.Slow
	if slow == 0 {
		slow = 8 * time.Millisecond
	}
	q.there, q.back = between(100*time.Microsecond, slow), between(100*time.Microsecond, slow)
	if q.kind == "PUT" {
		q.within = between(100*time.Microsecond, 2*slow)
	}
	q.overdue = between(0, w.LateBy)
	chance, lateChance := rng.Float64(), rng.Float64()
	kind := refused + fate(rng.IntN(int(late-refused)))
	stall, stalled, stallThere := between(0, w.StallBy), rng.Float64(), rng.IntN(2) == 0
	dies := rng.Float64()
	if !w.calm {
		switch {
		case chance < w.Fail:
			q.fate = kind
		case lateChance < w.Late && q.kind == "PUT":
			q.fate = late
		}
		if stalled < w.Stall && w.StallBy > 0 {
			if stallThere || w.StallBefore {
				q.there += stall
			} else {
				q.back += stall
			}
		}
		q.dies = q.process.mortal && dies < w.Death
	}
	if w.intercept != nil {
		w.intercept(q)
	}
}

// sleep fails with the context's error where that ends first.
func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
