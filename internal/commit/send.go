package commit

import (
	"context"

	"github.com/roomkv/roomkv/internal/meter"
	"github.com/roomkv/roomkv/internal/wire"
)

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
	if len(plan.event.Parents) > 1 {
		c.mode.Meter.Add(meter.Counts{Merges: 1})
		meter.Count(ctx, meter.Counts{Merges: 1})
	}
	c.failed = 0
	c.shadowed.Store(false)
	c.sendTime = min((3*c.sendTime+c.policy.since(began))/4, c.policy.MaxSendTime)
	c.sealed = nil
	c.own = event
	c.last.Store(&sent{event, c.policy.Now()})
	c.line.add(*c.last.Load(), once && len(plan.applied) > 0)
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
