package matrix

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
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
