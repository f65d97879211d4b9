// Package seal encrypts values into Megolm events, with the client's Crypto, and reads them. It does not decide where values are encrypted.
package seal

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/asked"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/lru"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/policy"
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
	KeyWait   time.Duration             // how long a read waits for a missing key, or event
	MinTrust  *id.TrustState            // nil where any is enough
	Live      func(room id.RoomID) bool // whether the sync tells of redactions
	Encrypted func(room id.RoomID)      // is told of each room that turns out to be encrypted
	Policy    *policy.Policy            // nil for the default

	opened  lru.Cache[eventAt, remembered]      // what encrypted events hold
	brought lru.Cache[eventAt, json.RawMessage] // encrypted events as the sync brought them

	missed  sync.Mutex                   // is held while what is missing is looked up and noted
	missing lru.Cache[string, time.Time] // when a session or an event was last waited for in vain, by its ID

	knowsDevices atomic.Bool // see learnDevices
}

// eventAt is an event in a room: in old room versions a homeserver can give two events one ID.
type eventAt struct {
	room id.RoomID
	id   id.EventID
}

// Opened is what an encrypted event holds, which does not change.
type Opened struct {
	Values map[string]json.RawMessage // by name; see [wire.Unseal]
	Sender id.UserID
	Trust  id.TrustState // when it was decrypted
	size   int           // of the content, in bytes
}

// remembered is an event that was read or written.
type remembered struct {
	*Opened
	there asked.Time // when the homeserver was last known to have it
}

// Bring takes an encrypted event as the sync has brought it.
func (m *Megolm) Bring(room id.RoomID, event id.EventID, text json.RawMessage) {
	m.brought.Keep(eventAt{room, event}, text, len(text), maxBrought)
}

// Forget is for an event that was redacted.
func (m *Megolm) Forget(room id.RoomID, event id.EventID) {
	m.brought.Forget(eventAt{room, event})
	m.opened.Forget(eventAt{room, event})
}

// Room is a room in which values are encrypted.
type Room struct {
	matrix.Room
	*Megolm

	WaitUntil time.Time // when reads no longer wait for missing keys and events, zero where each has its own time
}

// miss tells how long the session or event is to be waited for, and whether it must be asked for first: one of those who want it asks, and who
// comes later waits as long as that one.
func (r Room) miss(what string) (wait time.Duration, ask bool) {
	r.missed.Lock()
	defer r.missed.Unlock()
	wait = r.KeyWait
	if at, ok := r.missing.Get(what); ok && time.Since(at) < max(r.KeyWait, r.Policy.Or().KeyAgain) {
		wait -= time.Since(at)
	} else {
		r.missing.Keep(what, time.Now(), 1, maxMissing)
		ask = true
	}
	if !r.WaitUntil.IsZero() {
		wait = min(wait, time.Until(r.WaitUntil))
	}
	return wait, ask
}

func (r Room) at(event id.EventID) eventAt { return eventAt{r.ID, event} }

// remember notes what an event holds, and that the homeserver has it.
func (r Room) remember(at id.EventID, event *Opened) {
	r.brought.Forget(r.at(at))
	r.opened.Keep(r.at(at), remembered{event, asked.Now(false)}, event.size, maxOpened)
}

// Sealer encrypts the room's values.
func (r Room) Sealer() commit.Sealer { return sealer{r} }

// Size is how much of an event the value takes with its key, in bytes before encryption; see [MaxShared].
func Size(value commit.Value) (int, error) {
	text, err := content([]commit.Value{value})
	return len(text), err
}
