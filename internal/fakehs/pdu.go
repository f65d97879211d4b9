package fakehs

import (
	"encoding/json"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// pdu is an event of a room.
type pdu struct {
	ID       id.EventID
	Type     string
	StateKey *string // nil where it is no state
	Sender   id.UserID
	Content  json.RawMessage // canonical; what is left of it where it was redacted
	Time     int64           // in Unix milliseconds
	Redacts  id.EventID

	room       *room
	depth      int64
	pos        int64           // the place among all that the server has stored
	listed     time.Time       // when lists begin to have it
	prev       []*pdu          // what it was built on
	auth       []*pdu          // the state that allows it
	power      *pdu            // the power levels then
	base       *state          // the room's state that it was built on
	after      *state          // and that with it
	resolved   *state          // what state resolution made of the room when it was stored
	visibility string          // of the room's history then
	replaces   *pdu            // what it says that it replaced, nil where it says nothing
	before     json.RawMessage // what that had, as it is shown beside it
	original   json.RawMessage // the content before a redaction
	because    *pdu            // the redaction of it

	device *device // that sent it
	txn    string  // how the device called it
}

// in is the slot that a state event is in.
func (e *pdu) in() slot { return slot{e.Type, *e.StateKey} }

// isState tells whether it is the state event of the slot.
func (e *pdu) is(eventType, stateKey string) bool {
	return e != nil && e.StateKey != nil && e.Type == eventType && *e.StateKey == stateKey
}

// size is about how many bytes it has as it goes to other servers, with its addresses, hash and signature.
func (e *pdu) size() int {
	fields := object{
		"type": e.Type, "sender": e.Sender, "room_id": e.room.id, "content": e.Content, "origin_server_ts": e.Time, "depth": e.depth,
		"prev_events": idsOf(e.prev), "auth_events": idsOf(e.auth),
		"hashes":     object{"sha256": strings.Repeat("x", 43)},
		"signatures": object{string(e.Sender.Homeserver()): object{"ed25519:roomkv": strings.Repeat("x", 86)}},
		"origin":     e.Sender.Homeserver(),
		"unsigned":   object{},
	}
	if e.StateKey != nil {
		fields["state_key"] = *e.StateKey
	}
	if e.Redacts != "" {
		fields["redacts"] = e.Redacts
	}
	return len(canonical(fields))
}

func idsOf(events []*pdu) []id.EventID {
	ids := make([]id.EventID, len(events))
	for i, evt := range events {
		ids[i] = evt.ID
	}
	return ids
}

// place is where an event is shown.
type place int

const (
	inState     place = iota // by a request for the room's state
	inList                   // in a list of events, or by itself
	inSync                   // in a sync's timeline
	inSyncState              // in a sync's state
)

// show is the event as a device sees it.
func (e *pdu) show(s *Server, device *device, where place) object {
	shown := object{"type": e.Type, "event_id": e.ID, "sender": e.Sender, "content": e.Content, "origin_server_ts": e.Time}
	if where == inState || where == inList {
		shown["room_id"] = e.room.id
	}
	if e.StateKey != nil {
		shown["state_key"] = *e.StateKey
	}
	if e.Redacts != "" {
		shown["redacts"] = e.Redacts
	}
	if unsigned := e.unsigned(s, device, where); len(unsigned) > 0 {
		shown["unsigned"] = unsigned
	}
	return shown
}

// unsigned is what the server says of the event. Dendrite leaves it out of the state.
func (e *pdu) unsigned(s *Server, device *device, where place) object {
	unsigned := object{}
	if e.because != nil {
		unsigned["redacted_because"] = e.because.show(s, device, where)
		unsigned["redacted_by"] = e.because.ID
		if s.mode == Linear {
			return unsigned
		}
	}
	if s.mode == Forking {
		unsigned["age"] = max(0, s.now()-e.Time)
	}
	if e.replaces != nil && (s.mode == Forking || where != inState) {
		unsigned["replaces_state"] = e.replaces.ID
		if s.mode == Forking && e.before == nil && where != inState && where != inSyncState {
			e.before = e.replaces.Content // Synapse keeps it in a cache until the event is redacted, whatever comes of the one that it shows
		}
		if e.before != nil {
			unsigned["prev_sender"], unsigned["prev_content"] = e.replaces.Sender, e.before
		}
	}
	if e.txn != "" && e.device == device && (s.mode == Forking || where == inSync) {
		unsigned["transaction_id"] = e.txn
	}
	return unsigned
}
