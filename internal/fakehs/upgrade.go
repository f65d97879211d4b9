package fakehs

import (
	"encoding/json"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// copied are the types of state that Synapse takes into the new room. Dendrite takes all.
var copied = []string{"m.room.join_rules", "m.room.name", "m.room.topic", "m.room.history_visibility", "m.room.guest_access", "m.room.avatar",
	"m.room.encryption", "m.room.server_acl", "m.room.power_levels"}

// upgrade replaces a room. Its tombstone gets its place among events before the new room is made, and is stored afterwards, so that what
// others write meanwhile is stored before it.
func (s *Server) upgrade(r *request) (any, error) {
	var asked struct {
		Version string `json:"new_version"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	version, err := versionOf(asked.Version)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.rooms[r.room()]
	if !known {
		return nil, s.noRoom(r.room())
	}
	next, empty, now := s.roomID(version), "", s.oneTime()
	tombstone, _, err := s.build(old, draft{sender: r.device.user.id, device: r.device, typ: "m.room.tombstone", stateKey: &empty,
		content: canonical(object{"body": "This room has been replaced", "replacement_room": next}), time: now})
	if err != nil {
		return nil, err
	}
	predecessor := object{"room_id": old.id}
	if version < 12 {
		predecessor["event_id"] = tombstone.ID
	}
	made := newRoom{Preset: "private_chat", Version: asked.Version, Create: object{"predecessor": predecessor}, id: next, time: now}
	made.Initial, made.Power = s.carried(old, version, r.device.user.id)
	if _, err := s.makeRoom(r.device, made); err != nil {
		return nil, err
	}
	s.mu.Unlock()
	s.pause(Write{Room: old.id, Sender: tombstone.Sender, Type: tombstone.Type, StateKey: &empty}, nil)
	s.mu.Lock()
	if err := s.store(tombstone); err != nil {
		return nil, err
	}
	for _, alias := range old.aliases {
		s.aliases[alias] = next
	}
	s.rooms[next].aliases, old.aliases = old.aliases, nil
	if s.mode == Linear {
		alias := draft{sender: r.device.user.id, device: r.device, typ: "m.room.canonical_alias", stateKey: &empty, content: []byte("{}"), time: now}
		if _, err := s.put(old, alias); err != nil {
			return nil, err
		}
	}
	return object{"replacement_room": next}, s.close(r.device, old, now)
}

// carried is the state that goes into the new room, and the power levels there.
func (s *Server) carried(old *room, version int, by id.UserID) (state []initial, power json.RawMessage) {
	for _, evt := range old.current.sorted() {
		switch {
		case evt.Type == "m.room.create" || evt.Type == "m.room.tombstone":
		case evt.Type == "m.room.member":
			if textOf(evt.Content, "membership") == "ban" {
				state = append(state, initial{evt.Type, *evt.StateKey, evt.Content})
			}
		case evt.is("m.room.power_levels", ""):
			power = evt.Content
		case strings.HasPrefix(*evt.StateKey, "@"): // it needs its user in the room
		case s.mode == Linear || slices.Contains(copied, evt.Type) && *evt.StateKey == "":
			state = append(state, initial{evt.Type, *evt.StateKey, evt.Content})
		}
	}
	if version < 12 || power == nil {
		return state, power
	}
	var levels map[string]any
	_ = json.Unmarshal(power, &levels)
	if users, ok := levels["users"].(map[string]any); ok {
		delete(users, string(by))
	}
	return state, canonical(levels)
}

// close takes the power to talk in the old room from those who have none above it.
func (s *Server) close(by *device, old *room, now int64) error {
	open := old.current.get("m.room.power_levels", "")
	if open == nil {
		return nil
	}
	var levels map[string]any
	if err := json.Unmarshal(open.Content, &levels); err != nil {
		return err
	}
	need := max(50, int(or(levelsIn(old.current).UsersDefault, 0))+1)
	levels["events_default"], levels["invite"] = need, need
	empty := ""
	_, err := s.put(old, draft{sender: by.user.id, device: by, typ: "m.room.power_levels", stateKey: &empty, content: canonical(levels), time: now})
	return err
}
