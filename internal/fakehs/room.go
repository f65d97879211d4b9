package fakehs

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	maxEvent    = 65536 // bytes of a whole event
	maxStateKey = 255   // bytes
	maxPrev     = 20    // how many events one can be built on
)

// room is a room.
type room struct {
	id      id.RoomID
	version int
	create  *pdu
	events  map[id.EventID]*pdu // also those that the server has dropped
	log     []*pdu              // in the order in which they were stored
	tips    []*pdu              // events that no other was built on
	current *state              // what state resolution makes of the tips
	last    map[id.UserID]*pdu  // each user's last event
	aliases []id.RoomAlias
}

// draft is an event that somebody wants to send.
type draft struct {
	sender   id.UserID
	device   *device
	txn      string
	typ      string
	stateKey *string
	content  []byte // canonical
	redacts  id.EventID
	time     int64 // in Unix milliseconds, 0 for what the clock says
}

// send stores an event, or gives the one that is current where that is the same. The caller does not have the lock.
func (s *Server) send(r *room, d draft) (*pdu, error) {
	write := Write{Room: r.id, Sender: d.sender, Type: d.typ, StateKey: d.stateKey}
	s.mu.Lock()
	defer s.mu.Unlock()
	meeting := (*together)(nil)
	for {
		evt, same, err := s.build(r, d)
		if err != nil || same {
			return evt, err
		}
		own := r.last[d.sender]
		if meeting == nil {
			meeting = s.meet()
		}
		s.mu.Unlock()
		s.pause(write, meeting)
		s.mu.Lock()
		if s.mode == Linear && r.last[d.sender] != own {
			continue // a user's events come one after the other
		}
		return evt, s.store(evt)
	}
}

// build makes an event of a draft, on what the room has now, or gives the one that is current.
func (s *Server) build(r *room, d draft) (evt *pdu, same bool, err error) {
	if d.stateKey != nil {
		now := r.current.get(d.typ, *d.stateKey)
		if now != nil && bytes.Equal(now.Content, d.content) && (s.mode == Linear || now.Sender == d.sender) {
			return now, true, nil
		}
	}
	evt = &pdu{Type: d.typ, StateKey: d.stateKey, Sender: d.sender, Content: d.content, original: d.content, Time: cmp.Or(d.time, s.now()), Redacts: d.redacts,
		room: r, device: d.device, txn: d.txn, prev: slices.Clone(r.tips[max(0, len(r.tips)-maxPrev):]), depth: 1}
	for _, prev := range evt.prev {
		evt.depth = max(evt.depth, prev.depth+1)
	}
	before := r.current
	if len(evt.prev) != len(r.tips) {
		before = resolve(statesOf(evt.prev))
	}
	evt.power = before.get("m.room.power_levels", "")
	evt.auth = authOf(before, evt)
	if err := authorize(before, evt); err != nil {
		return nil, false, err
	}
	if err := s.check(evt); err != nil {
		return nil, false, err
	}
	evt.ID = id.EventID("$" + s.text(43, base64URL))
	evt.base, evt.after = before, before
	if rule := before.get("m.room.history_visibility", ""); rule != nil {
		evt.visibility = textOf(rule.Content, "history_visibility")
	}
	if evt.StateKey != nil {
		evt.after = before.with(evt)
		if s.mode == Forking {
			evt.replaces = before.get(evt.Type, *evt.StateKey)
		}
	}
	return evt, false, nil
}

// check refuses what is too large.
func (s *Server) check(evt *pdu) error {
	code := "M_TOO_LARGE"
	if s.mode == Linear {
		code = "M_BAD_JSON"
	}
	if evt.StateKey != nil && len(*evt.StateKey) > maxStateKey {
		return refuse(http.StatusRequestEntityTooLarge, code, "the state key has %d bytes, more than %d", len(*evt.StateKey), maxStateKey)
	}
	if size := evt.size(); size > maxEvent {
		return refuse(http.StatusRequestEntityTooLarge, code, "the event has %d bytes, more than %d", size, maxEvent)
	}
	return nil
}

// hasMember notes that the room has a member event of the user.
func (s *Server) hasMember(r *room, user id.UserID) {
	if s.named[user] == nil {
		s.named[user] = map[*room]bool{}
	}
	s.named[user][r] = true
}

// store takes an event into the room.
func (s *Server) store(evt *pdu) error {
	r := evt.room
	r.events[evt.ID], r.last[evt.Sender] = evt, evt
	if s.mode == Linear && authorize(r.current, evt) != nil {
		return nil // Dendrite acknowledges it and never shows it: its sender has lost the power meanwhile
	}
	evt.pos = s.next()
	evt.listed = time.Now().Add(s.lag)
	before := r.current
	r.log = append(r.log, evt)
	if evt.StateKey != nil && evt.Type == "m.room.member" {
		s.hasMember(r, id.UserID(*evt.StateKey))
	}
	r.tips = append(slices.DeleteFunc(r.tips, func(tip *pdu) bool { return slices.Contains(evt.prev, tip) }), evt)
	if len(r.tips) == 1 {
		r.current = evt.after
	} else {
		r.current = resolve(statesOf(r.tips))
	}
	if s.mode == Linear && evt.StateKey != nil {
		// Dendrite names the event with the empty state key, whatever the event's own is, but for members.
		key := ""
		if evt.Type == "m.room.member" {
			key = *evt.StateKey
		}
		if evt.replaces = before.get(evt.Type, key); evt.replaces != nil {
			evt.before = evt.replaces.original // also where that was redacted
		}
	}
	evt.resolved = r.current
	s.took(evt)
	s.unlisted = append(s.unlisted, evt)
	if s.lag > 0 {
		time.AfterFunc(s.lag, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tell()
		})
	} else {
		s.tell()
	}
	return nil
}

func statesOf(events []*pdu) []*state {
	states := make([]*state, len(events))
	for i, evt := range events {
		states[i] = evt.after
	}
	return states
}

// isListed tells whether lists have the event by now.
func (s *Server) isListed(evt *pdu) bool { return evt.pos <= s.upTo() }

// upTo is the place up to which lists have all by now.
func (s *Server) upTo() int64 {
	for len(s.unlisted) > 0 {
		first := s.unlisted[0]
		if first.pos > s.settled && time.Now().Before(first.listed) {
			return first.pos - 1
		}
		s.unlisted = s.unlisted[1:]
	}
	return s.pos
}

// membership is the user's, "" where they never were in the room.
func (st *state) membership(user id.UserID) string {
	if evt := st.get("m.room.member", string(user)); evt != nil {
		return textOf(evt.Content, "membership")
	}
	return ""
}

// versionOf reads a room version.
func versionOf(text string) (int, error) {
	version, err := strconv.Atoi(text)
	if err != nil || version < 1 || version > 12 {
		return 0, refuse(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "room version '%s' is not known", text)
	}
	return version, nil
}
