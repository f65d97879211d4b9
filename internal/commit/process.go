package commit

import (
	"context"
	"maps"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/retry"
)

// Process is what all stores of one process share, whatever their clients, accounts and options are. They write the same dicts: two that did
// not know of each other's locks would undo each other's writes, and a store lists a room wrongly if it does not know what another one has
// just written there. The zero value is ready. Methods are safe for concurrent use.
type Process struct {
	Written Written
	Turns   retry.Queues // of what clients send while the homeserver limits them

	mu   sync.Mutex
	held map[Address]*lock // those that somebody holds or waits for, so that it stays small in a process that lives for years
	kept map[Address]any
}

// ThisProcess is what the stores of this process share. A test that stands for several processes replaces it before it makes a store.
var ThisProcess = new(Process)

// Address names a dict. Room IDs are unique across homeservers, so that clients of several accounts or homeservers meet at the same lock.
type Address struct {
	Room     id.RoomID
	Type     string
	StateKey string
}

type lock struct {
	free chan struct{} // holds one element while nobody has the lock
	refs int           // holders and waiters, guarded by [Process.mu]
}

// Lock is [Process.Lock] of [ThisProcess].
func Lock(ctx context.Context, dict Address) (unlock func(), err error) {
	return ThisProcess.Lock(ctx, dict)
}

// Lock waits until the caller alone may write to dict, or until ctx ends, and then returns its error.
//
// Lock order, or two wait for each other: first the lock of who finds out where a room's memory is written, then that of its dict in account
// data. The writer of that dict takes the second one in [Room.Hold], so that nobody waits for that writer while they have it.
func (p *Process) Lock(ctx context.Context, dict Address) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	l := p.held[dict]
	if l == nil {
		l = &lock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		if p.held == nil {
			p.held = map[Address]*lock{}
		}
		p.held[dict] = l
	}
	l.refs++
	p.mu.Unlock()

	select {
	case <-l.free:
		return func() {
			l.free <- struct{}{}
			p.release(dict, l)
		}, nil
	case <-ctx.Done():
		p.release(dict, l)
		return nil, ctx.Err()
	}
}

func (p *Process) release(dict Address, l *lock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(p.held, dict)
	}
}

// Keep is what all stores know of a dict that is kept elsewhere than in a room's state: what make has made for whoever asked first. It stays for
// as long as the process does.
func (p *Process) Keep(dict Address, make func() any) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = map[Address]any{}
	}
	if p.kept[dict] == nil {
		p.kept[dict] = make()
	}
	return p.kept[dict]
}

// Kept visits what is kept of a room's dicts, and forgets what visit returns false for.
func (p *Process) Kept(room id.RoomID, visit func(kept any) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.kept, func(at Address, kept any) bool { return at.Room == room && !visit(kept) })
}
