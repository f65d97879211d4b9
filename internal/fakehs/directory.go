package fakehs

import (
	"net/http"

	"maunium.net/go/mautrix/id"
)

func (s *Server) addAlias(at *room, alias id.RoomAlias) {
	s.aliases[alias] = at.id
	at.aliases = append(at.aliases, alias)
}

func (s *Server) resolveAlias(r *request) (any, error) {
	room, ok := s.aliases[id.RoomAlias(r.vars["alias"])]
	if !ok {
		return nil, notFound("Room alias %s not found", r.vars["alias"])
	}
	return object{"room_id": room, "servers": []string{s.name}}, nil
}

func (s *Server) createAlias(r *request) (any, error) {
	var asked struct {
		Room id.RoomID `json:"room_id"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	alias := id.RoomAlias(r.vars["alias"])
	at, known := s.rooms[asked.Room]
	switch _, taken := s.aliases[alias]; {
	case taken:
		return nil, refuse(http.StatusConflict, "M_UNKNOWN", "the alias is taken")
	case !known || at.current.membership(r.device.user.id) != "join":
		return nil, forbid("not in the room")
	}
	s.addAlias(at, alias)
	return object{}, nil
}

func (s *Server) deleteAlias(r *request) (any, error) {
	alias := id.RoomAlias(r.vars["alias"])
	if _, ok := s.aliases[alias]; !ok {
		return nil, notFound("no such alias")
	}
	delete(s.aliases, alias)
	return object{}, nil
}
