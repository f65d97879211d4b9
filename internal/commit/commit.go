package commit

import (
	"context"
	"errors"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// commit is a batch of edits on its way.
type commit struct {
	*Writer
	callers *callers
	all     []*pending
	todo    []*pending // those that the next event is to hold
	own     id.EventID // the last event that the commit sent
	epoch   int        // of the dict, when what is known of it was last whole
	since   time.Time  // the commit began from all there was at that moment; see rivalsSince
	askedAt time.Time  // when the homeserver was last asked for what there is

	currentAsked bool  // whether it was asked what is current after the commit began
	fromNothing  bool  // whether nothing was current when the commit began, and it is not known what the homeserver had left out of the state
	metOthers    bool  // whether it has found that others wrote at the same time
	maybeStored  bool  // whether the homeserver can have stored something of this commit
	refusedMerge error // of a homeserver that refuses the merge with what was sent for its size

	sealerAsked bool             // whether it is known how values are sent
	sealer      Sealer           // nil where they are part of the dict
	sealed      map[Value]string // what was sealed, with the reference to it
	before      map[string]bool  // what was stored before, or by this commit
}

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

// failSealed gives an error to the edits that have new values, and tells whether there are others.
func (c *commit) failSealed(err error) (others bool) {
	hasValues := func(p *pending) bool { return len(p.Values) > 0 }
	for _, p := range only(c.todo, hasValues) {
		p.err, p.names = err, nil
	}
	c.todo = except(c.todo, hasValues)
	return len(c.todo) > 0
}

// only is a copy of those for which it is true, except one of the others.
func only[T any](all []T, f func(T) bool) []T {
	return except(all, func(one T) bool { return !f(one) })
}

func except[T any](all []T, f func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), f)
}

// send sends the planned event. Once is that of [Room.Send].
func (c *commit) send(ctx context.Context, plan *plan) (once bool, err error) {
	if err := c.seal(ctx, plan); err != nil {
		return false, err
	}
	c.noteReplaced(plan)
	began := c.policy.Now()
	content := plan.content()
	event, once, err := c.room.Send(ctx, content)
	c.maybeStored = c.maybeStored || err == nil || !c.room.NotSent(err)
	if err != nil {
		return false, err
	}
	c.failed = 0
	c.shadowed.Store(false)
	c.sendTime = min((3*c.sendTime+c.policy.since(began))/4, c.policy.MaxSendTime)
	c.sealed = nil
	c.own = event
	c.last.Store(&sent{event, c.policy.Now()})
	plan.event.ID = event
	if c.mode.Single { // who reads nothing back knows a late delivery by it
		if dict, err := wire.ParseDict(content); err == nil {
			plan.event.Mark = dict.ParentsText
		}
	}
	for _, p := range plan.applied {
		p.in, p.sent = append(p.in, event), p.names
		if p.OnSent != nil {
			p.OnSent(event)
		}
	}
	return once, nil
}

// synced tells whether what is sent will come back by itself. In a handler of the sync it will not, whoever else waits
// for the same event.
func (c *commit) synced() bool {
	return !slices.ContainsFunc(c.all, func(p *pending) bool { return !c.room.Synced(p.ctx) })
}

// errUnseen is for a homeserver that acknowledges an event and then does not show it.
var errUnseen = errors.New("roomkv: the homeserver acknowledged a write but does not show it among the room's events, so that it is not known whether it stands")
