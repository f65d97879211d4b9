// Package background runs goroutines that outlive their callers, and ends them.
package background

import (
	"context"
	"sync"

	"maunium.net/go/mautrix/id"
)

// What is done in the background, for [Group.Do].
const (
	Repair = "repair" // what is merged, or read again, that no operation waits for
	Send   = "send"   // what has waited for a flush
	Move   = "move"   // a memory that goes from account data into the state
)

// Group is goroutines that go on in the background until they are done or the group is closed. The zero value is ready, and methods are safe for
// concurrent use. A nil Group is never closed.
type Group struct {
	// Tell, where it is not nil, calls do for [Group.Do], and tells somebody of it. It is set before the first use.
	Tell func(ctx context.Context, kind string, room id.RoomID, do func(ctx context.Context) error) error

	mu     sync.Mutex
	closed bool
	ends   map[*context.CancelFunc]bool // of those that go on
	idle   chan struct{}                // closed when none goes on any more, nil where nobody waits for that
}

// Go has do called in a goroutine of its own, with the values of ctx. The context that do gets ends with the group and not with ctx. A group
// that was closed calls nothing, and then Go is false.
func (g *Group) Go(ctx context.Context, do func(ctx context.Context)) bool {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if g == nil {
		go func() {
			defer cancel()
			do(ctx)
		}()
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		cancel()
		return false
	}
	if g.ends == nil {
		g.ends = map[*context.CancelFunc]bool{}
	}
	g.ends[&cancel] = true
	go func() {
		defer g.end(&cancel)
		do(ctx)
	}()
	return true
}

// Do calls do, a piece of work of some kind for a room's memory, and returns its error.
func (g *Group) Do(ctx context.Context, kind string, room id.RoomID, do func(ctx context.Context) error) error {
	if g == nil || g.Tell == nil {
		return do(ctx)
	}
	return g.Tell(ctx, kind, room, do)
}

func (g *Group) end(cancel *context.CancelFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	(*cancel)()
	delete(g.ends, cancel)
	if len(g.ends) == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// Close ends the contexts of what goes on, and waits until all of it has returned, or until ctx ends, whose error it then returns. It can be
// called again.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	for cancel := range g.ends {
		(*cancel)()
	}
	if len(g.ends) > 0 && g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
