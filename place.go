package roomkv

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
)

// place is where one dict is: a state key in a room. It implements [commit.Room].
type place struct {
	roomState
	stateKey string
}

// Current implements [commit.Room].
func (p place) Current(ctx context.Context) (*merge.Event, error) {
	evt, err := p.get(ctx, p.stateKey)
	if err != nil || evt == nil {
		return nil, err
	}
	current := p.snapshot(evt)
	return &current, nil
}

// Recent implements [commit.Room]. The filter is by type, and what other state keys have is left out here, for Matrix
// has no filter by state key. So is what a homeserver sends in spite of the filter: Dendrite does so with events that
// it has over federation.
func (p place) Recent(ctx context.Context, from string, limit int) (commit.Page, error) {
	listed, err := p.page(ctx, from, limit)
	page := commit.Page{Next: listed.Next, Oldest: listed.Oldest}
	for _, evt := range listed.Events {
		if *evt.StateKey == p.stateKey {
			page.Events = append(page.Events, p.snapshot(evt))
		}
	}
	return page, err
}

// Before implements [commit.Room].
func (p place) Before(ctx context.Context, event id.EventID, limit int) (commit.Page, error) {
	around, err := p.Around(ctx, event)
	if err != nil || around.Start == "" {
		return commit.Page{}, err
	}
	return p.Recent(ctx, around.Start, limit)
}

// latestEvents is how many of the room's latest events are looked at for what is not in the state. Dendrite counts those of any type.
const latestEvents = 500

// Latest implements [commit.Room].
func (p place) Latest(ctx context.Context) (events []merge.Event, err error) {
	page, err := p.Room.Latest(ctx, p.eventType, latestEvents)
	if err != nil {
		return nil, err
	}
	p.learn(page)
	for _, evt := range page.Events {
		if *evt.StateKey == p.stateKey {
			events = append(events, p.snapshot(evt))
		}
	}
	return events, nil
}

// Stored implements [commit.Room].
func (p place) Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error) {
	return p.Room.Stored(ctx, event)
}

// Powerless implements [commit.Room].
func (p place) Powerless(ctx context.Context, user id.UserID) (since int64, err error) {
	return p.Room.Powerless(ctx, p.eventType, user)
}

// Hold implements [commit.Room]: whoever else writes is merged with.
func (place) Hold(context.Context) (release func(), err error) { return func() {}, nil }

// Send implements [commit.Room].
func (p place) Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error) {
	if p.core.fallback {
		done, err := p.overlay().account.send(isMoving(ctx))
		if err != nil {
			return "", false, err
		}
		defer done()
	}
	sent, once, err = p.PutState(ctx, p.eventType, p.stateKey, content)
	if err == nil && p.core.layout.oneKey() {
		written.Add(p.address(p.stateKey), sent)
		if p.core.fallback {
			p.overlay().account.sent(p.stateKey, sent, content)
		}
	}
	return sent, once, err
}

// Fits implements [commit.Room]. Above its limit, signatures and references to other events take some 700 bytes more,
// and the homeserver decides.
func (p place) Fits(size int) error { return p.Room.Fits(p.stateKey, size) }

// TooLarge implements [commit.Room].
func (p place) TooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }

// NotSent implements [commit.Room].
func (p place) NotSent(err error) bool { return matrix.Refused(err) || errors.Is(err, errAgain) }

// RefusesContent implements [commit.Room].
func (place) RefusesContent(err error) (refused, sure bool) { return matrix.RefusesContent(err) }

// Synced implements [commit.Room].
func (p place) Synced(ctx context.Context) bool { return p.core.follower.Feeds(ctx, p.ID) }

// Refused implements [commit.Room].
func (p place) Refused(ctx context.Context, event id.EventID) error {
	if current, err := p.get(ctx, p.stateKey); err != nil || current != nil && current.ID == event {
		return err
	}
	if need, have, known := p.levels(ctx); known && have < need {
		return p.noPower("write state "+strconv.Quote(p.stateKey), need, have, errRefused)
	}
	return nil
}

// Behind implements [commit.Room].
func (p place) Behind(event id.EventID) { p.core.follower.Behind(p.ID, event) }

// snapshot reads an event of the dict.
func (p place) snapshot(evt *matrix.Event) merge.Event {
	dict, err := p.core.layout.parse(p.stateKey, evt.Content)
	read := merge.Event{ID: evt.ID, Sender: evt.Sender, Time: evt.Time, Dict: dict.Names(), Mark: dict.ParentsText,
		Replaces: evt.Unsigned.ReplacesState, Redacted: evt.Redacted(), Partial: !evt.Listed}
	if err != nil {
		read.Err = fault.Of(ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, p.stateKey, p.ID, err)
	}
	p.core.encrypted.Learn(p.ID, read.Dict)
	switch {
	case dict.Parents == nil:
	case dict.Parents.Events == nil:
		read.Blind = true
	default:
		read.Marked, read.Parents, read.Yields, read.Conditional = true, dict.Parents.Events, dict.Parents.Yields, dict.Parents.Conditional
	}
	return read
}
