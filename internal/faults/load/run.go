package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults"
)

// Run is a run and what came of it.
type Run struct {
	Config Config
	Room   id.RoomID
	Type   string // the memory's event type
	Began  time.Time

	Calls      []*Call
	Final      map[string]final // by key, as a fresh reader has read it
	Injected   map[int][]faults.Injected
	Kills      []time.Time // when the homeserver was killed
	Violations []Violation
	Excused    []Violation // that are the doing of a homeserver that was killed

	world *World
	owner *mautrix.Client // without faults
	began func(*Call)     // is told of each call that begins, where it is given
	ended func(*Call)     // and of each that has ended

	mu        sync.Mutex
	kills     sync.WaitGroup
	killed    bool
	killErrs  []error
	restarted time.Time // when the homeserver ran again after the last kill
}

// Start makes a run from beginning to end. The error is of what a run needs and not of what it tests: an account or a room that cannot be made.
func (w *World) Start(ctx context.Context, config Config) (*Run, error) {
	r := &Run{Config: config, world: w, Final: map[string]final{}, Injected: map[int][]faults.Injected{}, Began: time.Now()}
	if err := r.start(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return r, nil
}

func (r *Run) start(ctx context.Context) error {
	n := needs{devices: r.Config.Processes + 1, oneAccount: r.Config.OneAccount, encrypted: r.Config.Encrypted}
	crew, eventType, err := r.world.hire(ctx, n)
	if err != nil {
		return err
	}
	if r.Config.FreshRoom && crew.runs > 0 {
		if err := crew.makeRoom(ctx); err != nil {
			return err
		}
	}
	r.Room, r.Type, r.owner = crew.room, eventType, crew.members[0].client
	writers, last := crew.members[:r.Config.Processes], crew.members[r.Config.Processes]
	reader, err := r.open(ctx, -1, last) // before anything is written, for the keys to be shared with it
	if err != nil {
		return err
	}
	defer reader.stop()
	if r.Config.Separate {
		err = r.separate(ctx, writers)
	} else {
		err = r.together(ctx, writers)
	}
	if err != nil {
		return err
	}
	r.finish(ctx, reader, writers)
	// After a violation the room stays as it is, and separate processes take their crypto stores with them.
	if r.check(ctx); len(r.Violations)+len(r.Excused) == 0 && !(r.Config.Separate && r.Config.Encrypted) {
		r.world.dismiss(crew)
	}
	return nil
}

// together makes the processes in this one, and returns when they have done their work and nothing of it goes on.
func (r *Run) together(ctx context.Context, members []*member) error {
	var processes []*process
	for i, member := range members {
		p, err := r.open(ctx, i, member)
		if err != nil {
			return err
		}
		defer p.stop()
		processes = append(processes, p)
	}
	r.work(ctx, processes)
	r.kills.Wait()
	if r.Config.SingleWriter {
		r.closeKeys(ctx, processes[0])
	}
	return errors.Join(r.killErrs...)
}

// work lets the processes do their work, and returns when nothing of it goes on: what goes on after its call has failed can still write.
func (r *Run) work(ctx context.Context, processes []*process) {
	stalls := watchStalls()
	defer stalls.stop()
	var group sync.WaitGroup
	label := fmt.Sprint(r.Config.Seed, "/", r.Room, "/", r.Type)
	pprof.Do(ctx, pprof.Labels(labelName, label), func(ctx context.Context) {
		for _, p := range processes {
			p.transport.Begin()
			for goroutine := range r.Config.Goroutines {
				group.Go(func() { r.goroutine(ctx, p, goroutine) })
			}
		}
		group.Wait()
	})
	last := time.Now()
	for _, p := range processes {
		p.transport.Heal()
	}
	for _, p := range processes {
		p.transport.Wait()
		r.Injected[p.number] = p.transport.Injected()
	}
	r.checkGoroutines(label, last)
	r.checkDeadlines(stalls)
}

// kill kills the homeserver for a while, where it is not dead already.
func (r *Run) kill(down time.Duration) {
	killer, ok := r.world.Homeserver.(Killer)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ok || r.killed {
		return
	}
	r.killed = true
	r.Kills = append(r.Kills, time.Now())
	if err := killer.Kill(); err != nil {
		r.killErrs = append(r.killErrs, err)
		return
	}
	r.kills.Go(func() {
		time.Sleep(down)
		err := killer.Restart(context.Background())
		r.mu.Lock()
		defer r.mu.Unlock()
		r.killed, r.restarted = false, time.Now()
		r.killErrs = append(r.killErrs, err)
	})
}

// The keys of a run. Lists are appended to and nothing else, registers are overwritten, cells are changed on condition, and mixed keys have all
// of it, which the per-key layout does not promise much of.
var (
	lists     = []string{"list/0", "list/1"}
	registers = []string{"register/0", "register/1"}
	cells     = []string{"cell/0", "cell/1"}
	mixed     = []string{"mixed/0"}
)

// goroutine makes the calls of one goroutine.
func (r *Run) goroutine(ctx context.Context, p *process, goroutine int) {
	random := rand.New(rand.NewPCG(r.Config.Seed, uint64(1000+p.number*100+goroutine)))
	pick := func(keys []string) string { return keys[random.IntN(len(keys))] }
	for i := range r.Config.Calls {
		token := fmt.Sprintf("p%dg%dc%d", p.number, goroutine, i)
		timeout := r.Config.Shortest + time.Duration(random.Int64N(int64(r.Config.Longest-r.Config.Shortest)+1))
		at := caller{run: r, process: p, goroutine: goroutine, timeout: timeout}
		switch dice := random.IntN(100); {
		case r.Config.Only == Append:
			at.call(ctx, Append, pick(lists), token)
		case dice < 34:
			at.call(ctx, Append, pick(lists), token)
		case dice < 46:
			at.call(ctx, Put, pick(registers), token)
		case dice < 51:
			at.call(ctx, Delete, pick(registers), "")
		case dice < 58:
			at.putAll(ctx, token)
		case dice < 66:
			at.call(ctx, Create, pick(cells), token)
		case dice < 73:
			at.call(ctx, Pop, pick(cells), "")
		case dice < 79:
			at.call(ctx, Swap, pick(cells), token)
		case dice < 87:
			at.call(ctx, Get, pick(lists), "")
		case dice < 90:
			at.call(ctx, ListAll, "", "")
		case r.Config.PerKey:
			at.call(ctx, Append, pick(lists), token)
		default:
			op := []Op{Put, Append, Append, Create, Swap, Pop, Delete}[random.IntN(7)]
			if op == Pop || op == Delete {
				token = ""
			}
			at.call(ctx, op, pick(mixed), token)
		}
	}
}

// caller makes calls in the name of a goroutine.
type caller struct {
	run       *Run
	process   *process
	goroutine int
	timeout   time.Duration
}

// timed makes one call, and returns what is to be recorded of it.
func (c caller) timed(ctx context.Context, op Op, key, token string, do func(ctx context.Context, call *Call) error) *Call {
	call := &Call{Process: c.process.number, Goroutine: c.goroutine, Op: op, Key: key, Token: token, Start: time.Now()}
	call.Deadline = call.Start.Add(c.timeout)
	ctx, cancel := context.WithDeadline(ctx, call.Deadline)
	defer cancel()
	if c.run.began != nil {
		c.run.began(call)
	}
	err := do(ctx, call)
	call.End = time.Now()
	if call.Outcome = op.outcome(err); err != nil {
		call.Why = firstLine(err)
	}
	return call
}

func (c caller) record(calls ...*Call) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	c.run.Calls = append(c.run.Calls, calls...)
	if c.run.ended != nil {
		for _, call := range calls {
			c.run.ended(call)
		}
	}
}

