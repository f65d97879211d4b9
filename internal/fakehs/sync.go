package fakehs

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"
)

// syncing is a sync of a device.
type syncing struct {
	*Server
	device    *device
	filter    *filter
	since     int64 // the place up to which the device knows all, 0 in an initial sync
	upTo      int64
	initial   bool
	full      bool // whether all state is wanted
	afterward bool // whether the state is wanted as it is after the timeline

	news bool // whether there is anything in the response
	resp object
}

func (s *Server) sync(r *request) (any, error) {
	wanted, err := s.readFilter(r)
	if err != nil {
		return nil, err
	}
	token := r.query.Get("since")
	since := position{}
	if token != "" {
		if since, err = positionOf(token); err != nil {
			return nil, err
		}
	}
	asked := syncAsked(r.query)
	if s.mode == Forking {
		s.mu.Lock()
		before := r.device.syncs.find(asked)
		s.mu.Unlock()
		if before != nil {
			return before, nil
		}
	}
	timeout := time.NewTimer(time.Duration(r.number("timeout", 0)) * time.Millisecond)
	defer timeout.Stop()
	for expired := false; ; {
		s.mu.Lock()
		y := &syncing{Server: s, device: r.device, filter: wanted, since: since.pos, upTo: s.upTo(), initial: token == "",
			full: token == "" || r.query.Get("full_state") == "true", afterward: r.query.Get("use_state_after") == "true"}
		y.collect()
		text, err := json.Marshal(y.resp)
		changed, gone := s.changed, !s.signedIn(r)
		done := y.news || y.full || expired || err != nil
		if done && s.mode == Forking && y.upTo != y.since {
			r.device.syncs.add(asked, text)
		}
		if done || gone {
			s.waited(r)
		} else {
			s.waits(r, y.upTo)
		}
		s.mu.Unlock()
		switch {
		case gone:
			return nil, refuse(401, "M_UNKNOWN_TOKEN", "the device was logged out")
		case done:
			return json.RawMessage(text), err
		}
		select {
		case <-changed:
		case <-timeout.C:
			expired = true
		case <-r.Context().Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.waited(r)
			return nil, r.Context().Err()
		}
	}
}

// signedIn tells whether the device of a request is there still. The caller has the lock.
func (s *Server) signedIn(r *request) bool {
	if s.delegation != nil {
		return r.device.user.devices[r.device.id] == r.device
	}
	return s.tokens[r.token] != nil || s.services[r.token] != ""
}

// collect makes the response.
func (y *syncing) collect() {
	own := y.device.user
	y.resp = object{"next_batch": fmt.Sprintf("s%d_0_0_0", y.upTo)}
	if events := y.accountData("", y.filter.AccountData, y.since); len(events) > 0 {
		y.resp["account_data"] = object{"events": events}
		y.news = true
	}
	y.encryption()
	join, invite, leave := object{}, object{}, object{}
	for _, at := range y.roomsOf(own) {
		if !y.wantsRoom(at.id) {
			continue
		}
		last := at.lastListed(y.upTo)
		if last == nil {
			continue
		}
		switch last.resolved.membership(own.id) {
		case "join":
			if shown := y.joined(at, last); shown != nil {
				join[string(at.id)] = shown
			}
		case "invite":
			if evt := last.resolved.get("m.room.member", string(own.id)); evt.pos > y.since {
				invite[string(at.id)] = object{"invite_state": object{"events": inviteState(evt)}}
			}
		case "leave", "ban":
			if shown := y.left(at, last); shown != nil {
				leave[string(at.id)] = shown
			}
		}
	}
	rooms := object{}
	for name, some := range map[string]object{"join": join, "invite": invite, "leave": leave} {
		if len(some) > 0 {
			rooms[name] = some
			y.news = true
		}
	}
	if len(rooms) > 0 {
		y.resp["rooms"] = rooms
	}
}

func (y *syncing) wantsRoom(at id.RoomID) bool {
	in := eventFilter{Rooms: y.filter.Room.Rooms, NotRooms: y.filter.Room.NotRooms}
	return in.wantsRoom(at) && !y.device.user.forgotten[at]
}

// lastListed is the last event that lists have, nil where they have none.
func (r *room) lastListed(upTo int64) *pdu {
	for i := len(r.log) - 1; i >= 0; i-- {
		if r.log[i].pos <= upTo {
			return r.log[i]
		}
	}
	return nil
}

// joined is what is new in a room that the user is in, nil where nothing is.
func (y *syncing) joined(at *room, last *pdu) object {
	own := y.device.user.id
	known := at.lastListed(y.since)
	fresh := y.full || known == nil || known.resolved.membership(own) != "join"
	since := y.since
	if fresh && !y.full || y.initial {
		since = 0
	}
	timeline, limited := y.timeline(at, since)
	account := y.accountData(at.id, y.filter.Room.AccountData, since)
	if !fresh && last.pos <= y.since && len(account) == 0 && y.device.user.readAt[at.id] <= y.since {
		return nil
	}
	state := y.state(at, last, timeline, since, fresh)
	shown := object{
		"timeline":             object{"events": y.showAll(timeline, inSync), "limited": limited, "prev_batch": y.previous(at, timeline)},
		"state":                object{"events": y.showAll(state, inSyncState)},
		"account_data":         object{"events": account},
		"ephemeral":            object{"events": []object{}},
		"unread_notifications": object{"notification_count": y.unread(at, y.device.user, y.upTo), "highlight_count": 0},
		"summary":              object{},
	}
	if y.afterward {
		delete(shown, "state")
		shown["state_after"] = object{"events": y.showAll(y.stateAfter(last, known, fresh), inSyncState)}
	}
	if !fresh && len(timeline) == 0 && len(state) == 0 && len(account) == 0 && y.device.user.readAt[at.id] <= y.since {
		return nil
	}
	return shown
}

