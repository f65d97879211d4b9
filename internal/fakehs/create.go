package fakehs

import (
	"encoding/json"
	"strconv"

	"maunium.net/go/mautrix/id"
)

// preset is what the settings of a new room are to begin with.
type preset struct{ joinRule, history, guests string }

var presets = map[string]preset{
	"private_chat":         {"invite", "shared", "can_join"},
	"trusted_private_chat": {"invite", "shared", "can_join"},
	"public_chat":          {"public", "shared", "forbidden"},
}

// defaultVersion is the version of a new room that names none.
func (s *Server) defaultVersion() string {
	if s.mode == Forking {
		return "11"
	}
	return "10"
}

// initial is a state event of a new room.
type initial struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// newRoom is what a room is made from.
type newRoom struct {
	Preset     string          `json:"preset"`
	Visibility string          `json:"visibility"`
	Version    string          `json:"room_version"`
	Create     object          `json:"creation_content"`
	Initial    []initial       `json:"initial_state"`
	Power      json.RawMessage `json:"power_level_content_override"`
	Invite     []id.UserID     `json:"invite"`
	IsDirect   bool            `json:"is_direct"`
	Name       string          `json:"name"`
	Topic      string          `json:"topic"`
	Alias      string          `json:"room_alias_name"`

	id   id.RoomID // of the new room, "" for any
	time int64     // of its first events, 0 for what the clock says
}

func (s *Server) createRoom(r *request) (any, error) {
	var asked newRoom
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	if asked.Version == "" {
		asked.Version = s.defaultVersion()
	}
	if asked.Preset == "" {
		asked.Preset = "private_chat"
		if asked.Visibility == "public" {
			asked.Preset = "public_chat"
		}
	}
	alias := id.NewRoomAlias(asked.Alias, s.name)
	if _, taken := s.aliases[alias]; taken && asked.Alias != "" {
		return nil, refuse(400, "M_ROOM_IN_USE", "the alias is taken")
	}
	asked.time = s.oneTime()
	made, err := s.makeRoom(r.device, asked)
	if err != nil {
		return nil, err
	}
	if asked.Alias != "" {
		s.addAlias(made, alias)
	}
	return object{"room_id": made.id}, nil
}

// makeRoom makes a room with all its first events.
func (s *Server) makeRoom(by *device, asked newRoom) (*room, error) {
	version, err := versionOf(asked.Version)
	if err != nil {
		return nil, err
	}
	own := by.user
	made := &room{version: version, events: map[id.EventID]*pdu{}, last: map[id.UserID]*pdu{}, current: noState}
	if made.id = asked.id; made.id == "" {
		made.id = s.roomID(version)
	}
	create := object{}
	for name, value := range asked.Create {
		create[name] = value
	}
	create["room_version"] = strconv.Itoa(version)
	if version < 11 {
		create["creator"] = own.id
	}
	if version >= 12 && asked.Preset == "trusted_private_chat" {
		create["additional_creators"] = asked.Invite
	}
	began := presets[asked.Preset]
	events := []initial{
		{"m.room.create", "", canonical(create)},
		{"m.room.member", string(own.id), canonical(own.joins())},
		{"m.room.power_levels", "", nil}, // as soon as it is known who the creators are
		{"m.room.join_rules", "", canonical(object{"join_rule": began.joinRule})},
		{"m.room.history_visibility", "", canonical(object{"history_visibility": began.history})},
		{"m.room.guest_access", "", canonical(object{"guest_access": began.guests})},
	}
	if asked.Alias != "" {
		events = append(events, initial{"m.room.canonical_alias", "", canonical(object{"alias": id.NewRoomAlias(asked.Alias, s.name)})})
	}
	if asked.Name != "" {
		events = append(events, initial{"m.room.name", "", canonical(object{"name": asked.Name})})
	}
	if asked.Topic != "" {
		events = append(events, initial{"m.room.topic", "", canonical(object{"topic": asked.Topic})})
	}
	for _, given := range asked.Initial {
		if given.Content, err = s.content(given.Content); err != nil {
			return nil, err
		}
		events = replaceIn(events, given)
	}
	for _, invited := range asked.Invite {
		content := s.joinsOf(invited)
		content["membership"] = "invite"
		if asked.IsDirect {
			content["is_direct"] = true
		}
		events = append(events, initial{"m.room.member", string(invited), canonical(content)})
	}
	for _, evt := range events {
		if evt.Type == "m.room.power_levels" && evt.Content == nil {
			if evt.Content, err = s.firstLevels(made, asked); err != nil {
				return nil, err
			}
		}
		if _, err := s.put(made, draft{sender: own.id, device: by, typ: evt.Type, stateKey: &evt.StateKey, content: evt.Content, time: asked.time}); err != nil {
			return nil, err
		}
	}
	s.rooms[made.id] = made
	return made, nil
}

// oneTime is the time of all events that one request makes: Dendrite gives them the same.
func (s *Server) oneTime() int64 {
	if s.mode == Linear {
		return s.now()
	}
	return 0
}

// roomID makes an ID. Since version 12 those of rooms name no server.
func (s *Server) roomID(version int) id.RoomID {
	if version >= 12 {
		return id.RoomID("!" + s.text(43, base64URL))
	}
	return id.RoomID("!" + s.text(18, letters) + ":" + s.name)
}

// replaceIn puts an event in the place of the one with the same slot, or last.
func replaceIn(events []initial, evt initial) []initial {
	for i := range events {
		if events[i].Type == evt.Type && events[i].StateKey == evt.StateKey {
			events[i] = evt
			return events
		}
	}
	return append(events, evt)
}

// firstLevels are the power levels of a new room.
func (s *Server) firstLevels(made *room, asked newRoom) (json.RawMessage, error) {
	tombstone, users := 100, object{}
	if made.version >= 12 {
		tombstone = 150
	} else {
		users[string(made.create.Sender)] = 100
		if asked.Preset == "trusted_private_chat" {
			for _, invited := range asked.Invite {
				users[string(invited)] = 100
			}
		}
	}
	content := object{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0,
		"events": object{
			"m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.canonical_alias": 50, "m.room.avatar": 50,
			"m.room.tombstone": tombstone, "m.room.server_acl": 100, "m.room.encryption": 100,
		},
	}
	if s.mode == Linear {
		content["notifications"] = object{"room": 50}
	}
	if len(asked.Power) > 0 {
		text, err := s.content(asked.Power)
		if err != nil {
			return nil, err
		}
		var over map[string]json.RawMessage
		if err := json.Unmarshal(text, &over); err != nil {
			return nil, err
		}
		for name, value := range over {
			content[name] = value
		}
	}
	return s.content(canonical(content))
}

// put is send for who has the lock: nothing comes between.
func (s *Server) put(r *room, d draft) (*pdu, error) {
	evt, same, err := s.build(r, d)
	if err != nil || same {
		return evt, err
	}
	if d.typ == "m.room.create" {
		r.create = evt
	}
	return evt, s.store(evt)
}
