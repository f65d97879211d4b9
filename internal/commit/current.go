package commit

import (
	"context"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// read asks what is current, and looks for what lies between that and what is known.
//
// What is not in the state any more, or never was, can be among the latest events all the same: a homeserver that resolves the state of two
// branches leaves out what its sender had no more power to send in one of them, and whatever that had replaced.
func (c *commit) read(ctx context.Context) error {
	began := c.policy.Now()
	current, err := c.current(ctx)
	if err != nil {
		return err
	}
	open, known := false, false
	c.dict.Do(func(h *merge.History) {
		if c.mode.Single && (current == nil || !h.Continues(*current)) { // somebody writes who should not, or has written before
			*h = merge.History{}
		}
		if current != nil {
			h.Add(*current)
		}
		open, known = len(h.Heads()) > 1, h.Len() > 0
	})
	switch {
	case current == nil && (known || !c.mode.OneName && (c.mode.Single || c.readOnly())), c.mode.Single && c.last.Load() != nil:
		var events []merge.Event
		asked := replica.Read(c.dict, (*merge.History).Now)
		if events, err = c.room.Latest(ctx); err == nil {
			c.dict.Do(func(h *merge.History) { h.AddPage(events, asked) })
		}
	case current == nil:
		c.fromNothing = !c.readOnly()
	case open:
		err = c.look(ctx, current.ID)
	}
	isCurrent := func(e *merge.Event) bool { return current != nil && e.ID == current.ID }
	notCurrent := func(h *merge.History) bool {
		return len(h.Latest()) > 0 && !slices.ContainsFunc(h.Latest(), isCurrent)
	}
	if err == nil && replica.Read(c.dict, notCurrent) {
		margin := time.Duration(0)
		if current != nil { // the homeserver has chosen that in place of what it left out, whatever the times say
			margin = c.policy.LeftOut
		}
		err = c.dropPowerless(ctx, margin, func(e *merge.Event) bool { return !isCurrent(e) })
	}
	if err != nil {
		return err
	}
	c.shadowed.Store(replica.Read(c.dict, notCurrent))
	c.since = began
	c.dict.Checked(c.epoch, c.askedAt)
	return nil
}

// current asks what is current. The sync can bring an event faster than an answer from before it, which is asked for again.
func (c *commit) current(ctx context.Context) (current *merge.Event, err error) {
	for try := 1; ; try++ {
		changed := c.dict.Changed()
		c.askedAt = c.policy.Now()
		if current, err = c.room.Current(ctx); err != nil {
			return nil, err
		}
		c.currentAsked = true
		c.dict.Look(func(h *merge.History) {
			if current == nil && h.Len() == 0 {
				h.Rooted()
			}
		})
		select {
		case <-changed:
			if try < c.policy.CurrentTries && (current == nil || !c.dict.Has(current.ID)) {
				continue
			}
		default:
		}
		return current, nil
	}
}

// judgeOlder is for a commit that began where nothing was current. The look back after its first event shows what the homeserver had left out of
// the state: events that are older than any rival. It finds out which of them count.
func (c *commit) judgeOlder(ctx context.Context) error {
	until := c.rivalsSince(replica.Read(c.dict, func(h *merge.History) int64 { return h.Time(c.own) }), c.age())
	return c.dropPowerless(ctx, 0, func(e *merge.Event) bool { return e.ID != c.own && e.Time < until })
}

// dropPowerless finds out which of the suspected events the homeserver has left out of the state, among the latest ones, and drops them. The room's
// authority counts: an event does not count whose sender had no power or was not in the room any more, nor one that was sent within the margin
// before that. What others had sent before it does count.
func (c *commit) dropPowerless(ctx context.Context, margin time.Duration, suspect func(e *merge.Event) bool) error {
	var dropped []id.EventID
	since := map[id.UserID]int64{}
	for before := -1; before < len(dropped); { // in place of a dropped one, what it was made from is among the latest
		before = len(dropped)
		var latest []*merge.Event
		c.dict.Do(func(h *merge.History) {
			h.Drop(dropped...)
			latest = h.Latest()
		})
		for _, e := range only(latest, suspect) {
			from, asked := since[e.Sender]
			if !asked {
				var err error
				if from, err = c.room.Powerless(ctx, e.Sender); err != nil {
					return err
				}
				since[e.Sender] = from
			}
			if from != 0 && e.Time >= from-margin.Milliseconds() {
				dropped = append(dropped, e.ID)
			}
		}
	}
	return nil
}
