package wire

import (
	"encoding/json"

	"maunium.net/go/mautrix/id"
)

// PredecessorName is the name of the field that tells from which room the memory was moved when that room was upgraded. The field is
// written once all of the memory has been moved. In the per-key layout it is the state key of an event that has the field.
const PredecessorName = prefix + "predecessor"

// predecessor is the field's value. It is spelled as in m.room.create.
type predecessor struct {
	Room id.RoomID `json:"room_id"`
}

// Predecessor is the field's value.
func Predecessor(room id.RoomID) json.RawMessage { return marshal(predecessor{room}) }

// MovedFrom tells whether the field's value names the room. A homeserver can copy the field from the old room to the new one,
// where it then names another.
func MovedFrom(field json.RawMessage, room id.RoomID) bool {
	var from predecessor
	return json.Unmarshal(field, &from) == nil && from.Room == room && room != ""
}
