package commit

import (
	"context"
	"slices"
	"time"

	"github.com/roomkv/roomkv/internal/merge"
)

// begin makes sure that something is known to begin with.
func (c *commit) begin(ctx context.Context) error {
	age, known := c.dict.Age()
	c.since = time.Now().Add(-age)
	switch {
	case c.afresh(), !known && (c.synced() || c.mode.Doubt) && !c.mode.OneName: // the events of one name can be far apart
		// What is current may lack what a writer that has died should have merged, and the sync will not bring that
		// again.
		return c.readBack(ctx, true)
	case !known:
		return c.read(ctx)
	case c.mode.Single:
		c.certain = true
	case c.synced() && c.dict.View() != nil: // of what the sync has yet to bring, only an event that is sent tells
		c.since = time.Now().Add(-min(age, ownFresh))
	case age > anyFresh && !(c.lastIsOwn() && age < ownFresh):
		if err := c.catchUp(ctx); err != nil {
			return err
		}
		c.since = c.looked
	}
	return nil
}

// catchUp looks for what is newer than what is known. Where that is too much, what is current is read in its place: nobody knows what lies
// between, and two ends without it would pass for rivals.
func (c *commit) catchUp(ctx context.Context) error {
	if err := c.look(ctx, ""); err != nil || !c.short || c.own != "" {
		return err
	}
	c.dict.Forget()
	c.epoch = c.dict.Epoch()
	return c.read(ctx)
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
		own = len(heads) == 1 && heads[0].ID == c.last
	})
	return own
}

// read asks what is current.
func (c *commit) read(ctx context.Context) error { return c.readBack(ctx, false) }

// readBack is read, and with back it looks at what came before too.
func (c *commit) readBack(ctx context.Context, back bool) error {
	current, lost, err := c.current(ctx)
	if err != nil {
		return err
	}
	single := c.mode.Single
	open := false
	if lost { // nobody's memory of that counts, but for what was left out of the state alone, when somebody's power was taken away
		back = back || !single && !c.mode.OneName
	}
	c.dict.Do(func(h *merge.History) {
		if single {
			*h = merge.History{}
		}
		if current != nil {
			h.Add(*current)
			if back && c.readOnly() && c.mode.OneName && current.Marked && h.Len() == 1 { // other names' events come between it and its rivals
				c.floor = current.Time - unsettled.Milliseconds()
			}
		}
		open = len(h.Heads()) > 1
	})
	if open && !back && current != nil {
		return c.look(ctx, current.ID)
	}
	if back {
		if err := c.rivals(ctx, current); err != nil {
			return err
		}
	}
	c.dict.Checked(c.epoch, c.looked)
	return nil
}

// current asks what is current. Nothing that is known is left where the homeserver has nothing: it is lost then, where there was something.
// The sync can bring the first event faster than an answer from before it, which is asked for again.
func (c *commit) current(ctx context.Context) (current *merge.Event, lost bool, err error) {
	for done := false; !done; {
		changed, began := c.dict.Changed(), time.Now()
		if current, err = c.room.Current(ctx); err != nil {
			return nil, false, err
		}
		c.certain, c.since, c.looked = true, began, began
		if current != nil {
			return current, false, nil
		}
		done, lost = c.dict.Gone(changed)
	}
	if lost {
		c.epoch++ // if others have made the dict be forgotten too, it is another one now
	}
	return nil, lost, nil
}

// rivals looks back for what was sent before the current event. Where that reaches beyond what is known it asks again, some times, until
// the homeserver lists that event: what was sent before it need not be listed any sooner.
func (c *commit) rivals(ctx context.Context, current *merge.Event) error {
	floor := c.floor
	pause := firstLag
	for try := 1; ; try++ {
		c.floor, c.late = floor, try == rivalTries
		_, err := c.pages(ctx, "")
		last := c.late
		if c.late = false; err != nil {
			return err
		}
		listed := current == nil || c.short
		c.dict.Look(func(h *merge.History) { listed = listed || h.Listed(current.ID) })
		if listed || last {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}
