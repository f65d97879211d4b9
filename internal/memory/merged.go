package memory

import (
	"context"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
)

// mostListed is how much of the latest events is looked through for what nobody has merged, in bytes of names and values.
const mostListed = 8 << 20

// head is a current event.
type head struct {
	event id.EventID
	time  int64 // when it was sent, in Unix milliseconds
	names int   // about how many keys it has
}

// merged gives those of the current events, by state key, of which the room's latest events show that nobody has written beside them, or that they have
// merged whoever did. Each of the others takes requests of its own to tell.
func (r Room) merged(ctx context.Context, current map[string]head) (map[string]*merge.Event, error) {
	policy := commit.DefaultPolicy()
	window := (policy.OwnFresh + policy.Skew).Milliseconds() // before an event in which its rivals can have been sent
	newest := int64(0)
	for _, at := range current {
		newest = max(newest, at.time)
	}
	histories := map[string]*merge.History{}
	from, size := newest, 0 // since when all events are known
	for page, err := range r.Pages(ctx) {
		if err != nil {
			return nil, err
		}
		for _, evt := range page.Events {
			if _, ok := current[*evt.StateKey]; !ok {
				continue
			}
			h := histories[*evt.StateKey]
			if h == nil {
				h = new(merge.History)
				histories[*evt.StateKey] = h
			}
			h.AddOlder(r.Parsed(evt))
			size += len(evt.Content)
		}
		switch {
		case page.Next == "":
			from = 0
		case page.Oldest > 0:
			from = min(from, page.Oldest)
		}
		if from < newest-window || size > mostListed {
			break
		}
	}
	merged := map[string]*merge.Event{}
	for stateKey, h := range histories {
		at, heads := current[stateKey], h.Heads()
		if len(heads) == 1 && heads[0].ID == at.event && (from == 0 || at.time-window > from) {
			merged[stateKey] = heads[0]
		}
	}
	return merged, nil
}
