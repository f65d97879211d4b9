package commit

import (
	"cmp"
	"context"
	"math"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// look looks back until all is known that the homeserver has done up to the event, which it acknowledged, since what is known was whole.
// Without an event it is all that the homeserver lists.
//
// A second sync would be simpler, but homeservers forget a device's to-device messages once one of its syncs has
// got them, and with them the keys that the bot's own sync is waiting for.
func (c *commit) look(ctx context.Context, event id.EventID) error {
	if c.synced() && event != "" && !(c.fresh && !c.mode.OneName) { // the sync does not bring again what was left out of the state
		if seen, err := c.bring(ctx, event); seen || err != nil {
			return err
		}
	} else if event != "" {
		if err := c.policy.sleep(ctx, c.lag); err != nil {
			return err
		}
	}
	return c.find(ctx, event)
}

// find looks back until the homeserver lists the event. One that it has given as the current one it may never list: it hides what was sent
// before the user came.
func (c *commit) find(ctx context.Context, event id.EventID) error {
	pause := c.policy.Lag
	late := c.synced()
	defer func() { c.deep, c.late = false, false }()
	for try := range c.policy.Tries {
		c.deep, c.late = try >= c.policy.DeepFrom, try >= c.policy.GivenFrom
		seen, err := c.pages(ctx, event)
		if seen && late && event != "" {
			c.room.Behind(event)
		}
		if !seen && err == nil && c.deep {
			err = c.room.Refused(ctx, event)
		}
		if seen || err != nil {
			return err
		}
		c.lag = min(c.lag+c.policy.Lag, c.policy.MaxLag)
		if err := c.policy.sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
	return errUnseen
}

// bring waits for the sync to bring the event. A sync without a gap has brought by then what was stored before.
func (c *commit) bring(ctx context.Context, event id.EventID) (seen bool, err error) {
	timeout := c.policy.After(c.policy.SyncWait)
	for {
		changed := c.dict.Changed()
		if c.epoch != c.dict.Epoch() {
			return true, c.remember(ctx)
		}
		// A read can have added the event as the current one. Only the sync, or a list, has brought by then what was stored before it.
		c.dict.Look(func(h *merge.History) { seen = h.Listed(event) && len(h.Missing()) == 0 })
		if seen {
			c.looked = c.policy.Now()
			return true, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// pages reads events from the latest back to what was there for certain as the commit began, and on until nothing is missing between
// those that are known. It has not seen the event where the homeserver does not list it yet. Where it lists what this commit has sent, it
// reads on however far that is: others' changes since what this was made from, a minute ago at most, can be acknowledged.
func (c *commit) pages(ctx context.Context, event id.EventID) (seen bool, err error) {
	c.looked = c.policy.Now()
	epoch, asked := c.dict.Epoch(), c.now()
	page := Page{}
	limit := c.limit()
	var events []merge.Event
	turned, oldest := 0, int64(0)
	met := false
	until := int64(math.MaxInt64)                                              // how far it goes at least
	for ; !met && (turned < c.policy.Pages || page.Oldest > until); turned++ { // others can go on talking for ever, but not write
		if page, err = c.room.Recent(ctx, page.Next, limit); err != nil {
			return false, err
		}
		events = append(events, page.Events...)
		if i := slices.IndexFunc(page.Events, func(e merge.Event) bool { return e.ID == event && event == c.own }); i >= 0 {
			until = c.edge(page.Events[i].Time)
		}
		oldest = cmp.Or(page.Oldest, oldest)
		met = page.Next == "" || c.meets(events, event, oldest)
		limit = c.bounded(c.policy.ManyEvents)
	}
	c.short = !met
	open := false         // whether something is missing between events that are known
	fed, after := true, 0 // whether the sync has brought something that can be newer than the lists
	c.dict.Do(func(h *merge.History) {
		fed = h.Now() != asked
		h.AddPage(events, asked)
		after = h.Now()
		seen = event == "" || h.Listed(event) || (c.short || c.late) && h.Has(event)
		open = seen && len(h.Missing()) > 0
	})
	for ; open && page.Next != "" && (turned < c.policy.Pages || page.Oldest > until); turned++ {
		if page, err = c.room.Recent(ctx, page.Next, limit); err != nil {
			return false, err
		}
		c.dict.Do(func(h *merge.History) {
			for _, e := range page.Events {
				h.AddOlder(e)
			}
			open = len(h.Missing()) > 0
		})
	}
	if open {
		forgotten := c.dict.Epoch() != epoch
		c.dict.Do(func(h *merge.History) {
			switch {
			case c.late:
				h.GiveUp()
			case fed || forgotten || h.Now() != after: // newer lists can have what is missing
				seen = false
			case c.short || !h.Unplumbed():
				h.GiveUp()
			}
		})
	}
	return seen, nil
}

// now is how far the history has got.
func (c *commit) now() (now int) {
	c.dict.Look(func(h *merge.History) { now = h.Now() })
	return now
}

// meets tells whether the events reach back to what was there for certain as the commit began. What was listed then is no such sign:
// homeservers list what took long to store among older events. Without the event that is looked for, the page ends where something is known,
// and is asked for again; a deep look goes on, for the event can be listed that far back.
func (c *commit) meets(events []merge.Event, event id.EventID, oldest int64) (met bool) {
	i := slices.IndexFunc(events, func(e merge.Event) bool { return e.ID == event })
	switch {
	case len(events) == 0:
		return false
	case i < 0 && event != "" && !c.deep:
		c.dict.Look(func(h *merge.History) {
			met = slices.ContainsFunc(events, func(e merge.Event) bool { return h.Had(e.ID) })
		})
		return met
	}
	return oldest > 0 && oldest < c.edge(events[max(0, i)].Time)
}

// edge is when what is older was there for certain as the commit began, of which an event was sent at that time.
func (c *commit) edge(sent int64) int64 {
	return sent - (c.policy.since(c.since) + c.policy.Skew).Milliseconds()
}

// verify makes sure that the heads have no rivals that nobody has merged, for what is sent next tells everybody that there are none. Their
// own writers can have died before they looked, or still wait for an answer. In a dict of one name that matters only to an edit that
// depends on what is there, and where this process has written of late, or has known the dict before: what it has shown can be hidden.
func (c *commit) verify(ctx context.Context) error {
	depends := func(p *pending) bool { return p.Conditional && (!p.ReadOnly || p.Afresh) }
	if c.mode.Single || c.mode.OneName && !c.Recent() && c.epoch == 0 && !slices.ContainsFunc(c.all, depends) {
		return nil
	}
	var unverified []*merge.Event
	c.dict.Look(func(h *merge.History) { unverified = h.Unverified("", c.mode.OneName) })
	for _, e := range unverified {
		if _, err := c.lookBefore(ctx, e.ID, e.Time); err != nil {
			return err
		}
	}
	return nil
}

// lookBefore looks back until all is known that the writer of an event can have overlooked: what was stored since that writer last knew
// what was current. The event is looked for among the latest ones first, and far beyond these where it is known when it was sent, in Unix
// milliseconds.
func (c *commit) lookBefore(ctx context.Context, event id.EventID, sent int64) (found bool, err error) {
	c.looked = c.policy.Now()
	asked := c.now()
	limit := c.bounded(c.policy.ManyEvents)
	page, err := c.room.Recent(ctx, "", limit)
	if err != nil {
		return false, err
	}
	edge := int64(math.MinInt64)
	find := func() {
		if i := slices.IndexFunc(page.Events, func(e merge.Event) bool { return e.ID == event }); i >= 0 {
			found, edge = true, page.Events[i].Time-(c.policy.OwnFresh+c.policy.Skew).Milliseconds()
		}
	}
	if find(); !found && sent == 0 {
		return false, nil
	}
	add := func(h *merge.History) { h.AddPage(page.Events, asked) }
	for turned := 1; ; turned++ {
		c.dict.Do(add)
		if page.Next == "" || turned == c.policy.Pages || page.Oldest > 0 && page.Oldest < edge {
			break
		}
		// What others have said since can be without end. But where the latest events are earlier than this one, by a clock that was set
		// back, homeservers can take this one for the current event in place of a later one.
		if far := !found && (page.Oldest == 0 || page.Oldest > sent); far {
			page, err = c.room.Before(ctx, event, limit)
			found, edge = true, sent-(c.policy.OwnFresh+c.policy.Skew).Milliseconds()
		} else {
			page, err = c.room.Recent(ctx, page.Next, limit)
		}
		if err != nil {
			return false, err
		}
		find()
		add = func(h *merge.History) {
			for _, e := range page.Events {
				h.AddOlder(e)
			}
		}
	}
	c.dict.Do(func(h *merge.History) { h.Verify(event) })
	return found, nil
}

// reach looks back to an event, as far as that is not known and a look back goes. First it looks for what is newer than what is known: in
// the order of the history that comes last.
func (c *commit) reach(ctx context.Context, event id.EventID) error {
	known := event == ""
	find := func(h *merge.History) { known = known || h.Has(event) }
	if c.dict.Look(find); known {
		return nil
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	c.dict.Look(find)
	page := Page{}
	for turned := 0; turned < c.policy.Pages && !known && (turned == 0 || page.Next != ""); turned++ {
		var err error
		if page, err = c.room.Recent(ctx, page.Next, c.bounded(c.policy.ManyEvents)); err != nil {
			return err
		}
		c.dict.Do(func(h *merge.History) {
			for _, e := range page.Events {
				h.AddOlder(e)
			}
			find(h)
		})
	}
	return nil
}

// limit is how many events the first page asks for: what was sent of late, which is known but lies before the edge, and some more.
func (c *commit) limit() int {
	known, late := 0, 0
	c.dict.Look(func(h *merge.History) { known, late = h.Len(), h.Since(2*c.policy.Skew) })
	switch {
	case c.fresh && !c.mode.OneName:
		return c.policy.AllEvents
	case known == late, c.mode.OneName: // the dict is young, or other names' events come in between
		return c.bounded(c.policy.ManyEvents)
	case c.busy:
		return c.bounded(late + c.policy.SomeEvents)
	default:
		return c.bounded(late + c.policy.FewEvents)
	}
}

// bounded is limit, or less where the dict is large. Homeservers give each event with the content of the one before, and
// Synapse gives that twice.
func (c *commit) bounded(limit int) int {
	size := 0
	c.dict.Look(func(h *merge.History) {
		for _, head := range h.Heads() {
			size = max(size, sizeOf(head.Dict))
		}
	})
	return max(3, min(limit, c.policy.PageBytes/(3*size+1)))
}
