package fakehs

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	mostPushed = 100              // events in a transaction, as on Synapse
	pushAgain  = time.Millisecond // the first pause after a transaction that was not taken; it doubles
)

// AppService makes the server know an application service by its token: with that it acts as any user of the server that the query's user_id names, and as
// the sender otherwise.
func (s *Server) AppService(token string, sender id.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.services == nil {
		s.services = map[string]id.UserID{}
	}
	s.services[token] = sender
	if s.users[sender] == nil {
		s.addUser(sender, "")
	}
}

// masquerade finds whose a request of an application service is: a device of the user that has no other name than the token.
func (s *Server) masquerade(token string, r *request) (*device, error) {
	sender, known := s.services[token]
	if !known {
		return nil, nil
	}
	as := cmp.Or(id.UserID(r.query.Get("user_id")), sender)
	own := s.users[as]
	if own == nil {
		return nil, refuse(http.StatusForbidden, "M_FORBIDDEN", "Application service has not registered this user (%s)", as)
	}
	named := id.DeviceID("of " + token)
	if own.devices[named] == nil {
		own.devices[named] = &device{user: own, id: named, done: map[string]any{}}
	}
	return own.devices[named], nil
}

// Stored is the place of what was stored last.
func (s *Server) Stored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos
}

// Push gives what is stored after a place to deliver, as the server gives it to an application service: all events of all rooms in the order in which they
// were stored, some in each transaction. One that fails comes again, as it was, until it does not. Push returns when ctx ends.
func (s *Server) Push(ctx context.Context, after int64, deliver func(events []json.RawMessage) error) {
	for {
		s.mu.Lock()
		changed := s.changed
		events, last := s.stored(after)
		s.mu.Unlock()
		if len(events) == 0 {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		for pause := pushAgain; deliver(events) != nil; pause *= 2 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
		after = last
	}
}

// stored are the next events after a place, and where the last of them is.
func (s *Server) stored(after int64) (events []json.RawMessage, last int64) {
	var all []*pdu
	for _, at := range s.rooms {
		for _, evt := range slices.Backward(at.log) {
			if evt.pos <= after {
				break
			}
			all = append(all, evt)
		}
	}
	slices.SortFunc(all, func(a, b *pdu) int { return cmp.Compare(a.pos, b.pos) })
	for _, evt := range all[:min(len(all), mostPushed)] {
		events, last = append(events, canonical(evt.show(s, nil, inList))), evt.pos
	}
	return events, last
}