// timeline is what came after a place, the latest as many as the filter has.
func (y *syncing) timeline(at *room, since int64) (events []*pdu, limited bool) {
	limit, wanted := 10, y.filter.Room.Timeline
	if y.mode == Linear {
		limit = 20
	}
	if wanted.Limit != nil {
		limit = *wanted.Limit
	}
	for i := len(at.log) - 1; i >= 0; i-- {
		evt := at.log[i]
		if evt.pos <= since {
			break
		}
		if evt.pos > y.upTo || !wanted.wants(evt) || !evt.isSeenBy(y.device.user.id) {
			continue
		}
		if len(events) >= limit {
			return reversed(events), true
		}
		events = append(events, evt)
	}
	return reversed(events), false
}

func reversed(events []*pdu) []*pdu {
	turned := make([]*pdu, len(events))
	for i, evt := range events {
		turned[len(events)-1-i] = evt
	}
	return turned
}

// state is the state that the timeline does not tell.
func (y *syncing) state(at *room, last *pdu, timeline []*pdu, since int64, fresh bool) []*pdu {
	wanted := y.filter.Room.State
	if y.mode == Forking && fresh {
		// That before the timeline and that after it, on the branches of its first event and its last, but for what it lists.
		if len(timeline) == 0 {
			return only(last.after.sorted(), wanted)
		}
		after := timeline[len(timeline)-1].after
		found := timeline[0].base.sorted()
		for _, evt := range after.sorted() {
			if !slices.Contains(found, evt) && !slices.Contains(timeline, evt) {
				found = append(found, evt)
			}
		}
		return only(found, wanted)
	}
	shown := map[slot]bool{}
	for _, evt := range timeline {
		if evt.StateKey != nil {
			shown[evt.in()] = true
		}
	}
	var found []*pdu
	for _, evt := range last.resolved.sorted() {
		if !shown[evt.in()] && (fresh || evt.pos > since) {
			found = append(found, evt)
		}
	}
	return only(found, wanted)
}

// stateAfter is the state that has changed.
func (y *syncing) stateAfter(last, known *pdu, fresh bool) []*pdu {
	var found []*pdu
	for _, evt := range last.resolved.sorted() {
		if fresh || known.resolved.get(evt.Type, *evt.StateKey) != evt {
			found = append(found, evt)
		}
	}
	return only(found, y.filter.Room.State)
}

func only(events []*pdu, wanted eventFilter) []*pdu {
	var found []*pdu
	for _, evt := range events {
		if wanted.wants(evt) {
			found = append(found, evt)
		}
	}
	return found
}

func (y *syncing) showAll(events []*pdu, where place) []object {
	shown := []object{}
	for _, evt := range events {
		shown = append(shown, evt.show(y.Server, y.device, where))
	}
	return shown
}

// previous is the token of what is before the timeline.
func (y *syncing) previous(at *room, timeline []*pdu) string {
	if len(timeline) == 0 {
		return y.token(position{end.depth, y.upTo})
	}
	if y.mode == Linear {
		return y.token(before(timeline[0]))
	}
	return y.token(position{timeline[0].depth, timeline[0].pos - 1})
}

// left is what is new in a room that the user has left, nil where nothing is.
func (y *syncing) left(at *room, last *pdu) object {
	own := y.device.user.id
	gone := last.resolved.get("m.room.member", string(own))
	if gone.pos <= y.since || y.initial && !y.filter.Room.IncludeLeave {
		return nil
	}
	timeline, limited := y.timeline(at, y.since)
	return object{
		"timeline": object{"events": y.showAll(timeline, inSync), "limited": limited, "prev_batch": y.previous(at, timeline)},
		"state":    object{"events": []object{}},
	}
}

// inviteState is what somebody who is invited is told of the room.
func inviteState(invite *pdu) []object {
	var shown []object
	for _, at := range []slot{{"m.room.create", ""}, {"m.room.join_rules", ""}, {"m.room.name", ""}, {"m.room.encryption", ""}} {
		if evt := invite.base.get(at.eventType, at.stateKey); evt != nil {
			shown = append(shown, stripped(evt))
		}
	}
	return append(shown, stripped(invite))
}

func stripped(evt *pdu) object {
	return object{"type": evt.Type, "state_key": *evt.StateKey, "sender": evt.Sender, "content": evt.Content}
}

// accountData is what was put of a room, or of the account, after a place.
func (y *syncing) accountData(room id.RoomID, wanted eventFilter, since int64) []object {
	events := []object{}
	for _, at := range y.device.user.accountTypes(room) {
		data := y.device.user.accounts[accountSlot{room, at}]
		if data.pos > since && data.pos <= y.upTo && wanted.wantsType(at) {
			events = append(events, object{"type": at, "content": data.content})
		}
	}
	return events
}
