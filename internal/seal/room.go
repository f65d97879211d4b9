// Package seal encrypts values into Megolm events, with the client's Crypto, and reads them. It does not decide where values are encrypted.
package seal

import (
	"context"
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
)

// Backup keeps Megolm sessions outside of the client's crypto store; package roomkv documents it as KeyBackup.
type Backup interface {
	Save(ctx context.Context, room id.RoomID, session id.SessionID) error
	Restore(ctx context.Context, room id.RoomID, session id.SessionID) (found bool, err error)
}

// Megolm is what all rooms of a store share: what its options say, and which events it has encrypted or decrypted. The fields are set
// before the first use. It is safe for concurrent use.
type Megolm struct {
	Type      string                    // of the events inside encrypted ones
	Backup    Backup                    // nil where there is none
	KeyWait   time.Duration             // how long a read waits for a missing key
	MinTrust  *id.TrustState            // nil where any is enough
	Live      func(room id.RoomID) bool // whether the sync tells of redactions
	Encrypted func(room id.RoomID)      // is told of each room that turns out to be encrypted

	opened  openedEvents
	devices ownDevices
}

// Bring takes an encrypted event as the sync has brought it.
func (m *Megolm) Bring(room id.RoomID, event id.EventID, text json.RawMessage) {
	m.opened.bring(eventAt{room, event}, text)
}

// Forget is for an event that was redacted.
func (m *Megolm) Forget(room id.RoomID, event id.EventID) { m.opened.forget(eventAt{room, event}) }

// Room is a room in which values are encrypted.
type Room struct {
	matrix.Room
	*Megolm

	WaitUntil time.Time // when reads no longer wait for missing keys, zero where each has its own time
}

// Sealer encrypts the room's values.
func (r Room) Sealer() commit.Sealer { return sealer{r} }

// Size is how much of an event the value takes with its key, in bytes before encryption; see [MaxShared].
func Size(value commit.Value) (int, error) {
	text, err := content([]commit.Value{value})
	return len(text), err
}
