package fakehs

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// readable finds the room of a request, and the state of it that its user may see: what is current, or was when they left. Who was
// banned sees nothing.
func (s *Server) readable(r *request) (*room, *state, error) {
	at, known := s.rooms[r.room()]
	if known {
		switch at.current.membership(r.device.user.id) {
		case "join":
			return at, at.current, nil
		case "leave":
			if left := at.lastState(r.device.user.id); left != nil {
				return at, left, nil
			}
		}
	}
	return nil, nil, forbid("User %s not in room %s, and room previews are disabled", r.device.user.id, r.room())
}

// lastState is the state as the user left, nil where they never were in the room.
func (r *room) lastState(user id.UserID) *state {
	for _, evt := range slices.Backward(r.log) {
		if evt.is("m.room.member", string(user)) && evt.replacedMembership() == "join" {
			return evt.after
		}
	}
	return nil
}

// replacedMembership is what a member event's target was before it.
func (e *pdu) replacedMembership() string { return e.base.membership(id.UserID(*e.StateKey)) }

// sorted is all of the state, in the order of its slots.
func (s *state) sorted() []*pdu {
	var all []*pdu
	for _, evt := range s.flat() {
		all = append(all, evt)
	}
	slices.SortFunc(all, func(a, b *pdu) int {
		if order := strings.Compare(a.Type, b.Type); order != 0 {
			return order
		}
		return strings.Compare(*a.StateKey, *b.StateKey)
	})
	return all
}

func (s *Server) allState(r *request) (any, error) {
	_, st, err := s.readable(r)
	if err != nil {
		return nil, err
	}
	shown := []object{}
	for _, evt := range st.sorted() {
		shown = append(shown, evt.show(s, r.device, inState))
	}
	return shown, nil
}

func (s *Server) getState(r *request) (any, error) {
	if evt := s.shownInstead(r); evt != nil && r.query.Get("format") != "event" {
		return evt.Content, nil
	}
	at, st, err := s.readable(r)
	if err != nil {
		return nil, err
	}
	evt := st.get(r.vars["type"], r.vars["key"])
	if evt == nil && s.shownInstead(r) != nil {
		evt = at.create
	}
	if evt == nil {
		return nil, notFound("Event not found.")
	}
	if r.query.Get("format") == "event" {
		return evt.show(s, r.device, inState), nil
	}
	return evt.Content, nil
}

// shownInstead is what Dendrite shows in place of the state that is asked for: to those who were invited, whatever that is, and to those
// who have left, where there was no such state.
func (s *Server) shownInstead(r *request) *pdu {
	at, known := s.rooms[r.room()]
	if !known || s.mode != Linear {
		return nil
	}
	own := r.device.user.id
	switch at.current.membership(own) {
	case "leave":
		if left := at.lastState(own); left == nil || left.get(r.vars["type"], r.vars["key"]) != nil {
			return nil
		}
	case "invite":
	default:
		return nil
	}
	return at.current.get("m.room.member", string(own))
}

func (s *Server) putState(r *request) (any, error) {
	content, err := s.content(r.body)
	if err != nil {
		return nil, err
	}
	key := r.vars["key"]
	return s.sendTo(r, draft{typ: r.vars["type"], stateKey: &key, content: content})
}

func (s *Server) sendMessage(r *request) (any, error) {
	content, err := s.content(r.body)
	if err != nil {
		return nil, err
	}
	return s.sendTo(r, draft{typ: r.vars["type"], txn: r.vars["txn"], content: content})
}

// sendTo sends an event to the room of a request, once for each transaction ID of a device.
func (s *Server) sendTo(r *request, d draft) (any, error) {
	d.sender, d.device = r.device.user.id, r.device
	txn := r.URL.Path
	s.mu.Lock()
	at, known := s.rooms[r.room()]
	before, done := r.device.done[txn]
	s.mu.Unlock()
	switch {
	case done && d.txn != "":
		return before, nil
	case !known:
		return nil, s.noRoom(r.room())
	}
	evt, err := s.send(at, d)
	if err != nil {
		return nil, err
	}
	answer := object{"event_id": evt.ID}
	if d.txn != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.device.done[txn] = answer
	}
	return answer, nil
}

