package roomkv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
)

// manyEvents is how many events a page asks for where people have talked for long, and anyEvents how many of what they said where that was
// for longer. Dendrite bounds the limit of a request by 100, but not that of its filter.
const (
	manyEvents = 1000
	anyEvents  = 500
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
	page := commit.Page{Next: listed.next, Oldest: listed.oldest}
	for _, evt := range listed.events {
		if *evt.StateKey == p.stateKey {
			page.Events = append(page.Events, p.snapshot(evt))
		}
	}
	return page, err
}

// Before implements [commit.Room].
func (p place) Before(ctx context.Context, event id.EventID, limit int) (commit.Page, error) {
	around, err := p.around(ctx, event)
	if err != nil || around.Start == "" {
		return commit.Page{}, err
	}
	return p.Recent(ctx, around.Start, limit)
}

// latestEvents is how many of the room's latest events are looked at for what is not in the state. Dendrite counts those of any type.
const latestEvents = 500

// Latest implements [commit.Room].
func (p place) Latest(ctx context.Context) (events []merge.Event, err error) {
	answer, err := p.messages(ctx, "", p.pageFilter(latestEvents))
	if err != nil {
		return nil, err
	}
	for _, evt := range p.found(answer).events {
		if *evt.StateKey == p.stateKey {
			events = append(events, p.snapshot(evt))
		}
	}
	return events, nil
}

// Stored implements [commit.Room].
func (p place) Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error) {
	return p.stored(ctx, event)
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
	sent, once, err = p.put(ctx, p.stateKey, content)
	if err == nil && p.core.layout.oneKey() {
		written.Add(commit.Dict{Room: p.room, Type: p.eventType.Type, StateKey: p.stateKey}, sent)
		if p.core.fallback {
			p.overlay().account.sent(p.stateKey, sent, content)
		}
	}
	return sent, once, err
}

// Fits implements [commit.Room]. Above its limit, signatures and references to other events take some 700 bytes more,
// and the homeserver decides.
func (p place) Fits(size int) error { return p.fits(p.stateKey, size) }

// TooLarge implements [commit.Room].
func (p place) TooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }

// NotSent implements [commit.Room].
func (p place) NotSent(err error) bool { return matrix.Refused(err) || errors.Is(err, errAgain) }

// RefusesContent implements [commit.Room].
func (place) RefusesContent(err error) (refused, sure bool) { return refusesContent(err) }

// Synced implements [commit.Room].
func (p place) Synced(ctx context.Context) bool { return p.core.follower.feeds(ctx, p.room) }

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
func (p place) Behind(event id.EventID) { p.core.follower.behind(p.room, event) }

// snapshot reads an event of the dict.
func (p place) snapshot(evt *stateEvent) merge.Event {
	dict, err := p.core.layout.parse(p.stateKey, evt.Content)
	read := merge.Event{ID: evt.ID, Sender: evt.Sender, Time: evt.Time, Dict: dict.Names(), Mark: dict.ParentsText,
		Replaces: evt.Unsigned.ReplacesState, Redacted: evt.redacted(), Partial: !evt.listed}
	if err != nil {
		read.Err = fault.Of(ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, p.stateKey, p.room, err)
	}
	p.core.encrypted.learn(p.room, read.Dict)
	switch {
	case dict.Parents == nil:
	case dict.Parents.Events == nil:
		read.Blind = true
	default:
		read.Marked, read.Parents, read.Yields, read.Conditional = true, dict.Parents.Events, dict.Parents.Yields, dict.Parents.Conditional
	}
	return read
}

// page is a part of the room's events.
type page struct {
	events []*stateEvent // those of the store's type, the newest first
	next   string        // where the next page begins, empty where there is none
	first  bool          // whether the room's first event was there
	oldest int64         // when the last of those was sent, or without any when the user's own were at the latest, 0 without these too
}

