package fallback

import (
	"context"
	"sync"
)

// gate lets in any number of goroutines that share it, or one that is alone. Who waits to be alone comes before who wants to share it later.
type gate struct {
	turn chan struct{} // has an element while somebody is alone, or waits to be

	mu     sync.Mutex
	inside int           // how many share it
	empty  chan struct{} // closed when nobody does any more, nil where nobody waits for that
}

func newGate() *gate { return &gate{turn: make(chan struct{}, 1)} }

// share waits until nobody is alone. The error is the context's.
func (g *gate) share(ctx context.Context) (leave func(), err error) {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside++
	<-g.turn
	return g.leave, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// alone waits until nobody else is inside. The error is the context's.
func (g *gate) alone(ctx context.Context) (leave func(), err error) {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leave = func() { <-g.turn }
	g.mu.Lock()
	if g.inside > 0 {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	if empty == nil {
		return leave, nil
	}
	select {
	case <-empty:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
