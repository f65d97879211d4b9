package memory

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// DictRoom is where one dict is: a state key in a room. It implements [commit.Room].
type DictRoom struct {
	Room
	StateKey string
}

// Current implements [commit.Room].
func (p DictRoom) Current(ctx context.Context) (*merge.Event, error) {
	evt, err := p.Get(ctx, p.StateKey)
	if err != nil || evt == nil {
		return nil, err
	}
	current := p.parsed(evt)
	return &current, nil
}

// Recent implements [commit.Room]. The filter is by type, and what other state keys have is left out here, for Matrix
// has no filter by state key. So is what a homeserver sends in spite of the filter: Dendrite does so with events that
// it has over federation.
func (p DictRoom) Recent(ctx context.Context, from string, limit int) (commit.Page, error) {
	listed, err := p.Page(ctx, from, limit)
	page := commit.Page{Next: listed.Next, Oldest: listed.Oldest}
	for _, evt := range listed.Events {
		if *evt.StateKey == p.StateKey {
			page.Events = append(page.Events, p.parsed(evt))
		}
	}
	if n := len(page.Events); n > 0 && page.Events[n-1].ID == listed.Events[len(listed.Events)-1].ID {
		page.Depth = listed.Depth
	}
	return page, err
}

// Before implements [commit.Room].
func (p DictRoom) Before(ctx context.Context, event id.EventID, limit int) (commit.Page, error) {
	around, err := p.Around(ctx, event)
	if err != nil || around.Start == "" {
		return commit.Page{}, err
	}
	return p.Recent(ctx, around.Start, limit)
}

// latestEvents is how many of the room's latest events are looked at for what is not in the state. Dendrite counts those of any type.
const latestEvents = 500

// Latest implements [commit.Room].
func (p DictRoom) Latest(ctx context.Context) (events []merge.Event, err error) {
	page, err := p.Room.Room.Latest(ctx, p.Type, latestEvents)
	if err != nil {
		return nil, err
	}
	p.learn(page)
	for _, evt := range page.Events {
		if *evt.StateKey == p.StateKey {
			events = append(events, p.parsed(evt))
		}
	}
	return events, nil
}

// Stored implements [commit.Room].
func (p DictRoom) Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error) {
	return p.Room.Room.Stored(ctx, event)
}

// Powerless implements [commit.Room].
func (p DictRoom) Powerless(ctx context.Context, user id.UserID) (since int64, err error) {
	return p.Room.Room.Powerless(ctx, p.Type, user)
}

// Hold implements [commit.Room]: whoever else writes is merged with.
func (DictRoom) Hold(context.Context) (release func(), err error) { return func() {}, nil }

// Send implements [commit.Room].
func (p DictRoom) Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error) {
	sent, once, err = p.PutState(ctx, p.Type, p.StateKey, content)
	if err != nil {
		return sent, once, err
	}
	if !p.Layout.Alone() {
		p.warnWhereFull(ctx, len(content))
	}
	if !p.Layout.Together("") { // else nothing is listed
		commit.ThisProcess.Written.Add(p.Address(p.StateKey), sent)
	}
	return sent, once, nil
}

// warnAt is how full a dict may be, of 100, before the log tells.
const warnAt = 80

// warnWhereFull has the log tell that a dict is nearly full, once until it is no more.
func (p DictRoom) warnWhereFull(ctx context.Context, size int) {
	if size*100 < warnAt*wire.MaxEvent {
		p.full.Delete(p.Address(p.StateKey))
		return
	}
	if _, told := p.full.LoadOrStore(p.Address(p.StateKey), true); !told {
		p.Log(ctx).Warn().Stringer("room_id", p.ID).Str("state_key", p.StateKey).Int("bytes", size).Int("of", wire.MaxEvent).
			Msg("The memory is nearly full: delete keys, or Copy it to a store WithShards or WithPerKeyState")
	}
}

// Fits implements [commit.Room]. Above its limit, signatures and references to other events take some 700 bytes more,
// and the homeserver decides.
func (p DictRoom) Fits(size int) error { return p.Room.Room.Fits(p.StateKey, size) }

// TooLarge implements [commit.Room].
func (p DictRoom) TooLarge(err error) bool { return errors.Is(err, fault.ErrTooLarge) }

// NotSent implements [commit.Room].
func (p DictRoom) NotSent(err error) bool { return matrix.Refused(err) }

// RefusesContent implements [commit.Room].
func (DictRoom) RefusesContent(err error) (refused, sure bool) { return matrix.RefusesContent(err) }

// Synced implements [commit.Room].
func (p DictRoom) Synced(ctx context.Context) bool { return p.Follower.Feeds(ctx, p.ID) }

// Refused implements [commit.Room].
func (p DictRoom) Refused(ctx context.Context, event id.EventID) error {
	if current, err := p.Get(ctx, p.StateKey); err != nil || current != nil && current.ID == event {
		return err
	}
	if need, have, known := p.Levels(ctx, p.Type); known && have < need {
		return p.NoPower("write state "+strconv.Quote(p.StateKey), p.Type, need, have, fault.ErrRefused)
	}
	return nil
}

// Behind implements [commit.Room].
func (p DictRoom) Behind(event id.EventID) { p.Follower.Behind(p.ID, event) }

// parsed reads an event of the dict.
func (p DictRoom) parsed(evt *matrix.Event) merge.Event {
	dict, err := p.Layout.Parse(p.StateKey, evt.Content)
	read := merge.Event{ID: evt.ID, Sender: evt.Sender, Time: evt.Time, Dict: dict.Names, Mark: dict.ParentsText,
		Replaces: evt.Unsigned.ReplacesState, Redacted: evt.Redacted(), Partial: !evt.Listed}
	if err != nil {
		read.Err = fault.Of(fault.ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, p.StateKey, p.ID, err)
	}
	p.Encrypted.Learn(p.ID, read.Dict)
	commit.Tell(&read, dict.Parents)
	return read
}

// ViewOf is what one event says.
func (r Room) ViewOf(evt *matrix.Event) *replica.View {
	read := r.Parsed(evt)
	return replica.ViewOf(&read)
}

// Parsed is the event as package merge takes it.
func (r Room) Parsed(evt *matrix.Event) merge.Event { return DictRoom{r, *evt.StateKey}.parsed(evt) }
