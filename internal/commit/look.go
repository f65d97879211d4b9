package commit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// lookback is what the room's latest events are read for.
//
// A second sync would be simpler, but homeservers forget a device's to-device messages once one of its syncs has got them, and with them the
// keys that the bot's own sync is waiting for.
type lookback struct {
	target id.EventID // an event that the homeserver has acknowledged, or given as the current one; without it, all that is newer than what is known
	try    int        // how often it was looked for before: the later, the farther back, and the more is believed
}

// lookedBack is what a look back came to.
type lookedBack struct {
	found    bool // the target is listed, and nothing is missing between the events that are known
	complete bool // it went back beyond rivalsSince, or to where it is known what follows
}

// rivalsSince is the rule for "can there be a rival that nobody here has seen?". A writer can overlook only what was stored after the moment
// when it last knew all there was. For an event that was sent at a time, in Unix milliseconds, that moment was its age before. So the event's
// rivals are listed with a time from there on, less Skew. Whoever has read all from there on has seen them all.
//
// The age of what this commit sends is that of what it began from. Anybody else's is OwnFresh at most.
func (c *commit) rivalsSince(sent int64, age time.Duration) int64 {
	return sent - age.Milliseconds() - c.policy.Skew.Milliseconds()
}

// look waits until the homeserver shows an event that it has acknowledged, together with what was stored before it since the commit began. A
// sync that feeds the dict shows both without a request. It does not bring again what was left out of the state.
func (c *commit) look(ctx context.Context, event id.EventID) error {
	if c.synced() && (!c.fromNothing || c.mode.OneName) {
		if seen, err := c.awaitSync(ctx, event); seen || err != nil {
			return err
		}
	} else if err := c.policy.sleep(ctx, c.listLag); err != nil {
		return err
	}
	_, err := c.find(ctx, event)
	return err
}

