// Package retry does again what has failed for a while: how often, and with which waits in between. It knows no network.
package retry

import (
	"context"
	"time"
)

// Policy is how often something is tried, and how long the waits in between are.
type Policy struct {
	Attempts int           // how often in all; at least once in any case
	Pause    time.Duration // the wait before the second attempt, and half of the wait before the third, and so on
	Longest  time.Duration // no wait is longer
}

// Do calls attempt until it succeeds, fails for good, or has been called as often as the policy allows. It returns what the last
// call returned. again tells of an error whether another attempt can succeed.
func (p Policy) Do(ctx context.Context, attempt func() error, again func(error) bool) error {
	pause := p.Pause
	for n := 1; ; n++ {
		err := attempt()
		if err == nil || n >= p.Attempts || ctx.Err() != nil || !again(err) {
			return err
		}
		if err := wait(ctx, min(pause, p.Longest)); err != nil {
			return err
		}
		pause *= 2
	}
}

// wait fails with the context's error where that ends first.
func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
