package commit

import (
	"context"

	"github.com/roomkv/roomkv/internal/merge"
)

// do makes the edits, and sees to what is left to be done after that.
func (c *commit) do(ctx context.Context) error {
	if c.mode.OneName && !c.mode.Drop && !c.all[0].Conditional && !(c.synced() && c.dict.View() != nil) {
		return c.replace(ctx)
	}
	err := c.run(ctx)
	switch {
	case err == nil:
		c.drop(ctx)
	case c.maybeStored && !c.mode.Single:
		c.unsettled.Store(true)
		c.repairLater(ctx, c.policy.SettleAfter)
	}
	return err
}

// run sends events until the edits are in all heads.
func (c *commit) run(ctx context.Context) error {
	c.epoch = c.dict.Epoch()
	if err := c.begin(ctx); err != nil {
		return err
	}
	for _, p := range c.all {
		if err := c.reach(ctx, p.Since); err != nil {
			return err
		}
	}
	for {
		if err := c.askSealer(ctx); err != nil {
			return err
		}
		plan, err := c.plan(ctx)
		switch {
		case err != nil:
			return err
		case plan.doubtful && !c.currentAsked:
			if err := c.read(ctx); err != nil {
				return err
			}
			if err := c.verify(ctx); err != nil {
				return err
			}
			continue
		case c.own == "" && c.readOnly() && c.afresh(): // who reads what counts for certain must choose between rivals as their writers do
			return c.decide(ctx, func(*merge.History) {})
		case c.own == "" && (!plan.write || c.readOnly()):
			return nil
		case c.learn(ctx, &plan):
			continue
		case plan.write:
			_, err := c.send(ctx, &plan)
			switch {
			case c.split(err):
				if len(c.all) == 0 {
					return nil
				}
				continue
			case c.room.TooLarge(err) && len(plan.event.Parents) > 1 && c.own != "" && c.refusedMerge == nil:
				c.refusedMerge, c.currentAsked = err, true
				continue
			case err != nil && c.mode.Single:
				c.dict.Forget() // the homeserver can have it all the same
				return err
			case err != nil:
				return err
			case c.mode.Single:
				c.dict.Do(func(h *merge.History) { h.Add(plan.event) })
				c.dict.Checked(c.epoch, c.askedAt)
				return nil
			}
		}
		if done, err := c.settle(ctx); done || err != nil {
			return err
		}
	}
}

// learn has what the plan's values replace read once, where it can be the same and nothing else is to be sent. A write counts for more than a
// read: homeservers ration writes, and each is an event for ever. Without a sync it would take more requests than it saves.
func (c *commit) learn(ctx context.Context, p *plan) bool {
	if c.learned || c.own != "" || len(p.maybe) == 0 || !c.synced() {
		return false
	}
	c.learned = true
	return c.sealer.Learn(ctx, p.maybe)
}

// split is for an event that the homeserver refused for what an edit has brought into it. It puts the edits that were not sent
// before back into the queue, in two halves that share no event, and tells whether it did: not for a single edit, which is the
// reason itself. Where the homeserver can have stored the event all the same, an edit that depends on what is there would be made twice.
// One that fails over everything is down, and not asked for each edit.
func (c *commit) split(err error) bool {
	refused, sure := c.room.RefusesContent(err)
	sent := func(p *pending) bool { return len(p.in) > 0 }
	fresh := except(c.all, sent)
	if !refused || len(fresh) == 0 || c.own == "" && len(fresh) == 1 || !sure && (c.own != "" || fresh[0].Conditional) {
		return false
	}
	if !sure {
		if c.failed++; c.failed > c.policy.MaxFailed {
			return false
		}
		c.unsettled.Store(true)
	}
	c.all, c.todo = only(c.all, sent), only(c.todo, sent)
	c.divide(fresh)
	return true
}
