package commit

import (
	"context"
	"maps"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// replace sends what the edits make of a dict with one name, whatever is there: nothing is read before and nothing merged after it.
func (c *commit) replace(ctx context.Context) error {
	if err := c.askSealer(ctx); err != nil {
		return err
	}
	plan := c.planOn(ctx, merge.Merged{}, nil, false)
	if !plan.write {
		return nil
	}
	if err := c.seal(ctx, &plan); err != nil {
		return err
	}
	err := c.sendBlind(ctx, &plan)
	if c.split(err) {
		return nil
	}
	c.dict.Forget()
	if err == nil && c.mode.Single {
		epoch := c.dict.Epoch()
		c.dict.Do(func(h *merge.History) { h.Add(plan.event) })
		c.dict.Checked(epoch, c.policy.Now())
	}
	return err
}

// sendBlind sends an event that replaces whatever is there. Where this process has sent the same names last, it sends that very content again:
// homeservers make no event of a content that is current. If one makes an event all the same, something else was current. The new event has
// the mark of the earlier one and passes for a late delivery of that, so that an event with a mark of its own follows. An event whose request
// was made more than once is not sent again so, for it can be a late delivery itself. A deletion always has a mark of its own.
func (c *commit) sendBlind(ctx context.Context, plan *plan) error {
	before := c.blind
	c.blind = nil
	if before != nil && len(plan.names) > 0 && c.last.Load().event == before.event && maps.Equal(before.names, plan.names) {
		plan.parents = &wire.Parents{By: before.by}
		if _, err := c.send(ctx, plan); err != nil {
			return err
		}
		if c.own == before.event {
			c.blind = before
			return nil
		}
	}
	plan.parents = &wire.Parents{By: nonce(c.random())}
	once, err := c.send(ctx, plan)
	if err == nil && once {
		c.blind = &blind{plan.names, plan.parents.By, c.own}
	}
	return err
}
