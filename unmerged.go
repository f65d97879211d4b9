package roomkv

import (
	"context"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

const (
	// unmerged is how long before a tombstone, at most, an event was sent whose writer has not merged what others wrote at the same
	// time, and now will not: nobody writes to the room any more. A writer who can goes on for no longer, as package commit has it.
	unmerged = 10 * time.Second

	// clocksDiffer is how far the clock of the tombstone's sender is believed to be ahead.
	clocksDiffer = 5 * time.Minute

	// listTries is how often a list is asked for that lacks what is current: Dendrite lists an event some milliseconds after it has
	// acknowledged it, and under load much later.
	listTries = 6
)

// merged is what the current events in a room with a tombstone say, by state key, together with what was acknowledged beside those that
// nobody has merged.
func (r roomState) merged(ctx context.Context, current map[string]*matrix.Event, stone *tombstone) (map[string]*replica.View, error) {
	views := map[string]*replica.View{}
	newest := int64(0)
	for stateKey, evt := range current {
		views[stateKey] = r.ViewOf(evt)
		newest = max(newest, evt.Time)
	}
	end := stone.time
	if newest < end && end-newest < clocksDiffer.Milliseconds() {
		end = newest
	}
	late := map[string]id.EventID{}
	for stateKey, evt := range current {
		if event := r.Parsed(evt); event.Marked && evt.Time >= end-unmerged.Milliseconds() {
			late[stateKey] = evt.ID
		}
	}
	forked, err := r.forked(ctx, late, end-2*unmerged.Milliseconds())
	if err != nil {
		return nil, err
	}
	for _, stateKey := range forked {
		apart, err := r.apart(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if view := apart.View(); view != nil && view.Err == nil {
			views[stateKey] = view
		}
	}
	return views, nil
}

// apart reads a dict of one name with all that nobody has merged, without what is known of it or waiting for who writes it.
func (r roomState) apart(ctx context.Context, stateKey string) (*replica.Dict, error) {
	dict := new(replica.Dict)
	reader := commit.NewWriter(dict, memory.Place{Room: r.Room, StateKey: stateKey}, commit.Mode{OneName: true, Doubt: true})
	return dict, reader.Do(ctx, commit.Edit{ReadOnly: true, Conditional: true, Afresh: true, Overwrites: true})
}

// forked are those of the state keys whose events since that time, in Unix milliseconds, do not all lead to the current one, or perhaps
// not: the list is asked for again while it lacks that.
func (r roomState) forked(ctx context.Context, current map[string]id.EventID, since int64) (forked []string, err error) {
	if len(current) == 0 {
		return nil, nil
	}
	pause := 10 * time.Millisecond
	for try := 1; ; try++ {
		listed, whole, err := r.since(ctx, current, since)
		if err != nil {
			return nil, err
		}
		forked = nil
		late := false
		for stateKey, event := range current {
			var history merge.History
			history.AddPage(listed[stateKey], history.Now())
			heads := history.Heads()
			if lacks := whole && !history.Has(event); lacks || len(heads) > 1 || len(heads) == 1 && heads[0].ID != event {
				forked = append(forked, stateKey)
				late = late || lacks
			}
		}
		if !late || try == listTries {
			return forked, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause *= 3
	}
}

// since lists the events of the state keys since that time, by state key and the newest first. They are whole where the list goes back so
// far.
func (r roomState) since(ctx context.Context, of map[string]id.EventID, time int64) (listed map[string][]merge.Event, whole bool, err error) {
	listed = map[string][]merge.Event{}
	for page, err := range r.Pages(ctx) {
		if err != nil {
			return nil, false, err
		}
		older := len(page.Events) > 0
		for _, evt := range page.Events {
			if stateKey := *evt.StateKey; of[stateKey] != "" {
				listed[stateKey] = append(listed[stateKey], r.Parsed(evt))
			}
			older = older && evt.Time < time
		}
		if page.Next == "" || older {
			return listed, true, nil
		}
	}
	return listed, false, nil
}
