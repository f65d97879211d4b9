package commit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// maxSilence is how long a sync can say nothing and still be believed to go on, as in package roomkv.
const maxSilence = 40 * time.Second

// process is a client of the store. What it does with the sync is what package roomkv does.
type process struct {
	world   *world
	name    string
	account string
	follows bool
	maxAge  time.Duration
	begins  time.Time // when its sync begins
	mortal  bool      // whether it can die
	plain   bool      // whether it writes as opsdroid does
	retries int       // how often a request is made again
	rng     *rand.Rand

	died chan struct{}
	dead bool

	mu        sync.Mutex
	dicts     map[string]*commit.Replica
	requests  map[string]int // by kind
	paused    time.Time      // until when nothing comes in
	syncing   bool           // whether a response is on its way
	synced    int            // how many events the sync has brought or skipped
	responses int
	polled    int       // the number of responses when the last one was asked for that has to wait
	response  time.Time // when the last one came
	waiting   id.EventID
	brought   map[id.EventID]bool
	first     *firstSync // what the first response has, nil before

	powerChanged time.Time // when the sync last told of power levels
	powerAt      int64     // their own time, in Unix milliseconds
}

// firstSync is what the first response of a sync has, and what came since, of dicts that nobody has asked for.
type firstSync struct {
	at    time.Time
	whole bool  // whether nothing is in a dict that is not among these
	from  int64 // all events since are listed, in Unix milliseconds
	dicts map[string][]merge.Event
}

// powerSettles is as in package roomkv: how long before and after a change of power what is sent can be left out for it.
const powerSettles = 10 * time.Second

func (w *world) process(name string, follows bool) *process { return w.processFrom(name, follows, 0) }

// processFrom is a process that begins after a while.
func (w *world) processFrom(name string, follows bool, begins time.Duration) *process {
	p := &process{
		world: w, name: name, account: name, follows: follows, begins: time.Now().Add(begins), rng: w.rng(name), died: make(chan struct{}),
		dicts: map[string]*commit.Replica{}, requests: map[string]int{}, brought: map[id.EventID]bool{},
	}
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	if follows {
		p.skip(0)
		w.after(begins, name+" sync", p.poll)
	}
	return p
}

// die is called by what happens, and nothing comes in any more.
func (p *process) die() {
	p.dead = true
	close(p.died)
	p.world.note(p.name, "dies")
}

// pause keeps everything away from the process for a while, as where a laptop sleeps.
func (p *process) pause(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = time.Now().Add(wait)
}

// awake is a wait until then, or until the process goes on.
func (p *process) awake(wait time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(wait, time.Until(p.paused))
}

// dict is the replica of a dict.
func (p *process) dict(key string) *commit.Replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.dicts[key]; known != nil {
		return known
	}
	room := &simRoom{process: p, key: key}
	room.asker.id = p.name + "/" + key
	mode := commit.Mode{OneName: p.world.OneName, Single: p.world.Single}
	known := commit.NewSeededReplica(room, mode, p.world.rng(room.asker.id).Uint64, p.world.rng(room.asker.id+" repairs").Uint64)
	if events, unasked := p.begun(key); unasked {
		known.Begin(p.first.at, p.first.from, events...)
		p.first.dicts[key] = nil
	}
	p.dicts[key] = known
	return known
}

// begun is what the sync has brought of a dict, and tells whether that is known.
func (p *process) begun(key string) (events []merge.Event, known bool) {
	if p.first == nil {
		return nil, false
	}
	events, there := p.first.dicts[key]
	return events, events != nil || !there && p.first.whole && time.Since(p.first.at) > commit.DefaultPolicy().Skew
}

func (p *process) find(key string) *commit.Replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dicts[key]
}

