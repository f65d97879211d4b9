package roomkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// minLease is the shortest lease. A renewal must have time for the retries of its requests, also on a homeserver that limits an account.
	minLease = 30 * time.Second

	// leasePoll is how long a process that waits for a lease does not look whether the holder has released it.
	leasePoll = 2500 * time.Millisecond

	// leaseRetry is the pause after a renewal that failed.
	leaseRetry = time.Second
)

// Lease is the right of one process at a time to do something, for example of one of a bot's replicas to send reminders. [Store.Lease] takes it, and
// renews it in the background. All methods are safe for concurrent use.
type Lease struct {
	store *Store
	at    place
	key   string // of its record, as the memory has it
	ttl   time.Duration
	own   string // the holder of a record that is this lease's
	fence int64

	done chan struct{} // closed when it is no longer held
	stop func()        // ends the renewals
}

// place is the memory of a room, wherever that is by now.
type place struct {
	core *core
	room id.RoomID // of the store
}

// Lease waits until no process has the lease of that name, and takes it. Of the processes on one homeserver at most one has it; two homeservers that
// cannot reach each other can each have a holder. Only the wait ends with ctx. The lease is renewed every third of ttl until [Lease.Release] or [Store.Close]. If
// the holder dies, another gets it within ttl and some 3 seconds. The lease is stored under the key name, which nothing else may write. [Store.Restore],
// [Store.Import] and [Copy] leave it as it is.
//
// Errors: those of [Store.Get], [Store.Create]; [ErrInvalidOption] for a ttl below 30 seconds, [WithSingleWriter], a closed store; [ErrForbidden] in account data.
func (s *Store) Lease(ctx context.Context, name string, ttl time.Duration) (lease *Lease, err error) {
	ctx, op := s.begin(ctx, "Lease", name)
	defer op.end(&err)
	switch {
	case ttl < minLease:
		return nil, fault.Of(ErrInvalidOption, nil, "a lease is for %v at least", minLease)
	case s.core.SingleWriter:
		return nil, fault.Of(ErrInvalidOption, nil, "WithSingleWriter says that no other process writes, so that none could have the lease")
	}
	room, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	l := &Lease{store: s, at: place{s.core, room.ID}, key: s.prefix.of(name), ttl: ttl, own: rand.Text(), done: make(chan struct{})}
	for {
		sent := time.Now()
		free, err := l.take(ctx)
		if err == nil {
			return l, l.keep(ctx, sent)
		}
		if !errors.Is(err, errHeld) {
			return nil, err
		}
		select {
		case <-time.After(free/2 + mathrand.N(free/2+50*time.Millisecond)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Done is closed when the lease is no longer held: when it was released, when the store was closed, when a renewal finds that the lease is not this one any
// more, and at the latest ttl after the last successful renewal was sent. Until then no other process on the same homeserver has the lease.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Fence is a number that is higher for each holder of the lease. Whoever gets it along with a request can refuse an earlier holder's, which came late. In
// the memory [Tx.Require] does that.
func (l *Lease) Fence() int64 { return l.fence }

// Release gives the lease up, and waits until that is done. Another process that waits for the lease has it within some 3 seconds. After the lease was
// lost, and when it is called again, Release does nothing. If it fails, the lease is not renewed any more, and others may have to wait until ttl has passed.
//
// Errors: those of [Update].
func (l *Lease) Release(ctx context.Context) (err error) {
	ctx, op := l.store.begin(ctx, "Lease.Release", l.store.prefix.off(l.key))
	defer op.end(&err)
	l.stop()
	select {
	case <-l.done:
	case <-ctx.Done(): // a renewal hangs
		return ctx.Err()
	}
	err = l.change(ctx, func(_, _ int64, is wire.Lease) (wire.Lease, error) {
		if is.Holder != l.own {
			return is, errLeaseLost
		}
		return wire.Lease{Fence: is.Fence}, nil
	})
	if errors.Is(err, errLeaseLost) {
		return nil
	}
	return err
}

// Why a record does not become what it was to become.
var (
	errHeld      = errors.New("roomkv: another process has the lease")
	errLeaseLost = errors.New("roomkv: the lease is not this one's")
)

// take makes the record this lease's. With errHeld it tells how long to wait at most until the lease can be free.
func (l *Lease) take(ctx context.Context) (free time.Duration, err error) {
	held := func(first int64, is wire.Lease) bool {
		free = time.Duration(min(is.Until-first, leasePoll.Milliseconds())) * time.Millisecond // else it can overflow
		return is.Holder != "" && is.Holder != l.own && is.Until >= first
	}
	// A read first: most who ask find that it is held, and an Update of many who wait would take turns with the holder's.
	first, _, err := l.at.core.Between(ctx)
	if err != nil {
		return 0, err
	}
	var is wire.Lease
	if entry, err := (direct{l.store}).Entry(ctx, l.key); err == nil {
		if err := decode(l.key, entry.JSON, &is); err != nil {
			return 0, err
		}
	} else if !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if held(first, is) {
		return free, errHeld
	}
	err = l.change(ctx, func(first, last int64, is wire.Lease) (wire.Lease, error) {
		if held(first, is) {
			return is, errHeld
		}
		l.fence = is.Fence + 1
		return wire.Lease{Holder: l.own, Fence: l.fence, Until: last + l.ttl.Milliseconds()}, nil
	})
	return free, err
}

// change changes the record, at a time between first and last by the homeserver's clock. Who takes a lease for held goes by the latest that the time can be, and
// who takes one for free by the earliest, so that errors of clocks make no two holders. What waits for a flush is sent first.
func (l *Lease) change(ctx context.Context, to func(first, last int64, is wire.Lease) (wire.Lease, error)) error {
	if err := l.store.inStateOnly(ctx, "take a lease of the memory,"); err != nil {
		return err
	}
	return l.store.change(ctx, memory.Update{Key: l.store.prefix.off(l.key), Puts: true, Calls: true}, func(base commit.Base, h memory.Handle, name string) (json.RawMessage, error) {
		old, err := h.OldIn(ctx, base, name)
		if err != nil {
			return nil, err
		}
		var is wire.Lease
		if old.Found {
			if err := decode(l.key, old.Value, &is); err != nil {
				return nil, err
			}
		}
		first, last, err := h.Between(ctx)
		if err != nil {
			return nil, err
		}
		record, err := to(first, last, is)
		if err != nil {
			return nil, err
		}
		return encode.Value(l.key, record)
	})
}

// keep renews the lease in the background. Sent is when the last request was sent that made it this process's.
func (l *Lease) keep(ctx context.Context, sent time.Time) error {
	stopped, stop := context.WithCancel(context.Background())
	l.stop = stop
	end := sync.OnceFunc(func() { close(l.done) })
	over := time.AfterFunc(time.Until(sent.Add(l.ttl)), end) // by itself, for a renewal can hang longer than its context
	if l.at.core.Background.Go(ctx, func(ctx context.Context) {
		defer end()
		defer over.Stop()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(stopped, cancel)()
		l.renew(ctx, sent.Add(l.ttl), over)
	}) {
		return nil
	}
	end()
	return errors.Join(fault.Of(ErrInvalidOption, nil, "the store was closed"), l.Release(ctx))
}

// renew returns when the lease is not held any more. Over is what ends the lease then.
func (l *Lease) renew(ctx context.Context, until time.Time, over *time.Timer) {
	for next := time.Until(until) - (l.ttl - l.ttl/3); ; {
		select {
		case <-time.After(next):
		case <-l.done:
			return
		case <-ctx.Done():
			return
		}
		sent := time.Now()
		switch err := l.renewOnce(ctx, until); {
		case err == nil && over.Stop():
			until, next = sent.Add(l.ttl), l.ttl/3
			over.Reset(time.Until(until))
		case err == nil, errors.Is(err, errLeaseLost):
			return
		default:
			next = leaseRetry
		}
	}
}

func (l *Lease) renewOnce(ctx context.Context, until time.Time) (err error) {
	ctx, op := l.store.begin(ctx, "renew", l.store.prefix.off(l.key))
	defer op.end(&err)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return l.change(ctx, func(_, last int64, is wire.Lease) (wire.Lease, error) {
		if is.Holder != l.own {
			return is, errLeaseLost
		}
		return wire.Lease{Holder: l.own, Fence: l.fence, Until: last + l.ttl.Milliseconds()}, nil
	})
}
