package wire

import (
	"encoding/json"

	"maunium.net/go/mautrix/id"
)

// PredecessorName is the name of the field that tells from which room the memory was moved when that room was upgraded. The field is
// written once all has been moved that the mover could read. In the per-key layout it is the state key of an event that has the field.
const PredecessorName = prefix + "predecessor"

// predecessor is what stands in the field. The room is spelled as in m.room.create.
type predecessor struct {
	Room id.RoomID `json:"room_id"`
	Left int       `json:"left,omitempty"`
}

// Predecessor is the field's value. left is how many values the mover could not read, and has left for a client that can.
func Predecessor(room id.RoomID, left int) json.RawMessage { return marshal(predecessor{room, left}) }

// MovedFrom tells whether the field's value names the room, and how many values were left there. A homeserver can copy the field
// from the old room to the new one, where it then names another.
func MovedFrom(field json.RawMessage, room id.RoomID) (moved bool, left int) {
	var from predecessor
	if json.Unmarshal(field, &from) != nil || from.Room != room || room == "" {
		return false, 0
	}
	return true, from.Left
}
