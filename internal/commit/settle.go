package commit

import (
	"context"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// settle waits until all heads have merged what was sent, or until it is this commit's turn to merge: then todo has
// the edits that must be made again with it, and it is not done.
//
// The author of the first head merges at once, and the others wait the longer the more heads come before theirs. Had
// each merged at once, they would only have made more heads. So they would if the author of the last did: there is
// always a later one.
func (c *commit) settle(ctx context.Context) (done bool, err error) {
	if c.contended && !c.synced() {
		if err := c.policy.sleep(ctx, time.Duration(float64(c.sendTime)*fraction(c.random())/2)); err != nil {
			return false, err
		}
	}
	if err := c.look(ctx, c.own); err != nil {
		return false, err
	}
	if c.fromNothing {
		if err := c.judgeOlder(ctx); err != nil {
			return false, err
		}
		c.fromNothing = false
	}
	for try := 1; ; try++ {
		var lost, counted []*pending
		var before int
		var settled bool
		if err := c.decide(ctx, func(h *merge.History) {
			before, settled = c.ahead(h)
			lost = only(c.all, func(p *pending) bool { return !tookEffect(h, p, p.names) })
			// What was sent counts, though the edit failed when it was made again in vain.
			counted = only(c.all, func(p *pending) bool { return p.Conditional && len(p.sent) > 0 && tookEffect(h, p, p.sent) })
		}); err != nil {
			return false, err
		}
		c.metOthers = c.metOthers || !settled || len(lost) > 0
		c.contended = c.metOthers
		if settled && len(lost) == 0 {
			for _, p := range counted {
				if !c.room.TooLarge(p.err) {
					p.err = nil
				}
			}
			c.dict.Checked(c.epoch, c.askedAt)
			return true, nil
		}
		if settled || before == 0 || try > c.policy.Patience {
			c.currentAsked = true
			joined := c.next(c.all[0])
			c.callers.add(joined)
			// What changed nothing, or failed, can come out otherwise on what there is by now.
			idle := only(c.all, func(p *pending) bool { return len(p.names) == 0 && !slices.Contains(lost, p) })
			c.all, c.todo = append(c.all, joined...), slices.Concat(lost, idle, joined)
			for _, p := range joined {
				if err := c.reach(ctx, p.Since); err != nil {
					return false, err
				}
			}
			return false, nil
		}
		wait := time.Duration(float64(c.sendTime) * (1 + float64(before)/4) * float64(try) * (0.75 + fraction(c.random())/2))
		if err := c.awaitMerge(ctx, min(wait, c.policy.MaxWait)); err != nil {
			return false, err
		}
	}
}

// tookEffect tells whether an edit's changes of the names count, or will once the heads are merged.
func tookEffect(h *merge.History, p *pending, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !counts(h, p, name) })
}

// ahead tells how many heads came before the one that descends from what was sent, and whether all do.
func (c *commit) ahead(h *merge.History) (before int, settled bool) {
	heads := h.Heads()
	before = slices.IndexFunc(heads, func(head *merge.Event) bool { return h.Descends(head.ID, c.own) })
	settled = !slices.ContainsFunc(heads, func(head *merge.Event) bool { return !h.Descends(head.ID, c.own) })
	return before, settled
}

// decide lets f read the history when that is whole, and when it is known where the homeserver has stored events that
// exclude one another. Each writer must come to the same conclusion, and neither the order of lists nor that of the
// sync is the same for all. A sync that has skipped events makes the dict be forgotten at any moment, and can then
// bring events long before those that have been read since. F can be called again; the last call counts.
func (c *commit) decide(ctx context.Context, f func(h *merge.History)) error {
	for try := 1; ; {
		if err := c.reread(ctx); err != nil {
			return err
		}
		var missing, unplaced []id.EventID
		c.dict.Look(func(h *merge.History) {
			if missing = h.Missing(); len(missing) > 0 {
				return
			}
			unplaced = h.Unplaced(c.own)
			if c.all[0].Conditional {
				unplaced = append(unplaced, h.Unordered()...)
			}
			if len(unplaced) == 0 {
				f(h)
			}
		})
		if len(missing) > 0 {
			_, err := c.scan(ctx, lookback{try: try})
			if err == nil && try > 1 {
				err = c.pause(ctx, try-2)
			}
			if err != nil {
				return err
			}
			try++
			continue
		}
		if len(unplaced) == 0 && (c.mode.Single || c.epoch == c.dict.Epoch()) {
			return nil
		}
		for _, event := range unplaced {
			place, known, err := c.room.Stored(ctx, event)
			if err != nil {
				return err
			}
			c.dict.Do(func(h *merge.History) { h.Place(event, place, known) })
		}
	}
}

// counts tells whether an edit's change of a name will count once the heads are merged.
func counts(h *merge.History, p *pending, name string) bool {
	if !p.Conditional {
		last := p.in[len(p.in)-1]
		return !h.ParentGivenUp(last) && !h.LosesToOlder(last, name)
	}
	return slices.ContainsFunc(p.in, func(event id.EventID) bool { return h.WillCount(event, name) })
}

// awaitMerge waits, but no longer than until it is this commit's turn, or done, and looks what there is.
func (c *commit) awaitMerge(ctx context.Context, wait time.Duration) error {
	if !c.synced() {
		if err := c.policy.sleep(ctx, wait); err != nil {
			return err
		}
		return c.look(ctx, c.own)
	}
	timeout := c.policy.After(wait)
	for {
		changed := c.dict.Changed()
		var before int
		var settled bool
		c.dict.Look(func(h *merge.History) { before, settled = c.ahead(h) })
		if settled || before == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-timeout:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
