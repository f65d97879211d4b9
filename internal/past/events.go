package past

import (
	"cmp"
	"context"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// Events reads back through the room's events of the store's type. Begin it with [Events.Begin], and go on with [Events.Turn].
type Events struct {
	memory.Room
	Ended bool // there is nothing older, or the homeserver does not have it
	Whole bool // there is nothing older

	from  string
	limit int
	been  map[string]bool     // where pages began
	given map[id.EventID]bool // the events of the last page
	early []id.EventID        // events that came before their turn
}

// How many events a page asks for at first, and at most.
const (
	firstPage = 20
	maxPage   = 100
	pageBytes = 512 << 10 // about as many bytes a page may have
)

// Begin gives the latest events, the newest first. What is current and was sent after them all is one of them: Dendrite lists
// an event some milliseconds after it has acknowledged it.
func (p *Events) Begin(ctx context.Context, current ...*matrix.Event) (events []*matrix.Event, err error) {
	for pause := p.Policy.ListLag; ; pause *= 2 {
		p.from, p.limit, p.Ended, p.Whole = "", firstPage, false, false
		p.been, p.given = map[string]bool{}, map[id.EventID]bool{}
		events = nil
		for len(events) == 0 && !p.Ended {
			if events, err = p.Turn(ctx); err != nil {
				return nil, err
			}
		}
		late := slices.DeleteFunc(slices.Clone(current), func(evt *matrix.Event) bool {
			return p.given[evt.ID] || len(events) > 0 && evt.Time <= events[0].Time
		})
		if pause > p.Policy.ListLag { // mostly it is listed by now, and nobody has to be asked
			if late, err = p.unlisted(ctx, late, events); err != nil {
				return nil, err
			}
			current = late
		}
		if len(late) == 0 {
			return events, nil
		}
		if pause > 200*time.Millisecond {
			slices.SortFunc(late, func(a, b *matrix.Event) int { return cmp.Compare(b.Time, a.Time) })
			for _, evt := range late {
				evt.Listed = true
				p.early = append(p.early, evt.ID)
			}
			return slices.Concat(late, events), nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unlisted leaves those of the late events that the homeserver has not stored before the latest one that it lists. The others are
// on a later page: the clock of the homeserver that sent them is ahead.
func (p *Events) unlisted(ctx context.Context, late, events []*matrix.Event) ([]*matrix.Event, error) {
	if len(late) == 0 || len(events) == 0 {
		return late, nil
	}
	latest, known, err := p.Stored(ctx, events[0].ID)
	if err != nil || !known {
		return late, err
	}
	var unlisted []*matrix.Event
	for _, evt := range late {
		at, known, err := p.Stored(ctx, evt.ID)
		if err != nil {
			return nil, err
		}
		if !known || at > latest {
			unlisted = append(unlisted, evt)
		}
	}
	return unlisted, nil
}

// Turn gives the next page. It can be empty and not the last.
func (p *Events) Turn(ctx context.Context) ([]*matrix.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	page, err := p.Page(ctx, p.from, p.limit)
	if err != nil {
		return nil, err
	}
	p.been[matrix.Token(p.from)] = true
	p.from, p.Ended, p.Whole = matrix.LetGo(page.Next), p.been[matrix.Token(page.Next)], page.First
	events := slices.DeleteFunc(page.Events, func(evt *matrix.Event) bool { return p.given[evt.ID] || slices.Contains(p.early, evt.ID) })
	clear(p.given)
	size := 0
	for _, evt := range events {
		p.given[evt.ID] = true
		size += len(evt.Content) + len(evt.Unsigned.Before)
	}
	p.limit = maxPage
	if size > 0 {
		p.limit = max(3, min(maxPage, pageBytes*len(events)/size))
	}
	return events, nil
}
