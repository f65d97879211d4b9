package commit

import (
	"context"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// askSealer asks how the values that wait are to be sent. It has failed where nothing is left to be sent.
func (c *commit) askSealer(ctx context.Context) error {
	if c.sealer != nil {
		return nil
	}
	var ask func(ctx context.Context, again bool) (Sealer, error)
	for _, p := range c.todo {
		if !p.HasValues() {
			continue
		}
		if ask = p.Sealer; ask == nil { // the room's own may know more, and serves all
			ask = c.room.Sealer
			break
		}
	}
	if ask == nil {
		return nil
	}
	var err error
	if c.sealer, err = ask(ctx, c.sealerAsked); err == nil {
		c.sealerAsked = true
	} else if c.own != "" || !c.failSealed(err) {
		return err
	}
	return nil
}

// seal replaces the plan's new values by references. What was sealed for an event that was not sent in the end is not sealed
// again. Once it was sent it is: others may have found that it does not count, and dropped it.
func (c *commit) seal(ctx context.Context, p *plan) error {
	var values []Value
	for _, value := range p.fresh {
		if _, ok := c.sealed[value]; !ok {
			values = append(values, value)
		}
	}
	if len(values) > 0 {
		references, err := c.sealer.Seal(ctx, values)
		if err != nil {
			return err
		}
		if c.sealed == nil {
			c.sealed = map[Value]string{}
		}
		for _, value := range values {
			c.sealed[value] = wire.Expiring(references[value.Name], value.Expires)
		}
	}
	for name, value := range p.fresh {
		p.names[name] = c.sealed[value]
	}
	return nil
}

// noteReplaced notes what the plan takes the place of, for [Room.Drop].
func (c *commit) noteReplaced(p *plan) {
	if !c.mode.Drop {
		return
	}
	if c.before == nil {
		c.before = map[string]bool{}
	}
	for _, stored := range p.names {
		c.before[stored] = true // others' writes can yet take its place
	}
	for _, stored := range p.replaced {
		c.before[stored] = true
	}
}

// drop gives up what was stored before and is not any more.
func (c *commit) drop(ctx context.Context) {
	if len(c.before) == 0 {
		return
	}
	c.dict.Look(func(h *merge.History) {
		for _, head := range h.Heads() {
			for _, stored := range head.Dict {
				delete(c.before, stored)
			}
		}
	})
	c.room.Drop(ctx, slices.Sorted(maps.Keys(c.before)))
}

// failSealed gives an error to the edits that have new values, and tells whether there are others.
func (c *commit) failSealed(err error) (others bool) {
	for _, p := range only(c.todo, (*pending).HasValues) {
		p.err, p.names = err, nil
	}
	c.todo = except(c.todo, (*pending).HasValues)
	return len(c.todo) > 0
}
