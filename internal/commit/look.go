package commit

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

const (
	// syncTimeout is how long a sync may take to bring what was sent before it is looked for.
	syncTimeout = 300 * time.Millisecond

	// seenTries is how often what was sent is looked for. Between two tries is a pause that doubles, from firstLag on:
	// Dendrite lists an event some milliseconds after it has acknowledged it.
	seenTries = 12
	firstLag  = 4 * time.Millisecond

	// rivalTries is seenTries for what was sent by anybody, which homeservers can also hide.
	rivalTries = 8

	// How many events a look back asks for: few at first, as the events of a large dict are large, more where others
	// are known to write, and most once it turns out that there are many.
	fewEvents  = 6
	someEvents = 20
	manyEvents = 50
	pageSize   = 512 << 10 // about as many bytes a response may have

	// unsettled is how long after an event, at most, its writer has found and merged its rivals. One that is older and
	// still current has none.
	unsettled = 10 * time.Second

	// skew is how far a homeserver's times may be out of the order in which it lists events.
	skew = 500 * time.Millisecond

	// deepFrom is the try from which on what was sent is looked for among older events too. Until then it is late.
	deepFrom = 5

	// farthest is how many pages a look back turns.
	farthest = 20
)

// look looks back until all is known that the homeserver has done up to the event, which it acknowledged, and what its
// writer had merged. Without an event it is all that the homeserver lists.
//
// A second sync would be simpler, but homeservers forget a device's to-device messages once one of its syncs has
// got them, and with them the keys that the bot's own sync is waiting for.
func (c *commit) look(ctx context.Context, event id.EventID) error {
	if c.synced() && event != "" {
		c.reached = math.MaxInt64
		if seen, err := c.bring(ctx, event); seen || err != nil {
			return err
		}
	} else if event != "" {
		if err := sleep(ctx, c.lag); err != nil {
			return err
		}
	}
	return c.find(ctx, event)
}

