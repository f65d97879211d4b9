package syncing

import (
	"errors"
	"maps"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

// ErrNoToken is the error for a response without a token. With it the sync would begin anew, and miss what came in between.
var ErrNoToken = errors.New("the response of the sync has no next_batch")

// whole removes what is null in a response, where mautrix and others expect rooms and events. A response without a token is an [ErrNoToken].
func whole(resp *mautrix.RespSync) error {
	if resp == nil || resp.NextBatch == "" {
		return ErrNoToken
	}
	lists := []*mautrix.SyncEventsList{&resp.AccountData, &resp.Presence, &resp.ToDevice}
	removeNil(resp.Rooms.Join)
	for _, room := range resp.Rooms.Join {
		lists = append(lists, &room.State, room.StateAfter, &room.Ephemeral, &room.AccountData, &room.Sticky)
		room.Timeline.Events = Events(room.Timeline.Events)
	}
	removeNil(resp.Rooms.Leave)
	for _, room := range resp.Rooms.Leave {
		lists = append(lists, &room.State, room.StateAfter)
		room.Timeline.Events = Events(room.Timeline.Events)
	}
	removeNil(resp.Rooms.Invite)
	for _, room := range resp.Rooms.Invite {
		lists = append(lists, &room.State, &room.FullState)
	}
	removeNil(resp.Rooms.Knock)
	for _, room := range resp.Rooms.Knock {
		lists = append(lists, &room.State, &room.FullState)
	}
	for _, list := range lists {
		if list != nil {
			list.Events = Events(list.Events)
		}
	}
	return nil
}

// Events are those that are not null.
func Events(events []*event.Event) []*event.Event {
	return slices.DeleteFunc(events, func(evt *event.Event) bool { return evt == nil })
}

func removeNil[K comparable, V any](rooms map[K]*V) {
	maps.DeleteFunc(rooms, func(_ K, room *V) bool { return room == nil })
}