// page gives a page of the room's events of the store's type. It can have fewer events than were asked for, or none, and not
// be the last: Dendrite counts those that the filter leaves out. Where these are all, it does not say where the next page begins: it is
// asked for more then, step by step, as they can be large, and for some of any type at last.
func (r roomState) page(ctx context.Context, from string, limit int) (page, error) {
	filter := r.pageFilter(limit)
	at, err := cursorOf(from).turn(r.room)
	if err != nil {
		return page{}, err
	}
	answer, err := r.messages(ctx, at.token, filter)
	for err == nil && len(answer.chunk) == 0 && answer.end == "" && filter.Types != nil {
		if filter.Limit < manyEvents {
			filter.Limit = min(8*filter.Limit, manyEvents)
		} else {
			filter = mautrix.FilterPart{Limit: anyEvents}
		}
		answer, err = r.messages(ctx, at.token, filter)
	}
	if err != nil {
		return page{}, err
	}
	found := r.found(answer)
	if !found.first && answer.end != at.token {
		found.next = at.next(answer.end, found.events)
	}
	return found, nil
}

// pageFilter lets through the store's events and those that say something of all of them.
func (r roomState) pageFilter(limit int) mautrix.FilterPart {
	return mautrix.FilterPart{Limit: limit, Types: []event.Type{r.eventType, event.StateEncryption, event.StateTombstone, event.StateCreate}}
}

// found is what a page has for the store.
func (r roomState) found(answer messages) (found page) {
	var latest int64 // of the user's own events: any other member can send messages, and memberships, as of long ago
	for _, evt := range answer.chunk {
		if evt.Sender == r.client.UserID {
			latest = max(latest, evt.Time)
		}
		if evt.StateKey == nil {
			continue
		}
		switch {
		case evt.Type == r.eventType.Type:
			evt.listed = true
			found.events, found.oldest = append(found.events, evt), evt.Time
		case evt.isRooms(event.StateEncryption): // a chance to learn of it that costs nothing
			r.core.encrypted.set(r.room, true, false)
		case evt.isRooms(event.StateTombstone):
			r.core.upgrades.doubt(r.room, evt.ID)
		case evt.isRooms(event.StateCreate): // there is nothing before it, which homeservers find out only when they are asked
			found.first = true
		}
	}
	found.oldest = cmp.Or(found.oldest, latest)
	return found
}

// messages is the homeserver's answer with a page of events, the newest first.
type messages struct {
	chunk []*stateEvent
	end   string
}

// How much a page may have: so many events where fewer are asked for, as homeservers can give more than that, and so many bytes for
// each, up to [matrix.Page].
const (
	maxPageEvents = 2000
	bytesOfEvent  = 256 << 10
)

// messages asks for a page, and for a smaller one where that is too large.
func (r roomState) messages(ctx context.Context, from string, filter mautrix.FilterPart) (messages, error) {
	const what = "look back"
	for {
		answer, err := r.messagesOnce(ctx, from, filter)
		switch {
		case err == nil:
			return answer, nil
		case errors.Is(err, mautrix.ErrBodyReadReachedLimit) && filter.Limit > 1:
			filter.Limit = max(1, filter.Limit/8)
		default:
			return messages{}, r.explain(ctx, what, err)
		}
	}
}

func (r roomState) messagesOnce(ctx context.Context, from string, filter mautrix.FilterPart) (answer messages, err error) {
	text, err := json.Marshal(filter)
	if err != nil {
		return messages{}, err
	}
	query := map[string]string{"dir": string(mautrix.DirectionBackward), "limit": strconv.Itoa(filter.Limit), "filter": string(text)}
	if from != "" {
		query["from"] = from
	}
	url := r.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", r.room, "messages"}, query)
	limit := min(matrix.Event+int64(filter.Limit)*bytesOfEvent, matrix.Page)
	_, err = matrix.Do(ctx, r.client, matrix.Request{Method: http.MethodGet, URL: url, Limit: limit, Read: matrix.Decoded(func(decoder *matrix.Decoder) error {
		answer = messages{}
		return matrix.Members{
			"chunk": elements(func(evt *stateEvent) error {
				if len(answer.chunk) == maxPageEvents {
					return fmt.Errorf("%w: it has more than %d events", matrix.ErrAnswer, maxPageEvents)
				}
				if evt != nil && evt.ID != "" {
					answer.chunk = append(answer.chunk, evt)
				}
				return nil
			}),
			"end": func(decoder *matrix.Decoder) error { return decoder.Decode(&answer.end) },
		}.Read(decoder)
	})})
	return answer, err
}
