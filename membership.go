package roomkv

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
)

// hasLeft tells whether the user is certainly not in the room.
func (r roomState) hasLeft(ctx context.Context) bool {
	var joined *mautrix.RespJoinedRooms
	url := r.client.BuildClientURL("v3", "joined_rooms")
	err := matrix.Get(ctx, r.client, matrix.Request{Method: http.MethodGet, URL: url, Limit: matrix.List}, &joined)
	return err == nil && joined != nil && !slices.Contains(joined.JoinedRooms, r.room)
}

// enterRoom joins the room, over one of these homeservers where the user's own is not in it.
func (r roomState) enterRoom(ctx context.Context, via ...string) error {
	at := r.client.BuildURLWithFullQuery(mautrix.ClientURLPath{"v3", "join", r.room}, func(query url.Values) { query["via"] = via })
	return r.setMembership(ctx, at, event.MembershipJoin)
}

func (r roomState) leaveRoom(ctx context.Context) error {
	return r.setMembership(ctx, r.client.BuildClientURL("v3", "rooms", r.room, "leave"), event.MembershipLeave)
}

// setMembership tells the client's state store too, as mautrix does.
func (r roomState) setMembership(ctx context.Context, url string, to event.Membership) error {
	err := matrix.Get(ctx, r.client, matrix.Request{Method: http.MethodPost, URL: url}, &struct{}{})
	if err == nil && r.client.StateStore != nil {
		err = r.client.StateStore.SetMembership(ctx, r.room, r.client.UserID, to)
	}
	return err
}

// maxMembers is how many members a room may have in which values are encrypted. Homeservers list them in one answer.
const maxMembers = 50_000

// learnMembers has the client's state store know who is in the room. One that has seen no sync does not.
func (r roomState) learnMembers(ctx context.Context) error {
	var members []*event.Event
	_, err := matrix.Do(ctx, r.client, matrix.Request{Method: http.MethodGet, URL: r.client.BuildClientURL("v3", "rooms", r.room, "members"),
		Limit: matrix.Whole, Read: matrix.Decoded(func(decoder *matrix.Decoder) error {
			members = nil
			return matrix.Members{"chunk": elements(func(evt *stateEvent) error {
				if member := r.member(evt); member != nil {
					members = append(members, member)
				}
				if len(members) > maxMembers {
					return fault.Of(ErrTooLarge, nil, "%s has more than %d members, to whom a key to values cannot be sent", r.room, maxMembers)
				}
				return nil
			})}.Read(decoder)
		})})
	if err != nil {
		return err
	}
	return r.client.StateStore.ReplaceCachedMembers(ctx, r.room, members)
}

// member is nil where the event does not say that somebody is in the room or is invited. To those who have left, the state store in
// memory would give the session, too (v0.31.0).
func (r roomState) member(evt *stateEvent) *event.Event {
	if evt == nil || evt.Type != event.StateMember.Type || evt.StateKey == nil {
		return nil
	}
	content := new(event.MemberEventContent)
	if json.Unmarshal(evt.Content, content) != nil || content.Membership != event.MembershipJoin && content.Membership != event.MembershipInvite {
		return nil
	}
	return &event.Event{ID: evt.ID, Sender: evt.Sender, Type: event.StateMember, StateKey: evt.StateKey, RoomID: r.room, Content: event.Content{Parsed: content}}
}

// learnEncryption has it know how the room is encrypted.
func (r roomState) learnEncryption(ctx context.Context) error {
	at := r
	at.eventType = event.StateEncryption
	found, err := at.get(ctx, "")
	switch {
	case err != nil:
		return err
	case found == nil:
		return fault.Of(ErrNoCrypto, nil, "%s is encrypted, or has encrypted values in its memory, and the homeserver has no %s there, so nothing was written; "+
			"find out why, or write values that the homeserver can read with WithEncryption(false)", r.room, event.StateEncryption.Type)
	}
	evt := &event.Event{ID: found.ID, Sender: found.Sender, Type: event.StateEncryption, StateKey: found.StateKey, RoomID: r.room}
	if json.Unmarshal(found.Content, &evt.Content) != nil || evt.Content.ParseRaw(evt.Type) != nil {
		return fault.Of(ErrCorrupt, nil, "event %s in %s does not say how the room is encrypted", found.ID, r.room)
	}
	mautrix.UpdateStateStore(ctx, r.client.StateStore, evt)
	return nil
}
