package commit

import (
	"context"
	"slices"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// begin makes sure that something is known to begin with, as of a moment that is noted in since, and that it has no rival which is not known.
// It makes no request while a sync feeds the dict, nor where what is known is recent: for OwnFresh if this writer alone has written of late, else for
// AnyFresh, and in both cases unless somebody has said that there is something newer.
func (c *commit) begin(ctx context.Context) error {
	asOf, known := c.dict.AsOf()
	c.since = asOf
	age := c.policy.since(asOf)
	doubt := c.afresh() || c.unsettled.Load()
	var err error
	switch {
	case !known && !c.afresh() && !c.mode.Single && c.Recent():
		err = c.recall(ctx)
	case !known, c.mode.Single && c.afresh():
		err = c.read(ctx)
	case c.mode.Single:
		c.currentAsked = true
		return nil
	case doubt:
		if err = c.catchUp(ctx); err == nil && !c.currentAsked {
			err = c.read(ctx)
		}
	case c.synced() && c.dict.View() != nil: // what the sync has yet to bring shows once it has brought what is sent
		c.since = c.policy.Now().Add(-min(age, c.policy.OwnFresh))
		c.fromNothing = !c.readOnly() && replica.Read(c.dict, (*merge.History).Len) == 0
	case c.dict.Doubted(), age > c.policy.AnyFresh && !(c.ownLast() && age < c.policy.OwnFresh):
		err = c.catchUp(ctx)
	}
	if err != nil {
		return err
	}
	if err = c.verify(ctx); err != nil && !known {
		c.dict.Forget() // what was read is not known to count
	}
	if err == nil && doubt {
		c.unsettled.Store(false)
	}
	return err
}

// afresh tells whether an edit asks for what is current.
func (c *commit) afresh() bool {
	return slices.ContainsFunc(c.all, func(p *pending) bool { return p.Afresh })
}

// readOnly tells whether no edit has anything to send.
func (c *commit) readOnly() bool {
	return !slices.ContainsFunc(c.all, func(p *pending) bool { return !p.ReadOnly })
}

// ownLast tells whether this writer was the last to write, and nobody else is known to have written for OwnFresh before that. Somebody who has written
// of late is likely to write again.
func (c *commit) ownLast() bool {
	last := c.last.Load()
	return last != nil && replica.Read(c.dict, func(h *merge.History) bool {
		heads := h.Heads()
		if len(heads) != 1 || heads[0].ID != last.event {
			return false
		}
		own := only(c.line.events, func(e placed) bool {
			return h.Has(e.event) && heads[0].Time-h.Time(e.event) <= c.policy.OwnFresh.Milliseconds()
		})
		return h.Since(c.policy.OwnFresh) == len(own)
	})
}

// recall looks for what this process has sent last, of which nothing is known any more, and for what was before and after that. The homeserver
// has acknowledged it, and lists it in a moment: what is read before that can be a late delivery of something that was there before.
func (c *commit) recall(ctx context.Context) error {
	event := c.last.Load().event
	for try := range c.policy.GivenFrom {
		found, err := c.rivals(ctx, event, 0)
		if found {
			c.since = c.askedAt
			c.dict.Checked(c.epoch, c.askedAt)
		}
		if found || err != nil {
			return err
		}
		page, err := c.room.Before(ctx, event, c.bounded(c.policy.FewEvents))
		if err != nil {
			return err
		}
		if index(page.Events, event) >= 0 { // others have said much since
			break
		}
		if err := c.pause(ctx, try); err != nil {
			return err
		}
	}
	return c.read(ctx)
}

// catchUp looks for what is newer than what is known. Where that is too much, what is current is read in its place: nobody knows what lies
// between, and two ends without it would pass for rivals.
func (c *commit) catchUp(ctx context.Context) error {
	if replica.Read(c.dict, (*merge.History).Len) == 0 { // no look back meets anything
		return c.read(ctx)
	}
	switch complete, err := c.find(ctx, ""); {
	case err != nil:
		return err
	case !complete && c.own == "":
		c.dict.Forget()
		c.epoch = c.dict.Epoch()
		return c.read(ctx)
	}
	c.since = c.askedAt
	return nil
}

// reread reads again what the dict has forgotten, for then what the sync brings need not follow what was known. That can happen during any
// request, so that whoever goes by the history calls it after each.
func (c *commit) reread(ctx context.Context) error {
	for !c.mode.Single && c.epoch != c.dict.Epoch() {
		c.epoch = c.dict.Epoch()
		if c.own == "" {
			if err := c.begin(ctx); err != nil {
				return err
			}
			continue
		}
		since := c.since // what was sent was made from what was there then
		if err := c.read(ctx); err != nil {
			return err
		}
		c.since = since
		if _, err := c.find(ctx, c.own); err != nil {
			return err
		}
		for _, p := range c.all {
			if err := c.reachSent(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}
