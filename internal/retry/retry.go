// Package retry does again what has failed for a while: how often, with which waits in between, and what is said where the time
// runs out meanwhile. It knows no network.
package retry

import (
	"context"
	"fmt"
	"time"
)

// Policy is how often something is tried, and how long the waits in between are.
type Policy struct {
	Attempts int           // how often in all; at least once in any case
	Pause    time.Duration // the wait before the second attempt, and half of the wait before the third, and so on
	Longest  time.Duration // no wait is longer

	Turn  *Turn                // of what the other side can limit; nil for what waits for nobody
	Again func(error, Verdict) // is told of each error that another attempt follows; nil where nobody asks
}

// Verdict is what an error means.
type Verdict struct {
	Again   bool          // whether another attempt can succeed
	Limited bool          // whether it was one too many
	Asked   bool          // whether the other side says when
	After   time.Duration // how long it asks to wait
	Why     string        // what has failed, for people; it is in the text of errors
}

// Do calls attempt until it succeeds, fails for good, or has been called as often as the policy allows. It returns what the last
// call returned, or an [*Interrupted] where the context ends between two calls.
func (p Policy) Do(ctx context.Context, attempt func() error, judge func(error) Verdict) error {
	pause := p.Pause
	for n := 1; ; n++ {
		if err := p.Turn.wait(ctx); err != nil {
			return err
		}
		err := attempt()
		if err == nil {
			p.Turn.sent()
			return nil
		}
		verdict := judge(err)
		wait := pause
		if verdict.Asked {
			wait = verdict.After
		}
		wait = min(wait, p.Longest)
		if verdict.Limited {
			p.Turn.limit(Interrupted{Last: err, wait: wait, verdict: verdict})
		}
		if n >= p.Attempts || ctx.Err() != nil || !verdict.Again {
			return err
		}
		if p.Again != nil {
			p.Again(err, verdict)
		}
		if p.Turn == nil || !verdict.Limited { // else the next turn is waited for
			if ended := sleep(ctx, wait, verdict, err); ended != nil {
				return ended
			}
		}
		pause *= 2
	}
}

// sleep fails where the context ends first.
func sleep(ctx context.Context, wait time.Duration, verdict Verdict, last error) error {
	interrupted := Interrupted{Last: last, wait: wait, verdict: verdict}
	defer note(ctx, &interrupted)()
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return interrupted.by(ctx.Err())
	}
}

// Interrupted is the error of what was to be tried again when its context ended. Both errors are found beneath it.
type Interrupted struct {
	Ended error // the context's
	Last  error // of the last attempt

	wait    time.Duration
	verdict Verdict
}

func (i Interrupted) by(ended error) error {
	i.Ended = ended
	return &i
}

func (i *Interrupted) Error() string {
	wait := i.wait.Round(time.Millisecond)
	if i.verdict.Asked {
		return fmt.Sprintf("%v: the homeserver asked to wait %v (%s)", i.Ended, wait, i.verdict.Why)
	}
	return fmt.Sprintf("%v: another attempt was to follow after %v (%s)", i.Ended, wait, i.verdict.Why)
}

func (i *Interrupted) Unwrap() []error { return []error{i.Ended, i.Last} }
