package retry

import (
	"context"
	"slices"
	"sync"
)

// Waits knows for what requests wait right now, for callers who leave them to others and whose own context ends meanwhile. The zero
// value is ready, and methods are safe for concurrent use.
type Waits struct {
	mu  sync.Mutex
	now []*Interrupted
}

type waitsKey struct{}

// In is a context whose waits are noted, by [Policy.Do].
func (w *Waits) In(ctx context.Context) context.Context { return context.WithValue(ctx, waitsKey{}, w) }

// Explain adds to the error of a context for what was waited when it ended, if for anything.
func (w *Waits) Explain(ended error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.now) == 0 {
		return ended
	}
	return w.now[len(w.now)-1].by(ended)
}

// note notes a wait until it is over.
func note(ctx context.Context, wait *Interrupted) (over func()) {
	w, ok := ctx.Value(waitsKey{}).(*Waits)
	if !ok {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = append(w.now, wait)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = slices.DeleteFunc(w.now, func(other *Interrupted) bool { return other == wait })
	}
}