// awaitSync waits for the sync to bring the event. A sync without a gap has brought by then what was stored before.
func (c *commit) awaitSync(ctx context.Context, event id.EventID) (seen bool, err error) {
	timeout := c.policy.After(c.policy.SyncWait)
	for {
		changed := c.dict.Changed()
		if c.epoch != c.dict.Epoch() {
			return true, c.reread(ctx)
		}
		// A read can have added the event as the current one. Only the sync, or a list, has brought by then what was stored before it.
		c.dict.Look(func(h *merge.History) { seen = h.Listed(event) && len(h.Missing()) == 0 })
		if seen {
			c.askedAt = c.policy.Now()
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

// find looks back until the homeserver lists the event.
func (c *commit) find(ctx context.Context, event id.EventID) (complete bool, err error) {
	synced := c.synced()
	for try := range c.policy.Tries {
		looked, err := c.scan(ctx, lookback{event, try})
		if err == nil && !looked.found && try >= c.policy.DeepFrom {
			err = c.room.Refused(ctx, event)
		}
		if looked.found && synced && event != "" {
			c.room.Behind(event)
		}
		if looked.found || err != nil {
			return looked.complete, err
		}
		c.listLag = min(c.listLag+c.policy.Lag, c.policy.MaxLag)
		if err := c.pause(ctx, try); err != nil {
			return false, err
		}
	}
	return false, errUnseen
}

// pause is what lies between a try and the next one. It doubles.
func (c *commit) pause(ctx context.Context, try int) error {
	return c.policy.sleep(ctx, c.policy.Lag<<try)
}

// scan looks back once, and on until nothing is missing between the events that are known.
func (c *commit) scan(ctx context.Context, l lookback) (r lookedBack, err error) {
	given := l.try >= c.policy.GivenFrom
	p := c.pager(c.firstPage())
	oldest := int64(0)
	for !r.complete && p.next(ctx) {
		if i := index(p.Events, l.target); i >= 0 && l.target == c.own {
			p.until = c.rivalsSince(p.Events[i].Time, c.age()) // however far that is: what others wrote since can be acknowledged
		}
		oldest = cmp.Or(p.Oldest, oldest)
		r.complete = c.line.covers(p.Page, c.since, c.policy.Skew) || p.Next == "" || c.reaches(l, p.events, oldest)
	}
	if p.err != nil {
		return lookedBack{}, p.err
	}
	open := false         // whether something is missing between events that are known
	fed, after := true, 0 // whether the sync has brought something that can be newer than the lists
	c.dict.Do(func(h *merge.History) {
		fed = h.Now() != p.asked
		h.AddPage(p.events, p.asked)
		after = h.Now()
		r.found = l.target == "" || h.Listed(l.target) || (!r.complete || given) && h.Has(l.target)
		open = r.found && len(h.Missing()) > 0
	})
	for open && p.next(ctx) {
		c.dict.Do(func(h *merge.History) {
			h.AddOlder(p.Events...)
			open = len(h.Missing()) > 0
		})
	}
	if p.err != nil {
		return lookedBack{}, p.err
	}
	if open {
		c.dict.Do(func(h *merge.History) {
			switch {
			case given:
				h.GiveUp()
			case fed || h.Now() != after: // newer lists can have what is missing
				r.found = false
			case !r.complete || !h.StateIsOpen():
				h.GiveUp()
			}
		})
	}
	return r, nil
}

// reaches tells whether the events that were read are all that there can be of what is looked for. That some of them are known is no such
// sign: homeservers list what took long to store among older events. A look back whose target is not listed is made again, and ends there all
// the same, unless it is a later try: the target can be listed farther back.
func (c *commit) reaches(l lookback, events []merge.Event, oldest int64) bool {
	i := index(events, l.target)
	switch {
	case len(events) == 0:
		return false
	case i < 0 && l.target != "" && l.try < c.policy.DeepFrom:
		return replica.Read(c.dict, func(h *merge.History) bool {
			return slices.ContainsFunc(events, func(e merge.Event) bool { return h.Had(e.ID) })
		})
	}
	return oldest > 0 && oldest < c.rivalsSince(events[max(0, i)].Time, c.age())
}

// verify makes sure that the heads have no rivals that nobody has merged, for what is sent next tells everybody that there are none. Their
// own writers can have died before they looked, or still wait for an answer. In a dict of one name that matters only to an edit that
// depends on what is there, and where this process has written of late, or has known the dict before: what it has shown can be hidden.
func (c *commit) verify(ctx context.Context) error {
	depends := func(p *pending) bool { return p.Conditional && (!p.ReadOnly || p.Afresh) }
	if c.mode.Single || c.mode.OneName && !c.Recent() && c.epoch == 0 && !slices.ContainsFunc(c.all, depends) {
		return nil
	}
	unverified := replica.Read(c.dict, func(h *merge.History) []*merge.Event { return h.Unverified("", c.mode.OneName) })
	for _, e := range unverified {
		if _, err := c.rivals(ctx, e.ID, e.Time); err != nil {
			return err
		}
	}
	return nil
}

// rivals reads all that somebody else's event can be a rival of. The event is looked for among the latest ones first, and far beyond these
// where it is known when it was sent, in Unix milliseconds.
func (c *commit) rivals(ctx context.Context, event id.EventID, sent int64) (found bool, err error) {
	c.askedAt = c.policy.Now()
	asked, limit := replica.Read(c.dict, (*merge.History).Now), c.bounded(c.policy.ManyEvents)
	var page Page
	for count, try := 1, 0; ; count++ {
		// What others have said since can be without end. But where the latest events are earlier than this one, by a clock that was set
		// back, homeservers can take this one for the current event in place of a later one.
		if far := page.Oldest == 0 || page.Oldest > sent; count > 1 && !found && far {
			page, err = c.room.Before(ctx, event, limit)
			found = true
		} else {
			page, err = c.room.Recent(ctx, page.Next, limit)
		}
		if err != nil {
			return false, err
		}
		if i := index(page.Events, event); i >= 0 {
			found, sent = true, page.Events[i].Time
		}
		if !found && sent == 0 {
			return false, nil
		}
		last := page.Next == "" || count == c.policy.Pages || found && page.Oldest > 0 && page.Oldest < c.rivalsSince(sent, c.policy.OwnFresh)
		lags := last && !found && page.Oldest <= sent && try < c.policy.ListTries // then a rival that was stored before it can be missing too
		c.dict.Do(func(h *merge.History) {
			if count == 1 {
				h.AddPage(page.Events, asked)
			} else {
				h.AddOlder(page.Events...)
			}
			if last && !lags {
				h.Verify(event)
			}
		})
		switch {
		case lags:
			if err := c.pause(ctx, try); err != nil {
				return false, err
			}
			asked = replica.Read(c.dict, (*merge.History).Now)
			page, count, try = Page{}, 0, try+1
		case last:
			return found, nil
		}
	}
}

// reach looks back to an event, as far as that is not known and a look back goes. First it looks for what is newer than what is known: in
// the order of the history that comes last.
func (c *commit) reach(ctx context.Context, event id.EventID) error {
	if event == "" || c.dict.Has(event) {
		return nil
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	p := c.pager(c.bounded(c.policy.ManyEvents))
	for !c.dict.Has(event) && p.next(ctx) {
		c.dict.Do(func(h *merge.History) { h.AddOlder(p.Events...) })
	}
	return p.err
}

// reachSent looks back to all events that an edit was sent in, without which nothing tells whether it counts.
func (c *commit) reachSent(ctx context.Context, p *pending) error {
	for _, sent := range p.in {
		if err := c.reach(ctx, sent); err != nil {
			return err
		}
		if !c.dict.Has(sent) {
			return errUnseen
		}
	}
	return nil
}
