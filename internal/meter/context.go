package meter

import (
	"context"
	"slices"
	"sync"
)

// counter is what counts in a context.
type counter interface {
	// Add counts more, and tells whether it did.
	Add(more Counts) bool
}

type counterKey struct{}

func of(ctx context.Context) counter {
	found, _ := ctx.Value(counterKey{}).(counter)
	return found
}

// In is a context in which m counts, in place of what has counted in ctx.
func (m *Meter) In(ctx context.Context) context.Context {
	return context.WithValue(ctx, counterKey{}, m)
}

// Counted tells whether something counts in the context.
func Counted(ctx context.Context) bool { return of(ctx) != nil }

// Count counts more where something counts in the context.
func Count(ctx context.Context, more Counts) {
	if c := of(ctx); c != nil {
		c.Add(more)
	}
}

// Shared is for what is done for several operations at once: the first of them that has not ended counts it. A nil Shared is of operations that
// nothing counts. Methods are safe for concurrent use.
type Shared struct {
	mu  sync.Mutex
	all []counter
}

// Share is a context for what is done for the operation in ctx and for others that may join. Where nothing counts in ctx that is ctx itself.
func Share(ctx context.Context) (context.Context, *Shared) {
	if !Counted(ctx) {
		return ctx, nil
	}
	s := new(Shared)
	s.Join(ctx)
	return context.WithValue(ctx, counterKey{}, s), s
}

// Join adds the operation in ctx.
func (s *Shared) Join(ctx context.Context) {
	c := of(ctx)
	if s == nil || c == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, c)
}

// Add has the first operation count more that has not ended, and tells whether there was one.
func (s *Shared) Add(more Counts) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(c counter) bool { return c.Add(more) })
}
