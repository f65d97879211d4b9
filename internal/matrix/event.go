package matrix

import (
	"bytes"
	"encoding/json"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Event is a state event as the homeserver gives it, its content unread.
type Event struct {
	ID       id.EventID      `json:"event_id"`
	Sender   id.UserID       `json:"sender"`
	Time     int64           `json:"origin_server_ts"` // Unix milliseconds
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		ReplacesState id.EventID      `json:"replaces_state"`
		Before        json.RawMessage `json:"prev_content"` // what was current before, as it was then where that was redacted since
		Redaction     json.RawMessage `json:"redacted_because"`
	} `json:"unsigned"`

	Listed bool `json:"-"` // whether it comes from a list of events, so that its place among others is known
}

// IsRooms tells whether the event is one of those of that type that say something of the whole room: the ones with an empty state key.
func (e *Event) IsRooms(eventType event.Type) bool {
	return e.Type == eventType.Type && e.StateKey != nil && *e.StateKey == ""
}

// changesPower tells whether the event changes the room's power levels, which a new room gets with its first events.
func (e *Event) changesPower() bool {
	return e != nil && e.IsRooms(event.StatePowerLevels) && (e.Unsigned.ReplacesState != "" || len(e.Unsigned.Before) > 0)
}

// Redacted tells whether somebody has redacted the event, so that nobody knows what it held.
func (e *Event) Redacted() bool {
	return len(e.Unsigned.Redaction) > 0 && string(e.Unsigned.Redaction) != "null" && len(bytes.Trim(e.Content, "{} \t\r\n")) == 0
}

// Parsed is the event of a room as mautrix has it, with its content read as that of the type. It is nil where that is none of the type.
func (e *Event) Parsed(room id.RoomID, as event.Type) *event.Event {
	parsed := &event.Event{ID: e.ID, Sender: e.Sender, Timestamp: e.Time, Type: as, StateKey: e.StateKey, RoomID: room}
	if json.Unmarshal(e.Content, &parsed.Content) != nil || parsed.Content.ParseRaw(as) != nil {
		return nil
	}
	return parsed
}

// Size is about how long the event is, in bytes.
func (e *Event) Size() int {
	return len(e.ID) + len(e.Sender) + len(*e.StateKey) + len(e.Content) + len(e.Unsigned.Before) + len(e.Unsigned.Redaction)
}
