package keybackup

import (
	"context"
	"sync"

	"github.com/roomkv/roomkv/internal/meter"
)

// calls makes one call for all who want the same thing at the same time. The zero value is ready, and its methods are
// safe for concurrent use.
type calls[K comparable] struct {
	mu      sync.Mutex
	running map[K]*call
}

type call struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // guarded by calls.mu
	meters  *meter.Shared

	found bool
	err   error
}

// unless calls f, as do does, unless what f is for is done.
func (c *calls[K]) unless(ctx context.Context, key K, done func() bool, f func(context.Context) error) error {
	if done() {
		return nil
	}
	_, err := c.do(ctx, key, func(ctx context.Context) (bool, error) {
		if done() { // by a call that ended between the two looks
			return true, nil
		}
		return true, f(ctx)
	})
	return err
}

// do calls f, or waits for a call that runs already under the key, and returns what it returned. A caller whose context
// ends returns its error at once. The others get their result all the same, for f's context ends only when nobody
// waits for it any more.
func (c *calls[K]) do(ctx context.Context, key K, f func(context.Context) (found bool, err error)) (found bool, err error) {
	c.mu.Lock()
	running, ok := c.running[key]
	if !ok {
		metered, meters := meter.Share(context.WithoutCancel(ctx))
		shared, cancel := context.WithCancel(metered)
		running = &call{done: make(chan struct{}), cancel: cancel, meters: meters}
		if c.running == nil {
			c.running = map[K]*call{}
		}
		c.running[key] = running
		go func() {
			running.found, running.err = f(shared)
			c.mu.Lock()
			c.end(key, running)
			c.mu.Unlock()
			close(running.done) // nothing of the call is used after that
		}()
	}
	running.meters.Join(ctx)
	running.waiting++
	c.mu.Unlock()

	select {
	case <-running.done:
		return running.found, running.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if running.waiting--; running.waiting == 0 {
		c.end(key, running) // who comes now starts anew, and does not hear that this one was cancelled
	}
	return false, ctx.Err()
}

// end is called with mu held.
func (c *calls[K]) end(key K, running *call) {
	running.cancel()
	if c.running[key] == running {
		delete(c.running, key)
	}
}