func (c caller) call(ctx context.Context, op Op, key, token string) *Call {
	store := c.process.store
	var revision roomkv.Revision
	var saw []string
	if op == Swap { // the read before is no part of the call
		entryCtx, cancel := context.WithTimeout(ctx, c.timeout)
		entry, err := store.Entry(entryCtx, key)
		cancel()
		if err != nil || entry.Decode(&saw) != nil {
			return nil
		}
		revision = entry.Revision
	}
	call := c.timed(ctx, op, key, token, func(ctx context.Context, call *Call) error {
		switch op {
		case Put:
			return store.Put(ctx, key, []string{token})
		case Append:
			return roomkv.Update(ctx, store, key, func(old []string, found bool) ([]string, error) {
				call.Saw, call.Found = slices.Clone(old), found
				return append(slices.Clip(old), token), nil
			})
		case Create:
			return store.Create(ctx, key, []string{token})
		case Swap:
			call.Saw, call.Found = saw, true
			return store.CompareAndPut(ctx, key, []string{token}, revision)
		case Pop:
			err := store.Pop(ctx, key, &call.Saw)
			call.Found = err == nil
			return err
		case Delete:
			return store.Delete(ctx, key)
		case Get:
			err := store.Get(ctx, key, &call.Saw)
			call.Found = err == nil
			return err
		default:
			keys, err := store.Keys(ctx)
			call.Saw, call.Found = keys, true
			return err
		}
	})
	c.record(call)
	return call
}

// putAll puts two keys that nobody else writes.
func (c caller) putAll(ctx context.Context, token string) {
	keys := []string{"pair/" + token + "/a", "pair/" + token + "/b"}
	call := c.timed(ctx, Put, keys[0], token, func(ctx context.Context, _ *Call) error {
		return c.process.store.PutAll(ctx, map[string]any{keys[0]: []string{token}, keys[1]: []string{token}})
	})
	other := *call
	other.Key = keys[1]
	c.record(call, &other)
}
