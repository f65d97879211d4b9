package fakehs

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/id"
)

// levels are the room's power levels, which up to room version 9 can be strings.
type levels struct {
	Users         map[id.UserID]level `json:"users"`
	UsersDefault  *level              `json:"users_default"`
	Events        map[string]level    `json:"events"`
	EventsDefault *level              `json:"events_default"`
	StateDefault  *level              `json:"state_default"`
	Ban           *level              `json:"ban"`
	Kick          *level              `json:"kick"`
	Redact        *level              `json:"redact"`
	Invite        *level              `json:"invite"`

	none     bool // whether the room has none
	creators []id.UserID
}

// level is a power level.
type level int

// all is the power of a room's creators since room version 12.
const all level = math.MaxInt

// UnmarshalJSON reads a number or a string with one.
func (l *level) UnmarshalJSON(text []byte) error {
	number, err := strconv.Atoi(strings.TrimSpace(strings.Trim(string(text), `"`)))
	*l = level(number)
	return err
}

// levelsIn reads the power levels of a state.
func levelsIn(st *state) *levels {
	var read levels
	create := st.get("m.room.create", "")
	if evt := st.get("m.room.power_levels", ""); evt == nil || json.Unmarshal(evt.Content, &read) != nil {
		read = levels{none: true}
	}
	if create == nil {
		return &read
	}
	switch {
	case create.room.version >= 12:
		read.creators = create.room.creators()
	case read.none:
		read.Users = map[id.UserID]level{create.Sender: 100}
	}
	return &read
}

func (l *levels) of(user id.UserID) level {
	for _, creator := range l.creators {
		if creator == user {
			return all
		}
	}
	if own, ok := l.Users[user]; ok {
		return own
	}
	return or(l.UsersDefault, 0)
}

// toSend is the power that it takes to send an event.
func (l *levels) toSend(eventType string, isState bool) level {
	if need, ok := l.Events[eventType]; ok {
		return need
	}
	switch {
	case !isState:
		return or(l.EventsDefault, 0)
	case l.none:
		return 0
	}
	return or(l.StateDefault, 50)
}

func or(l *level, otherwise level) level {
	if l == nil {
		return otherwise
	}
	return *l
}

// creators are the room's, who have all power since room version 12.
func (r *room) creators() []id.UserID {
	var content struct {
		Additional []id.UserID `json:"additional_creators"`
	}
	_ = json.Unmarshal(r.create.Content, &content)
	return append(content.Additional, r.create.Sender)
}

// textOf is a string in a JSON object, "" where there is none.
func textOf(content json.RawMessage, name string) string {
	var fields map[string]json.RawMessage
	var text string
	if json.Unmarshal(content, &fields) == nil {
		_ = json.Unmarshal(fields[name], &text)
	}
	return text
}
