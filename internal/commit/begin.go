package commit

import (
	"context"
	"slices"
	"time"

	"github.com/roomkv/roomkv/internal/merge"
)

// begin makes sure that something is known to begin with, as of a moment that is noted in since.
func (c *commit) begin(ctx context.Context) error {
	age, known := c.dict.Age()
	c.since = time.Now().Add(-age)
	doubt := c.afresh() || c.unsettled.Load()
	var err error
	switch {
	case !known && !c.afresh() && c.last.Load() != nil && c.Recent():
		err = c.recall(ctx)
	case !known, c.mode.Single && c.afresh():
		err = c.read(ctx)
	case c.mode.Single:
		c.certain = true
		return nil
	case doubt:
		if err = c.catchUp(ctx); err == nil && !c.certain {
			err = c.read(ctx)
		}
	case c.synced() && c.dict.View() != nil: // of what the sync has yet to bring, only an event that is sent tells
		c.since = time.Now().Add(-min(age, ownFresh))
	case age > anyFresh && !(c.lastIsOwn() && age < ownFresh):
		err = c.catchUp(ctx)
	}
	if err == nil {
		err = c.verify(ctx)
	}
	if err == nil && doubt {
		c.unsettled.Store(false)
	}
	return err
}

// recall looks for what this process has sent without having read anything, and for what was before and after that.
func (c *commit) recall(ctx context.Context) error {
	found, err := c.lookBefore(ctx, c.last.Load().event, 0)
	if err != nil {
		return err
	}
	if !found {
		return c.read(ctx)
	}
	c.since = c.looked
	c.dict.Checked(c.epoch, c.looked)
	return nil
}

// catchUp looks for what is newer than what is known. Where that is too much, what is current is read in its place: nobody knows what lies
// between, and two ends without it would pass for rivals.
func (c *commit) catchUp(ctx context.Context) error {
	if err := c.look(ctx, ""); err != nil {
		return err
	}
	if c.short && c.own == "" {
		c.dict.Forget()
		c.epoch = c.dict.Epoch()
		return c.read(ctx)
	}
	c.since = c.looked
	return nil
}

// afresh tells whether an edit asks for what is current.
func (c *commit) afresh() bool {
	return slices.ContainsFunc(c.all, func(p *pending) bool { return p.Afresh })
}

// readOnly tells whether no edit has anything to send.
func (c *commit) readOnly() bool {
	return !slices.ContainsFunc(c.all, func(p *pending) bool { return !p.ReadOnly })
}

// lastIsOwn tells whether nobody is known to have written after this writer.
func (c *commit) lastIsOwn() (own bool) {
	c.dict.Look(func(h *merge.History) {
		heads := h.Heads()
		own = len(heads) == 1 && heads[0].ID == c.latest
	})
	return own
}

// read asks what is current, and looks for what lies between that and what is known.
func (c *commit) read(ctx context.Context) error {
	began := time.Now()
	current, lost, err := c.current(ctx)
	if err != nil {
		return err
	}
	open := false
	c.dict.Do(func(h *merge.History) {
		if c.mode.Single {
			*h = merge.History{}
		}
		if current != nil {
			h.Add(*current)
		}
		open = len(h.Heads()) > 1
	})
	switch {
	case open:
		err = c.look(ctx, current.ID)
	case current == nil && (lost || c.mode.Doubt) && !c.mode.Single && (!c.mode.OneName || c.afresh()):
		// What is not there any more counts where it was left out of the state alone, because somebody's power was taken away.
		c.since = time.Time{}
		err = c.find(ctx, "")
	}
	if err != nil {
		return err
	}
	c.since = began
	if current == nil && c.mode.Doubt { // what is sent next has rivals that were left out of the state
		c.since = began.Add(-leftOut)
	}
	c.dict.Checked(c.epoch, c.looked)
	return nil
}

// leftOut is how long before a write the rivals of what begins from nothing are looked for that can have been left out of the state.
const leftOut = 10 * time.Second

// currentTries is how often it is asked what is current, where the sync brings something else meanwhile.
const currentTries = 4

// current asks what is current. Nothing that is known is left where the homeserver has nothing: it is lost then, where there was something.
// The sync can bring an event faster than an answer from before it, which is asked for again.
func (c *commit) current(ctx context.Context) (current *merge.Event, lost bool, err error) {
	for try := 1; ; try++ {
		changed := c.dict.Changed()
		c.looked = time.Now()
		if current, err = c.room.Current(ctx); err != nil {
			return nil, false, err
		}
		c.certain = true
		if current == nil {
			done, lost := c.dict.Gone(changed)
			if !done {
				continue
			}
			if lost {
				c.epoch++ // if others have made the dict be forgotten too, it is another one now
			}
			return nil, lost, nil
		}
		select {
		case <-changed:
			known := false
			c.dict.Look(func(h *merge.History) { known = h.Has(current.ID) })
			if !known && try < currentTries {
				continue
			}
		default:
		}
		return current, false, nil
	}
}

// remember reads again what the dict has forgotten, for then what the sync brings need not follow what was known.
func (c *commit) remember(ctx context.Context) error {
	for !c.mode.Single && c.epoch != c.dict.Epoch() {
		c.epoch = c.dict.Epoch()
		if c.own == "" {
			if err := c.begin(ctx); err != nil {
				return err
			}
			continue
		}
		since := c.since
		if err := c.read(ctx); err != nil {
			return err
		}
		c.since = since
		if err := c.find(ctx, c.own); err != nil {
			return err
		}
	}
	return nil
}

// resume makes sure that it is known whether an edit counts that was sent in an attempt before.
func (c *commit) resume(ctx context.Context, p *pending) error {
	for _, sent := range p.in {
		if err := c.reach(ctx, sent); err != nil {
			return err
		}
		known := false
		c.dict.Look(func(h *merge.History) { known = h.Has(sent) })
		if !known {
			return errUnseen
		}
		c.own = sent
	}
	return nil
}