// view is the dict as a caller reads it.
func (p *process) view(ctx context.Context, key string, agree func(view, current map[string]string) bool) (*replica.View, error) {
	if p.maxAge > 0 {
		return p.dict(key).ReadWithin(ctx, p.maxAge)
	}
	live := p.live()
	d := p.find(key)
	if p.follows {
		d = p.dict(key)
	}
	if d != nil {
		return d.ReadView(ctx, live, agree)
	}
	current, err := (&simRoom{process: p, key: key}).Current(ctx)
	if err == nil && current == nil && !p.world.OneName {
		return p.dict(key).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// live tells whether the sync feeds the dicts.
func (p *process) live() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.follows && p.waiting == "" && p.responses > 0 && time.Since(p.response) <= maxSilence
}

// behind notes that the sync has yet to bring an event that the homeserver lists.
func (p *process) behind(event id.EventID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.brought[event] {
		p.waiting = event
	}
}

// all are the replicas by state key, in its order.
func (p *process) all() (keys []string, replicas []*commit.Replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.dicts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		replicas = append(replicas, p.dicts[key])
	}
	return keys, replicas
}

// skip forgets what was known, for the sync has not brought events before that one.
func (p *process) skip(next int) {
	_, replicas := p.all()
	for _, d := range replicas {
		d.Forget()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synced = next
	p.waiting, p.first = "", nil
}

// poll is for when there may be something for the sync to bring.
func (p *process) poll() {
	if p.syncing || p.dead || time.Now().Before(p.begins) {
		return
	}
	w, n, number := p.world, len(p.ready()), p.responses
	if n == 0 && number > 0 {
		if p.polled != number {
			p.polled = number
			w.after(p.awake(30*time.Second), fmt.Sprintf("%s sync %d ends", p.name, number), func() {
				if p.responses == number && !p.syncing {
					p.respond(0)
				}
			})
		}
		return
	}
	p.syncing = true
	wait := 100*time.Microsecond + time.Duration(p.rng.Int64N(int64(8*time.Millisecond)))
	if !w.calm && p.rng.Float64() < w.SlowSync {
		wait += time.Duration(p.rng.Int64N(int64(w.SlowSyncBy)))
	}
	w.after(p.awake(wait), fmt.Sprintf("%s sync %d", p.name, number), func() {
		p.syncing = false
		p.respond(n)
	})
}

// ready are the events that the sync has not brought and that are visible.
func (p *process) ready() []*simEvent {
	s := p.world.server
	end := p.synced
	for end < len(s.log) && !s.log[end].visible.After(time.Now()) {
		end++
	}
	return s.log[p.synced:end]
}

// respond is a response of the sync with so many events.
func (p *process) respond(n int) {
	if p.dead {
		return
	}
	w, s := p.world, p.world.server
	events := s.log[p.synced : p.synced+n]
	next := p.synced + n
	limited := ""
	switch {
	case w.calm:
	case p.responses == 0: // what is known is from before it
		p.skip(next)
		events = events[p.rng.IntN(n+1):]
	case n > 0 && p.rng.Float64() < w.Limited:
		p.skip(next)
		events = events[p.rng.IntN(n):]
		limited = "limited "
	case p.rng.Float64() < w.Repeated:
		events = s.log[max(0, p.synced-p.rng.IntN(5)):next]
	}
	events = s.shuffled(events, p.rng)
	var ids []string
	read := map[string][]merge.Event{}
	var keys []string
	for _, e := range events {
		if e.kind == dictEvent {
			if read[e.key] == nil {
				keys = append(keys, e.key)
			}
			read[e.key] = append(read[e.key], s.event(e, true))
			ids = append(ids, short(e.id))
		}
	}
	w.note(p.name, "sync: %s%s", limited, strings.Join(ids, " "))
	if p.responses == 0 || limited != "" {
		p.begin(events, next, read)
	} else {
		p.came(read)
	}
	for _, key := range keys {
		if d := p.find(key); d != nil {
			d.Bring(read[key]...)
		}
	}
	_, replicas := p.all()
	for _, e := range events {
		if e.kind == redaction {
			p.forget(func(other merge.Event) bool { return other.ID == e.redacts.id })
			for _, d := range replicas {
				d.Redacted(e.redacts.id)
			}
		}
		if e.kind == powerEvent && len(e.powerful) > 0 {
			p.powerChanged, p.powerAt = time.Now(), e.ts
		}
	}
	if !p.powerChanged.IsZero() && time.Since(p.powerChanged) < powerSettles && n > 0 {
		p.forget(func(e merge.Event) bool { return e.Time >= p.powerAt-powerSettles.Milliseconds() })
		for _, d := range replicas {
			go d.Reconsider(context.Background(), "", p.powerAt-powerSettles.Milliseconds())
		}
	}
	if limited != "" {
		for key, e := range s.state(s.tips) {
			if d := p.find(key); d != nil && e.kind == dictEvent && !slices.Contains(events, e) {
				d.Resolved(e.id)
			}
		}
	}
	p.mu.Lock()
	for _, e := range events {
		if p.waiting == e.id {
			p.waiting = ""
		}
		p.brought[e.id] = true
	}
	p.synced, p.response = next, time.Now()
	p.responses++
	p.mu.Unlock()
	p.poll()
}

// begin notes what the first response has: the state before its timeline, and that.
func (p *process) begin(timeline []*simEvent, stored int, read map[string][]merge.Event) {
	s := p.world.server
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first = nil; !isSettled(timeline) {
		return
	}
	p.first = &firstSync{at: time.Now(), whole: p.responses == 0, from: math.MaxInt64 / 2, dicts: map[string][]merge.Event{}}
	for _, e := range timeline {
		if e.id == "$create" {
			p.first.from = 0
		} else if e.kind == dictEvent {
			p.first.from = min(p.first.from, e.ts)
		}
	}
	for _, e := range s.before(timeline, stored) {
		if e.kind == dictEvent {
			p.first.dicts[e.key] = append(p.first.dicts[e.key], s.event(e, false))
		}
	}
	for key, events := range read {
		if p.first.whole || p.first.dicts[key] != nil {
			p.first.dicts[key] = append(p.first.dicts[key], events...)
		}
	}
}

// isSettled is as in package follow.
func isSettled(timeline []*simEvent) bool {
	if len(timeline) == 0 {
		return false
	}
	first, last := timeline[0], timeline[len(timeline)-1]
	return first.id == "$create" || last.ts-first.ts > 2*commit.DefaultPolicy().Skew.Milliseconds()
}

// came notes what a later response has.
func (p *process) came(read map[string][]merge.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		return
	}
	for key, events := range read {
		if known, there := p.first.dicts[key]; known != nil || !there && p.first.whole {
			p.first.dicts[key] = append(known, events...)
		}
	}
}

// forget is for events that may not count any more.
func (p *process) forget(gone func(merge.Event) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		return
	}
	for key, events := range p.first.dicts {
		if slices.ContainsFunc(events, gone) {
			p.first.dicts[key] = nil
		}
	}
}

// stored has the syncs bring an event, and somebody tell processes that read from memory: late, twice or never.
func (w *world) stored(e *simEvent) {
	for _, p := range w.processes {
		if p.maxAge > 0 && e.kind == dictEvent {
			for range p.rng.IntN(3) {
				p.noticed(e.key, e.id, time.Duration(p.rng.Int64N(int64(50*time.Millisecond))))
			}
			if p.rng.IntN(10) == 0 {
				p.noticed(e.key, "$never", 0)
			}
		}
		if p.follows {
			w.after(time.Until(e.visible), fmt.Sprintf("%s sync sees %d", p.name, e.seq), p.poll)
		}
	}
}

// noticed is somebody who says after a while that there is an event.
func (p *process) noticed(key string, event id.EventID, wait time.Duration) {
	p.world.after(p.awake(wait), fmt.Sprintf("%s hears of %s", p.name, event), func() {
		if d := p.find(key); d != nil && !p.dead {
			d.Doubt(event, time.Now())
		}
	})
}
