package matrix

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// listing is what a listing does, for its errors.
const listing = "list the keys"

// Visit is given the events of a listing, one after the other. Its error ends that.
type Visit func(evt *Event, late bool) error

// only visits state events of the type, without what was before them.
func (v Visit) only(eventType event.Type) Visit {
	return func(evt *Event, late bool) error {
		if evt == nil || evt.Type != eventType.Type || evt.StateKey == nil {
			return nil
		}
		evt.Unsigned.Before = nil
		return v(evt, late)
	}
}

// read visits an array of events.
func (v Visit) read(late bool) func(*Decoder) error {
	return Events(func(evt *Event) error { return v(evt, late) })
}

// Scan visits the current events of the type as an initial sync shows them, as they arrive. It begins anew where the answer
// breaks off. Of two events with one state key the later counts: one that is late comes from the timeline, before or after the others.
// It gives the times, in Unix milliseconds, at which the power levels changed among the latest events.
//
// Where the sync leaves out a room that the user is in, Scan reads the whole state, members and all: Dendrite's sync learns
// of a room a moment after the user has joined it, and of nothing more once an event has put it out of step.
func (r Room) Scan(ctx context.Context, eventType event.Type, begin func() Visit) (powers []int64, err error) {
	found := false
	err = r.stream(ctx, r.Client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "sync"},
		map[string]string{"filter": r.listFilter(eventType), "set_presence": string(event.PresenceOffline)},
	), func(decoder *Decoder) error {
		found, powers = false, nil
		visit := begin().only(eventType)
		timeline := func(evt *Event, late bool) error {
			if evt.changesPower() {
				powers = append(powers, evt.Time)
			}
			return visit(evt, late)
		}
		room := Members{r.ID.String(): func(decoder *Decoder) error {
			found = true
			return Members{
				"state":    Members{"events": visit.read(false)}.Read,
				"timeline": Members{"events": Visit(timeline).read(true)}.Read,
			}.Read(decoder)
		}}
		return Members{"rooms": Members{"join": room.Read}.Read}.Read(decoder)
	})
	if found || err != nil {
		return powers, err
	}
	if r.HasLeft(ctx) {
		return nil, r.NotJoined(listing, nil)
	}
	return nil, r.ScanAll(ctx, eventType, begin)
}

// ScanAll is Scan by the whole state, members and all: a sync can be behind, and on Synapse shows the state of one branch of
// the room's history.
func (r Room) ScanAll(ctx context.Context, eventType event.Type, begin func() Visit) error {
	return r.stream(ctx, r.Client.BuildClientURL("v3", "rooms", r.ID, "state"), func(decoder *Decoder) error {
		return begin().only(eventType).read(false)(decoder)
	})
}

// Events reads an array of events.
func Events(each func(*Event) error) func(*Decoder) error {
	return Elements(func(decoder *Decoder) error {
		var evt *Event
		if err := decoder.Decode(&evt); err != nil {
			return err
		}
		return each(evt)
	})
}

// stream reads a listing.
func (r Room) stream(ctx context.Context, url string, read func(*Decoder) error) error {
	err := Stream(ctx, r.Client, url, MaxWhole, read)
	if errors.Is(err, errListed) {
		return fault.Of(fault.ErrTooLarge, nil,
			"the memory in %s is larger than the %d bytes that are read at once; Export and Copy read it part by part", r.ID, maxListed)
	}
	return r.Explain(ctx, listing, err)
}

// listFilter is what a listing of the room lets through.
//
// Every room has a create event, without which Synapse would leave out a room that has no memory yet.
//
// The timeline is there for Synapse: "state" is what was current before the timeline's first event, and
// without a timeline after the room's latest event, which leaves out what was sent at the same time as that. But the timeline
// also has what a change of the power levels at the same time has kept out of the state, so it shows these too.
func (r Room) listFilter(eventType event.Type) string {
	return syncFilter(filter{
		"rooms":    []id.RoomID{r.ID},
		"state":    filter{"types": []string{eventType.Type, event.StateCreate.Type}},
		"timeline": filter{"types": []string{eventType.Type, event.StatePowerLevels.Type}, "limit": timelineLimit},
	})
}

type filter map[string]any

// syncFilter lets through what the filter of rooms says, and nothing else. It is written out, for mautrix's Filter omits empty lists, and an absent
// list matches everything.
//
// Nothing can match account_data.not_types. The random name in it makes each filter another one, because Synapse
// answers the same initial sync of a device from a cache for two minutes (sync_response_cache_duration),
// without what was written since.
func syncFilter(rooms filter) string {
	none := filter{"types": []string{}}
	rooms["ephemeral"], rooms["account_data"] = none, none
	text, err := json.Marshal(filter{
		"presence":     none,
		"account_data": filter{"types": []string{}, "not_types": []string{"roomkv." + rand.Text()}},
		"room":         rooms,
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(text)
}

// LearnMembers has the client's state store know who is in the room. One that has seen no sync does not.
func (r Room) LearnMembers(ctx context.Context) error {
	var members []*event.Event
	err := Stream(ctx, r.Client, r.Client.BuildClientURL("v3", "rooms", r.ID, "members"), MaxWhole, func(decoder *Decoder) error {
		members = nil
		return Members{"chunk": Events(func(evt *Event) error {
			if member := r.member(evt); member != nil {
				members = append(members, member)
			}
			if len(members) > maxMembers {
				return fault.Of(fault.ErrTooLarge, nil, "%s has more than %d members, to whom a key to values cannot be sent", r.ID, maxMembers)
			}
			return nil
		})}.Read(decoder)
	})
	if err != nil {
		return err
	}
	return r.Client.StateStore.ReplaceCachedMembers(ctx, r.ID, members)
}

// member is nil where the event does not say that somebody is in the room or is invited. To those who have left, the state store in
// memory would give the session, too (v0.31.0).
func (r Room) member(evt *Event) *event.Event {
	if evt == nil || evt.Type != event.StateMember.Type || evt.StateKey == nil {
		return nil
	}
	content := new(event.MemberEventContent)
	if json.Unmarshal(evt.Content, content) != nil || content.Membership != event.MembershipJoin && content.Membership != event.MembershipInvite {
		return nil
	}
	return &event.Event{ID: evt.ID, Sender: evt.Sender, Type: event.StateMember, StateKey: evt.StateKey, RoomID: r.ID, Content: event.Content{Parsed: content}}
}
