package matrix

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fault"
)

// HasLeft tells whether the user is certainly not in the room.
func (r Room) HasLeft(ctx context.Context) bool {
	var joined *mautrix.RespJoinedRooms
	url := r.Client.BuildClientURL("v3", "joined_rooms")
	err := Get(ctx, r.Client, Request{Method: http.MethodGet, URL: url, Limit: MaxList}, &joined)
	return err == nil && joined != nil && !slices.Contains(joined.JoinedRooms, r.ID)
}

// Enter joins the room, over one of these homeservers where the user's own is not in it.
func (r Room) Enter(ctx context.Context, via ...string) error {
	at := r.Client.BuildURLWithFullQuery(mautrix.ClientURLPath{"v3", "join", r.ID}, func(query url.Values) { query["via"] = via })
	return r.setMembership(ctx, at, event.MembershipJoin)
}

// Leave leaves the room.
func (r Room) Leave(ctx context.Context) error {
	return r.setMembership(ctx, r.Client.BuildClientURL("v3", "rooms", r.ID, "leave"), event.MembershipLeave)
}

// setMembership tells the client's state store too, as mautrix does.
func (r Room) setMembership(ctx context.Context, url string, to event.Membership) error {
	err := Get(ctx, r.Client, Request{Method: http.MethodPost, URL: url}, &struct{}{})
	if err == nil && r.Client.StateStore != nil {
		err = r.Client.StateStore.SetMembership(ctx, r.ID, r.Client.UserID, to)
	}
	return err
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
