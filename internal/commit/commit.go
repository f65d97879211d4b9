package commit

import (
	"context"
	"errors"
	"maps"
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
	met          bool  // whether others were met
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
		if err := c.reachSent(ctx, p); err != nil {
			return err
		}
		if len(p.in) > 0 { // in an attempt before
			c.own = p.in[len(p.in)-1]
		}
	}
	for {
		if err := c.askSealer(ctx); err != nil {
			return err
		}
		plan := c.plan(ctx)
		switch {
		case plan.err != nil:
			return plan.err
		case plan.doubtful && !c.currentAsked:
			err := c.read(ctx)
			if err == nil {
				err = c.verify(ctx)
			}
			if err != nil {
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
			case c.room.TooLarge(err) && len(plan.event.Parents) > 1 && c.own != "" && c.refusedMerge == nil && !c.keepsSent():
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

// keepsSent tells whether what was sent is not given up where it does not fit beside what others wrote.
func (c *commit) keepsSent() bool {
	return slices.ContainsFunc(c.all, func(p *pending) bool { return p.Attempt != nil && !p.Attempt.GiveWay })
}

// replace sends what the edits make of a dict with one name, whatever is there: nothing is read before and nothing merged after it.
func (c *commit) replace(ctx context.Context) error {
	if err := c.askSealer(ctx); err != nil {
		return err
	}
	plan := c.planOn(ctx, merge.Merged{}, false)
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

// blind is a value that was sent without having read anything.
type blind struct {
	names map[string]string
	by    string
	event id.EventID
}

// sendBlind sends an event that replaces whatever is there. Where this process has sent the same names last, it sends that very content again:
// homeservers make no event of a content that is current. If one makes an event all the same, something else was current. The new event has
// the mark of the earlier one and passes for a late delivery of that, so that an event with a mark of its own follows. An event whose request
// was made more than once is not sent again so, for it can be a late delivery itself. A deletion always has a mark of its own.
func (c *commit) sendBlind(ctx context.Context, plan *plan) error {
	before := c.blind
	c.blind = nil
	if before != nil && len(plan.names) > 0 && *c.last.Load() == before.event && maps.Equal(before.names, plan.names) {
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
	sent, once, err := c.room.Send(ctx, content)
	c.maybeStored = c.maybeStored || err == nil || !c.room.NotSent(err)
	if err != nil {
		return false, err
	}
	c.failed = 0
	c.shadowed.Store(false)
	c.sendTime = min((3*c.sendTime+c.policy.since(began))/4, c.policy.MaxSendTime)
	c.sealed = nil
	c.own = sent
	c.last.Store(&sent)
	c.wrote.Store(c.policy.Now().UnixNano())
	plan.event.ID = sent
	if c.mode.Single { // who reads nothing back knows a late delivery by it
		if dict, err := wire.ParseDict(content); err == nil {
			plan.event.Mark = dict.ParentsText
		}
	}
	for _, p := range plan.applied {
		p.in, p.sent = append(p.in, sent), p.names
		if p.OnSent != nil {
			p.OnSent(sent)
		}
	}
	return once, nil
}

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
		c.met = c.met || !settled || len(lost) > 0
		c.contended = c.met
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
			c.todo = append(lost, c.next(c.all[0])...)
			c.callers.add(c.todo[len(lost):])
			c.all = append(c.all, c.todo[len(lost):]...)
			for _, p := range c.todo[len(lost):] {
				if err := c.reach(ctx, p.Since); err != nil {
					return false, err
				}
			}
			return false, nil
		}
		wait := time.Duration(float64(c.sendTime) * (1 + float64(before)/4) * float64(try) * (0.75 + fraction(c.random())/2))
		if err := c.awaitMerge(ctx, wait); err != nil {
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

// synced tells whether what is sent will come back by itself. In a handler of the sync it will not, whoever else waits
// for the same event.
func (c *commit) synced() bool {
	return !slices.ContainsFunc(c.all, func(p *pending) bool { return !c.room.Synced(p.ctx) })
}

// errUnseen is for a homeserver that acknowledges an event and then does not show it.
var errUnseen = errors.New("roomkv: the homeserver acknowledged a write but does not show it among the room's events, so that it is not known whether it stands")
