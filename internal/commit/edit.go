package commit

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync/atomic"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/meter"
)

// Edit is a change of a dict.
type Edit struct {
	// Apply gives what is to be stored under each name that changes, and nil for a name to be removed. It can be
	// called several times, whenever the dict turns out to be another; the last call counts. An error is given to the
	// caller, and nothing is changed.
	//
	// Invariant: it is called by the writer's one goroutine, so that no two edits of a dict are made at once. The writer makes no other request
	// meanwhile, and Apply must not wait for the writer.
	Apply func(base Base) (map[string]json.RawMessage, error)

	// Conditional: what Apply gives depends on what is there. It is called again, with the other's change in the
	// dict, where another writer changed the same name at the same time.
	Conditional bool

	// Atomic: what Apply changes counts as a whole or not at all, and depends on each name that it has asked the base for. Such an edit is
	// Conditional. It is made again where another writer has changed one of these names at the same time.
	Atomic bool

	// Values are the names for which Apply gives values that were not in the room before, with their keys; see [Sealer]. With AddsValues Apply adds
	// to them.
	Values     map[string]string
	AddsValues bool

	// Anew: values are sealed anew also where the dict has them already; see [Sealer].
	Anew bool

	// Barrier: an event is sent also where nothing changes. Such an edit is Conditional, and makes an event by itself.
	Barrier bool

	// Sweeps: an event is sent also where nothing changes, if something there has expired. Each event that has an edit takes that away, and names it in
	// [wire.Parents]. It does not name what a Conditional edit that sweeps removes itself.
	Sweeps bool

	// Sealer, where it is not nil, is asked in place of [Room.Sealer] how the values are sent.
	Sealer func(ctx context.Context, again bool) (Sealer, error)

	// Since: Apply asks whether something has changed since that event, which must be looked for where it is not known.
	Since id.EventID

	// ReadOnly: there is no Apply, and nothing is sent for this edit's sake. The dict is read. Such an edit is
	// Conditional.
	ReadOnly bool

	// Afresh: what is known is not enough, the homeserver is asked for what is current and for what came before that.
	Afresh bool

	// Overwrites: what Apply gives does not depend on a value that was there, so that a dict of one name, whose events hold
	// nothing else, can be replaced where it cannot be read.
	Overwrites bool

	// OnSent, where it is not nil, is told of each event that was sent with the edit, before it is known whether that counts.
	OnSent func(event id.EventID)

	// Calls: Apply calls code that is not ours. It is called in the goroutine that called Do, so that a panic comes out
	// where it belongs, and a slow call holds up nobody longer than that one's context.
	Calls bool
}

// Base is the dict that an edit changes, the edits before it included, without what has expired. It is not to be used after Apply has returned.
type Base interface {
	// Stored is what is there under the name.
	Stored(name string) (json.RawMessage, bool)

	// Fresh tells whether what is there comes from an edit before, and so from nowhere but here. Where it is a value that is yet to be sealed, FreshKey
	// is its key.
	Fresh(name string) bool
	FreshKey(name string) (key string, ok bool)

	// Event is the latest event, for texts.
	Event() id.EventID

	// Unchanged tells whether the name is there and has not changed since the event.
	Unchanged(name string, since id.EventID) bool

	// Names is a copy of all that is there, by name, and Size about what an event with it takes, in bytes.
	Names() map[string]string
	Size() int
}

// HasValues tells whether Apply can give values that were not in the room before.
func (e Edit) HasValues() bool { return e.AddsValues || len(e.Values) > 0 }

// takes tells whether the edit itself removes a name whose time is over.
func (e Edit) takes(name string, stored json.RawMessage, expired []string) bool {
	return stored == nil && e.Sweeps && e.Conditional && slices.Contains(expired, name)
}

// pending is an edit that somebody waits for.
type pending struct {
	Edit
	ctx  context.Context
	done chan error // takes the one result without anybody listening

	calls chan func()   // what is to be called in the goroutine of Do
	left  chan struct{} // closed when that is no longer in Do

	alone bool         // whether it shares no event
	part  int          // which edits it shares one with: those of the same number
	names []string     // what Apply changed
	in    []id.EventID // the events that have the change: several where one did not count
	sent  []string     // what the last of them changed
	err   error        // of the last Apply
}

// end gives the result to whoever waits.
func (p *pending) end(err error) { p.done <- err }

// changes is what the edit makes of the base.
func (p *pending) changes(base *base) (map[string]json.RawMessage, error) {
	switch {
	case p.Apply == nil:
		return nil, nil
	case !p.Calls:
		return p.Apply(*base)
	}
	type result struct {
		changes map[string]json.RawMessage
		err     error
	}
	answer := make(chan result, 1)
	seen := *base
	call := func() {
		changes, err := p.Apply(seen)
		answer <- result{changes, err}
	}
	select {
	case p.calls <- call:
	case <-p.ctx.Done(): // an earlier call can still go on there
		return nil, p.ctx.Err()
	case <-p.left:
		return nil, errLeft
	}
	err := errLeft
	select {
	case r := <-answer:
		return r.changes, r.err
	case <-p.ctx.Done():
		err = p.ctx.Err()
	case <-p.left:
	}
	base.names, base.changed = maps.Clone(base.names), maps.Clone(base.changed) // the call goes on, and must not meet the next edits
	if base.reads != nil {
		base.reads = newReads()
	}
	return nil, err
}

// errLeft is the result of an edit that nobody waits for any more.
var errLeft = errors.New("the caller has left")

// take takes edits off the queue that can share an event with the first one: those of the same part, and conditional and atomic or not as that is. An edit
// that is alone shares with none. What waits between them stays in the queue: edits that wait at the same time have no order. With like, edits
// are taken that can share an event with that one, and from the front alone: a commit that goes on for long must not keep others from their
// turn. Edits whose callers have given up are dropped.
func take(queue []*pending, like *pending) (batch, rest []*pending) {
	queue = slices.DeleteFunc(queue, func(p *pending) bool { return p.ctx.Err() != nil })
	front := like != nil
	for i, p := range queue {
		if like == nil {
			like = p
		}
		switch {
		case p == like || p.Conditional == like.Conditional && p.Atomic == like.Atomic && p.part == like.part && !p.alone && !like.alone:
			batch = append(batch, p)
		case front:
			return batch, queue[i:]
		default:
			rest = append(rest, p)
		}
	}
	return batch, rest
}

// callers ends a context a while after all who wait for its work have given up: one who does so takes nobody else's
// write with him.
type callers struct {
	waiting atomic.Int64
	ctx     context.Context // of the work
	cancel  context.CancelFunc
	policy  *Policy
	stops   []func() bool
	meters  *meter.Shared // of those who wait
}

// detach makes a context with the values of the first edit's.
func detach(batch []*pending, policy *Policy) *callers {
	c := &callers{policy: policy}
	shared, meters := meter.Share(context.WithoutCancel(batch[0].ctx))
	c.meters = meters
	c.ctx, c.cancel = context.WithCancel(shared)
	c.add(batch)
	return c
}

func (c *callers) add(batch []*pending) {
	c.waiting.Add(int64(len(batch)))
	for _, p := range batch {
		c.meters.Join(p.ctx)
		c.stops = append(c.stops, context.AfterFunc(p.ctx, func() {
			if c.waiting.Add(-1) == 0 && c.policy.sleep(c.ctx, c.policy.GiveUp) == nil && c.waiting.Load() == 0 {
				c.cancel()
			}
		}))
	}
}

func (c *callers) release() {
	for _, stop := range c.stops {
		stop()
	}
	c.cancel()
}
