package roomkv

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/replica"
)

const (
	// unmerged is how long before a tombstone, at most, an event was sent whose writer has not merged what others wrote at the same
	// time, and now will not: nobody writes to the room any more. A writer who can goes on for no longer, as package commit has it.
	unmerged = 10 * time.Second

	// listTries is how often a list is asked for that lacks what is current: Dendrite lists an event some milliseconds after it has
	// acknowledged it, and under load much later.
	listTries = 6
)

// merged is what the current events in a room with a tombstone say, by state key, together with what was acknowledged beside those that
// nobody has merged.
func (r roomState) merged(ctx context.Context, current map[string]*stateEvent, stone *tombstone) (map[string]*replica.View, error) {
	views := map[string]*replica.View{}
	newest := int64(0)
	for stateKey, evt := range current {
		views[stateKey] = r.viewOf(evt, stateKey)
		newest = max(newest, evt.Time)
	}
	since := min(newest, stone.time) - unmerged.Milliseconds() // the tombstone's sender can have a clock that is ahead
	late := map[string]id.EventID{}
	for stateKey, evt := range current {
		if event := (place{r, stateKey}).snapshot(evt); event.Marked && evt.Time >= since {
			late[stateKey] = evt.ID
		}
	}
	doubtful, err := r.rivalled(ctx, late, since-unmerged.Milliseconds())
	if err != nil {
		return nil, err
	}
	for _, stateKey := range doubtful {
		view, err := r.afresh(ctx, stateKey)
		switch {
		case errors.Is(err, ErrCorrupt): // the other keys are moved all the same
		case err != nil:
			return nil, err
		default:
			views[stateKey] = view
		}
	}
	return views, nil
}

// rivalled are those of the state keys that have another event since that time, in Unix milliseconds, than the current one, or can have.
func (r roomState) rivalled(ctx context.Context, current map[string]id.EventID, since int64) ([]string, error) {
	if len(current) == 0 {
		return nil, nil
	}
	listed, others, whole := map[string]bool{}, map[string]bool{}, false
	pause := 10 * time.Millisecond
	for try := 1; ; try++ {
		from := ""
		for range watchPages {
			page, err := r.page(ctx, from, watchPage)
			if err != nil {
				return nil, err
			}
			older := len(page.events) > 0
			for _, evt := range page.events {
				listed[*evt.StateKey] = listed[*evt.StateKey] || evt.ID == current[*evt.StateKey]
				others[*evt.StateKey] = others[*evt.StateKey] || evt.ID != current[*evt.StateKey] && evt.Time >= since
				older = older && evt.Time < since
			}
			if from = page.next; from == "" || older {
				whole = true
				break
			}
		}
		var doubtful []string
		late := false
		for stateKey := range current {
			late = late || !listed[stateKey]
			if !whole || others[stateKey] || !listed[stateKey] {
				doubtful = append(doubtful, stateKey)
			}
		}
		if !late || !whole || try == listTries {
			return doubtful, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause *= 3
	}
}
