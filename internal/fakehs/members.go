package fakehs

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// joins is the content of the user's membership in a room.
func (u *user) joins() object {
	content := object{"membership": "join", "displayname": u.displayName}
	if u.avatar != "" {
		content["avatar_url"] = u.avatar
	}
	return content
}

func (s *Server) joinsOf(name id.UserID) object {
	if known := s.users[name]; known != nil {
		return known.joins()
	}
	return object{}
}

// setMembership changes somebody's membership in a room. The caller does not have the lock.
func (s *Server) setMembership(by *device, at *room, target id.UserID, membership, reason string) error {
	s.mu.Lock()
	content := object{}
	if membership == "join" || membership == "invite" {
		content = s.joinsOf(target)
	}
	s.mu.Unlock()
	content["membership"] = membership
	if reason != "" {
		content["reason"] = reason
	}
	key := string(target)
	_, err := s.send(at, draft{sender: by.user.id, device: by, typ: "m.room.member", stateKey: &key, content: canonical(content)})
	return err
}

// aboutMember is the body of a request that changes a membership.
type aboutMember struct {
	User   id.UserID `json:"user_id"`
	Reason string    `json:"reason"`
}

// change is a handler that changes the membership of the user that the body names, or of who asks where it names none.
func (s *Server) change(r *request, membership string, needs func(was string) error) (any, error) {
	var asked aboutMember
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	target := asked.User
	if target == "" {
		target = r.device.user.id
	}
	s.mu.Lock()
	at, known := s.rooms[r.room()]
	was := ""
	if known {
		was = at.current.membership(target)
	}
	s.mu.Unlock()
	if !known {
		return nil, s.noRoom(r.room())
	}
	if needs != nil {
		if err := needs(was); err != nil {
			return nil, err
		}
	}
	return object{}, s.setMembership(r.device, at, target, membership, asked.Reason)
}

// noRoom is the refusal of what is about a room that there is not.
func (s *Server) noRoom(room id.RoomID) error {
	if s.mode == Linear {
		return refuse(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "missing room info for room %s", room)
	}
	return forbid("not in room %s", room)
}

func (s *Server) invite(r *request) (any, error) { return s.change(r, "invite", nil) }
func (s *Server) ban(r *request) (any, error)    { return s.change(r, "ban", nil) }
func (s *Server) leave(r *request) (any, error)  { return s.change(r, "leave", nil) }

func (s *Server) kick(r *request) (any, error) {
	return s.change(r, "leave", func(was string) error {
		if was != "join" && was != "invite" {
			return forbid("the user is not in the room")
		}
		return nil
	})
}

func (s *Server) unban(r *request) (any, error) {
	return s.change(r, "leave", func(was string) error {
		if was != "ban" {
			return forbid("the user is not banned")
		}
		return nil
	})
}

func (s *Server) join(r *request) (any, error) { return s.joinRoom(r, r.room()) }

func (s *Server) joinTarget(r *request) (any, error) {
	target := r.vars["target"]
	if !strings.HasPrefix(target, "#") {
		return s.joinRoom(r, id.RoomID(target))
	}
	s.mu.Lock()
	room, ok := s.aliases[id.RoomAlias(target)]
	s.mu.Unlock()
	if !ok {
		return nil, notFound("no such alias")
	}
	return s.joinRoom(r, room)
}

func (s *Server) joinRoom(r *request, room id.RoomID) (any, error) {
	s.mu.Lock()
	at, known := s.rooms[room]
	own := r.device.user
	joined := known && at.current.membership(own.id) == "join"
	delete(own.forgotten, room)
	s.mu.Unlock()
	switch {
	case !known:
		return nil, notFound("no known servers")
	case joined:
		return object{"room_id": room}, nil
	}
	return object{"room_id": room}, s.setMembership(r.device, at, own.id, "join", "")
}

func (s *Server) forget(r *request) (any, error) {
	at, known := s.rooms[r.room()]
	if !known || at.current.membership(r.device.user.id) == "join" {
		return nil, refuse(http.StatusBadRequest, "M_UNKNOWN", "the user is in the room")
	}
	r.device.user.forgotten[at.id] = true
	return object{}, nil
}

// roomsOf are the rooms in which the user has a membership, in the order of their IDs.
func (s *Server) roomsOf(own *user) []*room {
	var found []*room
	for at := range s.named[own.id] {
		if at.current.membership(own.id) != "" {
			found = append(found, at)
		}
	}
	slices.SortFunc(found, func(a, b *room) int { return strings.Compare(string(a.id), string(b.id)) })
	return found
}

func (s *Server) joinedRooms(r *request) (any, error) {
	joined := []id.RoomID{}
	for _, at := range s.roomsOf(r.device.user) {
		if at.current.membership(r.device.user.id) == "join" {
			joined = append(joined, at.id)
		}
	}
	return object{"joined_rooms": joined}, nil
}

func (s *Server) members(r *request) (any, error) {
	_, st, err := s.readable(r)
	if err != nil {
		return nil, err
	}
	wanted, not := r.query.Get("membership"), r.query.Get("not_membership")
	chunk := []object{}
	for _, evt := range st.sorted() {
		if evt.Type != "m.room.member" {
			continue
		}
		membership := textOf(evt.Content, "membership")
		if wanted != "" && membership != wanted || not != "" && membership == not {
			continue
		}
		chunk = append(chunk, evt.show(s, r.device, inState))
	}
	return object{"chunk": chunk}, nil
}

func (s *Server) joinedMembers(r *request) (any, error) {
	_, st, err := s.readable(r)
	if err != nil {
		return nil, err
	}
	joined := object{}
	for _, evt := range st.sorted() {
		var content struct {
			Membership  string `json:"membership"`
			DisplayName string `json:"displayname"`
			Avatar      string `json:"avatar_url"`
		}
		if evt.Type == "m.room.member" && json.Unmarshal(evt.Content, &content) == nil && content.Membership == "join" {
			joined[*evt.StateKey] = object{"display_name": content.DisplayName, "avatar_url": content.Avatar}
		}
	}
	return object{"joined": joined}, nil
}
