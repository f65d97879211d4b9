package matrix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Page is a part of the room's events.
type Page struct {
	Events []*Event // the state events of the type that was asked for, the newest first
	Next   string   // where the next page begins, empty where there is none
	First  bool     // whether the room's first event was there
	Oldest int64    // Unix milliseconds: when the last of Events was sent; without Events, the user's own latest event; 0 without both
	Depth  int64    // of the last of Events in the room's graph, where the page ends with it; 0 where nothing tells

	// What the page says of the room besides.
	Encrypted  bool         // the room was encrypted
	Tombstones []id.EventID // that say the room was replaced
}

// Back gives a page of the room's state events of the type, from a [Page.Next] on, or from the latest event where that is empty. A page can
// have fewer events than were asked for, or none, and not be the last: Dendrite counts those that the filter leaves out. Where the filter
// leaves out all of them, Dendrite does not say where the next page begins. Back then asks for more events, step by step as they can be
// large, and for some of any type at last. It fails with [fault.ErrCorrupt] where the homeserver names pages without end.
//
// A Dendrite whose first user joined late lacks what was said in the room before. If the filter leaves events out of a page, such a Dendrite takes the
// page for the oldest events that it has. It fills the page with older events of any type from another homeserver, and leaves out all events in between
// (handleNonEmptyEventsSlice in its syncapi/routing, v0.15.2). A type that was not asked for shows that. Back then asks again without a filter, so that the
// page is full. Back does not notice where all that Dendrite has filled in is of the types that were asked for.
func (r Room) Back(ctx context.Context, eventType event.Type, from string, limit int) (Page, error) {
	filter, at := pageFilter(eventType, limit), cursorOf(from)
	if err := at.check(r.ID); err != nil {
		return Page{}, err
	}
	answer, err := r.messages(ctx, at.token, filter)
	for err == nil {
		wide, wider := widened(filter, answer)
		if !wider {
			break
		}
		filter = wide
		answer, err = r.messages(ctx, at.token, filter)
	}
	if err != nil {
		return Page{}, err
	}
	found := r.page(eventType, answer)
	// Of a page with as many events as were asked for nothing was left out, so that its last event is the one that its end tells of.
	if n := len(answer.chunk); n == filter.Limit && len(found.Events) > 0 && found.Events[len(found.Events)-1] == answer.chunk[n-1] {
		found.Depth = depthBefore(answer.end)
	}
	if next := pageAfter(answer.end); !found.First && next != at.token {
		found.Next = at.next(next, found.Events)
	}
	return found, nil
}

// widened is the filter with which to ask again where the answer does not tell what the room has; see [Room.Back].
func widened(filter mautrix.FilterPart, answer messages) (wide mautrix.FilterPart, wider bool) {
	unasked := func(evt *Event) bool {
		return !slices.ContainsFunc(filter.Types, func(asked event.Type) bool { return asked.Type == evt.Type })
	}
	switch {
	case filter.Types == nil:
		return filter, false
	case slices.ContainsFunc(answer.chunk, unasked):
		return mautrix.FilterPart{Limit: filter.Limit}, true
	case len(answer.chunk) > 0 || answer.end != "":
		return filter, false
	case filter.Limit < manyEvents:
		filter.Limit = min(8*filter.Limit, manyEvents)
		return filter, true
	default:
		return mautrix.FilterPart{Limit: anyEvents}, true
	}
}

// Latest gives those of the room's latest events, as many as one request tells, that are state events of the type. It names no next page.
func (r Room) Latest(ctx context.Context, eventType event.Type, limit int) (Page, error) {
	answer, err := r.messages(ctx, "", pageFilter(eventType, limit))
	return r.page(eventType, answer), err
}

// pageFilter lets through the events of the type, and those that say something of the room.
func pageFilter(eventType event.Type, limit int) mautrix.FilterPart {
	return mautrix.FilterPart{Limit: limit, Types: []event.Type{eventType, event.StateEncryption, event.StateTombstone, event.StateCreate}}
}

func (r Room) page(eventType event.Type, answer messages) (found Page) {
	var latest int64 // of the user's own events: any other member can send messages, and memberships, as of long ago
	for _, evt := range answer.chunk {
		if evt.Sender == r.Client.UserID {
			latest = max(latest, evt.Time)
		}
		if evt.StateKey == nil {
			continue
		}
		switch {
		case evt.Type == eventType.Type:
			evt.Listed = true
			found.Events, found.Oldest = append(found.Events, evt), evt.Time
		case evt.IsRooms(event.StateEncryption): // a chance to learn of it that costs nothing
			found.Encrypted = true
		case evt.IsRooms(event.StateTombstone):
			found.Tombstones = append(found.Tombstones, evt.ID)
		case evt.IsRooms(event.StateCreate): // there is nothing before it, which homeservers find out only when they are asked
			found.First = true
		}
	}
	found.Oldest = cmp.Or(found.Oldest, latest)
	return found
}

// messages is the homeserver's answer with a page of events, the newest first.
type messages struct {
	chunk []*Event
	end   string
}

// messages asks for a page, and for a smaller one where that is too large.
func (r Room) messages(ctx context.Context, from string, filter mautrix.FilterPart) (answer messages, err error) {
	text, err := json.Marshal(filter)
	if err != nil {
		return messages{}, err
	}
	query := map[string]string{"dir": string(mautrix.DirectionBackward), "limit": strconv.Itoa(filter.Limit), "filter": string(text)}
	if from != "" {
		query["from"] = from
	}
	url := r.Client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", r.ID, "messages"}, query)
	limit := min(MaxEvent+int64(filter.Limit)*bytesOfEvent, MaxPage)
	err = Stream(ctx, r.Client, url, limit, func(decoder *Decoder) error {
		answer = messages{}
		return Members{
			"chunk": Events(func(evt *Event) error {
				if len(answer.chunk) == maxPageEvents {
					return fmt.Errorf("%w: it has more than %d events", ErrAnswer, maxPageEvents)
				}
				if evt != nil && evt.ID != "" {
					answer.chunk = append(answer.chunk, evt)
				}
				return nil
			}),
			"end": func(decoder *Decoder) error { return decoder.Decode(&answer.end) },
		}.Read(decoder)
	})
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, mautrix.ErrBodyReadReachedLimit) && filter.Limit > 1:
		filter.Limit = max(1, filter.Limit/8)
		return r.messages(ctx, from, filter)
	default:
		return messages{}, r.Explain(ctx, "look back", err)
	}
}
