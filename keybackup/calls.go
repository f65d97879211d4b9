package keybackup

import (
	"context"
	"sync"
)

// calls makes one call for all who want the same thing at the same time. The zero value is ready, and its methods are
// safe for concurrent use.
type calls[K comparable, V any] struct {
	mu      sync.Mutex
	running map[K]*call[V]
}

type call[V any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // guarded by calls.mu

	value V
	err   error
}

// do calls f, or waits for a call that runs already under the key, and returns what it returned. A caller whose context
// ends returns its error at once. The others get their result all the same, for f's context ends only when nobody
// waits for it any more.
func (c *calls[K, V]) do(ctx context.Context, key K, f func(context.Context) (V, error)) (V, error) {
	c.mu.Lock()
	running, ok := c.running[key]
	if !ok {
		running = c.start(ctx, key, f)
	}
	running.waiting++
	c.mu.Unlock()

	select {
	case <-running.done:
		return running.value, running.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if running.waiting--; running.waiting == 0 {
		c.remove(key, running) // who comes now starts anew, and does not hear that this one was cancelled
		running.cancel()
	}
	var none V
	return none, ctx.Err()
}

// start is called with mu held.
func (c *calls[K, V]) start(ctx context.Context, key K, f func(context.Context) (V, error)) *call[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	running := &call[V]{done: make(chan struct{}), cancel: cancel}
	if c.running == nil {
		c.running = map[K]*call[V]{}
	}
	c.running[key] = running
	go func() {
		running.value, running.err = f(ctx)
		cancel()
		c.mu.Lock()
		c.remove(key, running)
		c.mu.Unlock()
		close(running.done)
	}()
	return running
}

func (c *calls[K, V]) remove(key K, running *call[V]) {
	if c.running[key] == running {
		delete(c.running, key)
	}
}
