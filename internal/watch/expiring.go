package watch

import (
	"context"
	"encoding/json"
	"time"

	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// clockAgain is the pause after which the homeserver's time is asked for again that could not be learned.
	clockAgain = 10 * time.Second

	// otherClocks is how much sooner another process, whose time is off by as much, can have removed what expires.
	otherClocks = time.Second
)

// expiring is what a watch knows of values that are there for a time alone. The zero value is ready.
type expiring struct {
	until map[string]int64  // by name: when a value expires that was told, in Unix milliseconds
	gone  map[string]string // by name: what has expired, and was told so, and is still stored
}

// note notes what is stored under a name now.
func (e *expiring) note(name, stored string) {
	if e.until == nil {
		e.until, e.gone = map[string]int64{}, map[string]string{}
	}
	if at, _ := wire.Expiry(stored); at != 0 && e.gone[name] != stored {
		e.until[name] = at
	} else {
		delete(e.until, name)
	}
}

// next is when the first of the values expires, 0 where none does.
func (e *expiring) next() (first int64) {
	for _, at := range e.until {
		if first == 0 || at < first {
			first = at
		}
	}
	return first
}

// over are the names whose values have expired by now and were not told so.
func (e *expiring) over(now int64) (names []string) {
	for name, at := range e.until {
		if at <= now {
			names = append(names, name)
		}
	}
	return names
}

// now is the homeserver's time. Where it cannot be learned nothing has expired yet.
func (w *Watch) now(ctx context.Context) int64 {
	now, err := w.Room.Now(ctx)
	if err != nil {
		return 0
	}
	return now
}

// untilExpiry is a channel that is ready when something expires. It is nil where nothing does.
func (w *Watch) untilExpiry(ctx context.Context) <-chan time.Time {
	first := w.expiring.next()
	if first == 0 {
		return nil
	}
	wait := clockAgain
	if now := w.now(ctx); now != 0 {
		wait = time.Duration(max(1, first-now)) * time.Millisecond
	}
	return time.After(min(wait, time.Hour))
}

// tellExpired tells what has expired.
func (w *Watch) tellExpired(ctx context.Context, yield func(Change, error) bool) (left bool) {
	if w.expiring.next() == 0 {
		return false
	}
	before, at := map[string]string{}, map[string]int64{}
	names := w.expiring.over(w.now(ctx))
	for _, name := range names {
		at[name] = w.expiring.until[name]
		if d := w.dicts[w.Layout.StateKey(name)]; d != nil {
			before[name] = d.names[name]
		}
		delete(w.expiring.until, name)
	}
	return w.yield(ctx, names, before, map[string]string{}, func(name string) Change {
		change := Change{Time: time.UnixMilli(at[name])}
		if d := w.dicts[w.Layout.StateKey(name)]; d != nil {
			change.Event = d.view.Event
		}
		w.expiring.gone[name] = before[name]
		return change
	}, yield)
}

// sides tell whether there was a value to begin with, by what was told, whether there is one now, and whether what was there has expired.
func (w *Watch) sides(ctx context.Context, name string, before, after map[string]string) (was, is, expired bool) {
	old, was := before[name]
	stored, is := after[name]
	was = was && w.expiring.gone[name] != old
	if is && w.expiring.gone[name] != stored {
		delete(w.expiring.gone, name)
	}
	oldAt, newAt := wire.Until(json.RawMessage(old)), wire.Until(json.RawMessage(stored))
	if oldAt == 0 && newAt == 0 {
		return was, is, false
	}
	now := w.now(ctx)
	if is && newAt != 0 && newAt <= now {
		w.expiring.gone[name], is, expired = stored, false, true
		delete(w.expiring.until, name)
	}
	return was, is, expired || was && !is && oldAt != 0 && oldAt <= now+otherClocks.Milliseconds()
}