// sees tells whether the user may see an event (Client-Server API, room history visibility).
func (evt *pdu) isSeenBy(user id.UserID) bool {
	now := evt.room.current.membership(user)
	shared := evt.visibility == "shared" || evt.visibility == "" || evt.visibility == "world_readable"
	if shared && now == "join" || evt.visibility == "world_readable" {
		return true
	}
	was := evt.after.membership(user)
	if evt.is("m.room.member", string(user)) && evt.replacedMembership() == "join" {
		was = "join" // they see themselves go
	}
	switch {
	case was == "join":
		return true
	case shared, evt.visibility == "invited" && was == "invite":
		return now == "join" || evt.room.joinedAfter(user, evt)
	}
	return false
}

// joinedAfter tells whether the user has joined after an event, also where they have left since.
func (r *room) joinedAfter(user id.UserID, evt *pdu) bool {
	for _, later := range slices.Backward(r.log) {
		if later.pos <= evt.pos {
			return false
		}
		if later.is("m.room.member", string(user)) && textOf(later.Content, "membership") == "join" {
			return true
		}
	}
	return false
}

// eventOf finds the event of a request, where the user may see it and lists have it.
func (s *Server) eventOf(r *request) (*pdu, error) {
	at, known := s.rooms[r.room()]
	if known {
		evt := at.events[r.event()]
		if evt != nil && evt.pos > 0 && s.isListed(evt) && evt.isSeenBy(r.device.user.id) {
			return evt, nil
		}
	}
	return nil, notFound("Event not found.")
}

func (s *Server) getEvent(r *request) (any, error) {
	if s.mode == Linear { // Dendrite does not mind in which room the event is
		for room, at := range s.rooms {
			if at.events[r.event()] != nil {
				r.vars["room"] = string(room)
			}
		}
	}
	evt, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	return evt.show(s, r.device, inList), nil
}

func (s *Server) redact(r *request) (any, error) {
	var asked struct {
		Reason string `json:"reason"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	s.mu.Lock()
	at, known := s.rooms[r.room()]
	var target *pdu
	may := false
	if known {
		if target = at.events[r.event()]; target != nil {
			power := levelsIn(at.current)
			may = target.Sender == r.device.user.id || power.of(r.device.user.id) >= or(power.Redact, 50)
		}
	}
	_, done := r.device.done[r.URL.Path]
	s.mu.Unlock()
	switch {
	case done:
	case !known:
		return nil, s.noRoom(r.room())
	case target == nil && s.mode == Linear:
		return nil, refuse(http.StatusBadRequest, "M_NOT_FOUND", "unknown event ID")
	case target != nil && !may: // Synapse sends a redaction of what it does not know
		return nil, forbid("You don't have permission to redact this event, power level too low.")
	}
	content := object{}
	if s.mode == Linear || at.version >= 11 {
		content["redacts"] = r.event()
	}
	if s.mode == Linear || asked.Reason != "" {
		content["reason"] = asked.Reason
	}
	return s.sendTo(r, draft{typ: "m.room.redaction", txn: r.vars["txn"], redacts: r.event(), content: canonical(content)})
}

// took is for an event that was stored: a redaction takes effect.
func (s *Server) took(evt *pdu) {
	if evt.Type != "m.room.redaction" || evt.Redacts == "" {
		return
	}
	target := evt.room.events[evt.Redacts]
	if target == nil {
		return
	}
	if s.mode == Forking {
		target.before = nil
	}
	if target.because != nil {
		return
	}
	target.because = evt
	target.Content = target.stripped()
}

// kept are the fields of a content that a redaction leaves (room version 11, redactions; those of versions before differ in what the
// store does not look at).
var kept = map[string][]string{
	"m.room.member":             {"membership"},
	"m.room.create":             {"creator", "room_version", "predecessor", "type", "additional_creators"},
	"m.room.join_rules":         {"join_rule", "allow"},
	"m.room.power_levels":       {"ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"},
	"m.room.history_visibility": {"history_visibility"},
	"m.room.redaction":          {"redacts"},
}

// stripped is what a redaction leaves of the content.
func (e *pdu) stripped() json.RawMessage {
	var all, left map[string]json.RawMessage
	_ = json.Unmarshal(e.Content, &all)
	left = map[string]json.RawMessage{}
	for _, name := range kept[e.Type] {
		if value, ok := all[name]; ok {
			left[name] = value
		}
	}
	return canonical(left)
}