// find looks back until the homeserver lists the event. One that it has given as the current one it may never list: it hides what was sent
// before the user came.
func (c *commit) find(ctx context.Context, event id.EventID) error {
	pause := firstLag
	late := c.synced()
	defer func() { c.deep, c.late = false, false }()
	for try := range seenTries {
		c.deep, c.late = try >= deepFrom, try >= rivalTries
		seen, err := c.pages(ctx, event)
		if seen && late && event != "" {
			c.room.Behind(event)
		}
		if !seen && err == nil && c.deep {
			err = c.room.Refused(ctx, event)
		}
		if seen || err != nil {
			return err
		}
		c.lag = min(c.lag+firstLag, 5*firstLag)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
	return errUnseen
}

// bring waits for the sync to bring the event. That is not enough where the event was made from an unsettled one, whose
// rivals the sync does not bring any more.
func (c *commit) bring(ctx context.Context, event id.EventID) (seen bool, err error) {
	timeout := time.NewTimer(syncTimeout)
	defer timeout.Stop()
	for {
		changed := c.dict.Changed()
		if c.epoch != c.dict.Epoch() {
			return false, c.remember(ctx)
		}
		unlisted := false
		c.dict.Look(func(h *merge.History) {
			seen = h.Has(event) && len(h.Missing()) == 0
			unlisted = c.unlisted(h, event)
		})
		if seen {
			c.looked = time.Now()
			return !unlisted, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// pages reads events from the latest back to one that is known, and on until what is not known is older than what all
// have in common. It has not seen the event where the homeserver does not list it yet. Where it lists what this commit has sent, it reads
// on however far that is: others' changes since what this was made from, a minute ago at most, can be acknowledged.
func (c *commit) pages(ctx context.Context, event id.EventID) (seen bool, err error) {
	c.looked = time.Now()
	page := Page{}
	limit := c.limit()
	var events []merge.Event
	turned, oldest := 0, int64(0)
	met := false
	until := int64(math.MaxInt64) // how far it goes at least
	for ; !met && (turned < farthest || oldest > until); turned++ {
		if page, err = c.room.Recent(ctx, page.Next, limit); err != nil {
			return false, err
		}
		events = append(events, page.Events...)
		if i := slices.IndexFunc(page.Events, func(e merge.Event) bool { return e.ID == event && event == c.own }); i >= 0 {
			until = c.edge(page.Events[i].Time)
		}
		oldest = cmp.Or(page.Oldest, oldest)
		met = page.Next == "" || c.meets(events, event, oldest)
		limit = c.bounded(manyEvents)
	}
	c.short = !met
	if c.reached = cmp.Or(oldest, math.MaxInt64); page.Next == "" {
		c.reached = 0
	}
	open, all := false, false // whether there is more to look for, and whether all that was listed is known
	c.dict.Do(func(h *merge.History) {
		rest := h.AddPage(events)
		if i := slices.IndexFunc(rest, func(e merge.Event) bool { return e.ID == event }); i >= 0 {
			for _, e := range rest[:i+1] {
				h.AddOlder(e)
			}
			rest = rest[i+1:]
		}
		seen = event == "" || h.Listed(event) || (c.short || c.late) && h.Has(event)
		open = seen && (c.whole || c.floor > 0 || h.Open() || c.unlisted(h, event) || c.first(h, event))
		if all = open || len(rest) == 0; open {
			for _, e := range rest {
				h.AddOlder(e)
			}
			c.plumb(h)
			open = h.Open() || c.unlisted(h, event)
		}
	})
	for ; seen && open && page.Next != "" && (turned < farthest || c.reached > until); turned++ {
		if page, err = c.room.Recent(ctx, page.Next, limit); err != nil {
			return false, err
		}
		if c.reached = cmp.Or(page.Oldest, c.reached); page.Next == "" {
			c.reached = 0
		}
		c.dict.Do(func(h *merge.History) {
			for _, e := range page.Events {
				h.AddOlder(e)
			}
			c.plumb(h)
			open = h.Open() || c.unlisted(h, event)
		})
	}
	c.dict.Do(func(h *merge.History) {
		if seen && h.Open() && (c.short || c.late || !h.Unplumbed()) {
			h.GiveUp()
		}
		if root := h.Root("", false); seen && all && root > 0 && c.reached <= root-unsettled.Milliseconds() {
			h.Rooted()
		}
	})
	if seen {
		c.floor = 0
	}
	return seen, nil
}

// plumb notes of which events all is listed that their writers can have overlooked: what was sent since these last knew what is current.
func (c *commit) plumb(h *merge.History) {
	if c.reached < math.MaxInt64 {
		h.Plumb(c.reached + ownFresh.Milliseconds())
	}
}

// unlisted tells whether the event counts on something unsettled that can have rivals which are not known. Whoever sent
// that need not have looked for them yet.
func (c *commit) unlisted(h *merge.History, event id.EventID) bool {
	return c.all[0].Conditional && h.Unlisted(event, unsettled, c.mode.OneName) || c.first(h, event) && c.reached > h.Root(event, c.mode.OneName)-unsettled.Milliseconds()
}

// first tells whether the event counts on the first of its dict, which is unsettled. Rivals of that have nothing in common with it, so
// that all must be listed that was sent a while before it.
func (c *commit) first(h *merge.History, event id.EventID) bool {
	sent := time.Now().UnixMilli()
	if event != "" {
		sent = h.Time(event)
	}
	root := h.Root(event, c.mode.OneName)
	return c.all[0].Conditional && root > 0 && sent < root+unsettled.Milliseconds()
}

// reach looks back to an event, as far as that is not known and a look back goes. First it looks for what is newer than what is known: in
// the order of the history that comes last.
func (c *commit) reach(ctx context.Context, event id.EventID) error {
	known := event == ""
	find := func(h *merge.History) { known = known || h.Has(event) }
	if c.dict.Look(find); known {
		return nil
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	c.dict.Look(find)
	page := Page{}
	for turned := 0; turned < farthest && !known && (turned == 0 || page.Next != ""); turned++ {
		var err error
		if page, err = c.room.Recent(ctx, page.Next, c.bounded(manyEvents)); err != nil {
			return err
		}
		c.dict.Do(func(h *merge.History) {
			for _, e := range page.Events {
				h.AddOlder(e)
			}
			find(h)
		})
	}
	return nil
}

// meets tells whether the events reach back to what was known before: to an event that was, or to one that is older
// by more than clocks differ than what the commit began from. In the per-key layout the dict's last event can be far
// behind those of other keys. Synapse lists what took long to store behind what the sync has brought meanwhile: a deep
// look goes on until it has found the event, or is past the time when that was sent.
func (c *commit) meets(events []merge.Event, event id.EventID, oldest int64) (met bool) {
	if c.floor > 0 {
		return oldest > 0 && oldest < c.floor
	}
	i := slices.IndexFunc(events, func(e merge.Event) bool { return e.ID == event })
	c.dict.Look(func(h *merge.History) {
		met = slices.ContainsFunc(events, func(e merge.Event) bool { return e.ID != event && h.Had(e.ID) })
		met = met && (!c.deep || i >= 0 || h.Has(event))
	})
	switch {
	case met && !c.whole:
		return true
	case i < 0 && c.deep:
		i = 0 // what was sent can be no older than this by more
	}
	return i >= 0 && i < len(events) && oldest > 0 && oldest < c.edge(events[i].Time)
}

// edge is when what is older was there for certain as the commit began, of which an event was sent at that time.
func (c *commit) edge(sent int64) int64 { return sent - (time.Since(c.since) + skew).Milliseconds() }

// limit is how many events the first page asks for.
func (c *commit) limit() int {
	known := 0
	c.dict.Look(func(h *merge.History) { known = h.Len() })
	if known == 0 { // then the look back goes far, or the room is young
		return manyEvents
	}
	if c.busy || c.mode.OneName { // other names' events come in between
		return c.bounded(someEvents)
	}
	return c.bounded(fewEvents)
}

// bounded is limit, or less where the dict is large. Homeservers give each event with the content of the one before, and
// Synapse gives that twice.
func (c *commit) bounded(limit int) int {
	if c.floor > 0 { // most are other names'
		return manyEvents
	}
	size := 0
	c.dict.Look(func(h *merge.History) {
		for _, head := range h.Heads() {
			size = max(size, sizeOf(head.Dict))
		}
	})
	return max(3, min(limit, pageSize/(3*size+1)))
}
