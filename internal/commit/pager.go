package commit

import (
	"context"
	"math"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// pager reads the room's events, the latest first, a page at a time.
type pager struct {
	*commit
	Page                 // the last one
	events []merge.Event // of all pages
	asked  int           // how far the history had got before the first one
	count  int           // how many there were
	limit  int           // how many events the next one has at most
	until  int64         // it goes that far at least, in Unix milliseconds, whatever [Policy.Pages] says
	err    error
}

func (c *commit) pager(limit int) *pager {
	c.askedAt = c.policy.Now()
	return &pager{commit: c, asked: replica.Read(c.dict, (*merge.History).Now), limit: limit, until: math.MaxInt64}
}

// next reads another page, as far as there is one. Others can go on talking for ever, but not write.
func (p *pager) next(ctx context.Context) bool {
	if p.count > 0 && p.Next == "" || p.count >= p.policy.Pages && p.Oldest <= p.until {
		return false
	}
	p.Page, p.err = p.room.Recent(ctx, p.Next, p.limit)
	p.events = append(p.events, p.Events...)
	p.count, p.limit = p.count+1, p.bounded(min(8*p.limit, p.policy.ManyEvents))
	return p.err == nil
}

// index finds an event in a page, and is negative where it is not there.
func index(events []merge.Event, event id.EventID) int {
	return slices.IndexFunc(events, func(e merge.Event) bool { return e.ID == event })
}

// firstPage is how many events a look back asks for first: those that are known of the time that it goes back over, which can have rivals, and some
// more. Where nobody else says anything, what was sent of late is enough; see [line.covers].
func (c *commit) firstPage() int {
	known, late, since, own := 0, 0, 0, c.line.since(c.since.Add(-c.policy.Skew))
	c.dict.Look(func(h *merge.History) {
		known, late = h.Len(), h.Since(2*c.policy.Skew)
		// The sum overflows where the commit does not know since when: late counts then.
		since = min(max(late, h.Since(c.age()+2*c.policy.Skew)), c.policy.AllEvents)
	})
	switch {
	case c.fromNothing && !c.mode.OneName:
		return c.policy.AllEvents
	case own > 0 && !c.contended:
		return min(own, c.bounded(own))
	case known == late, c.mode.OneName: // the dict is young, or other names' events come in between
		return c.bounded(c.policy.ManyEvents)
	case c.contended:
		return c.bounded(since + c.policy.SomeEvents)
	default:
		return c.bounded(since + c.policy.FewEvents)
	}
}

// bounded is limit, or less where the dict is large. Homeservers give each event with the content of the one before, and
// Synapse gives that twice.
func (c *commit) bounded(limit int) int {
	size := 0
	c.dict.Look(func(h *merge.History) {
		for _, head := range h.Heads() {
			size = max(size, sizeOf(head.Dict))
		}
	})
	return max(3, min(limit, c.policy.PageBytes/(3*size+1)))
}
