package seal

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/lru"
)

const (
	// maxOpened is how much of decrypted events is remembered, in bytes of their contents, and maxBroughtSize how much of
	// encrypted ones that the sync brought and nobody has asked for yet.
	maxOpened      = 16 << 20
	maxBroughtSize = 2 << 20

	// waitAgain is how long a Megolm session is not waited for that was waited for in vain, nor asked for, and maxMissing
	// how many such sessions are remembered.
	waitAgain  = time.Minute
	maxMissing = 1024

	// withheldPause is between two looks for a session that was withheld.
	withheldPause = 100 * time.Millisecond
)

// eventAt is an event in a room: in old room versions a homeserver can give two events one ID.
type eventAt struct {
	room id.RoomID
	id   id.EventID
}

func (r Room) at(event id.EventID) eventAt { return eventAt{r.ID, event} }

// Opened is what an encrypted event holds, which does not change.
type Opened struct {
	Values map[string]json.RawMessage // by name; see [wire.Unseal]
	Sender id.UserID
	Trust  id.TrustState // when it was decrypted
	size   int

	there atomic.Int64 // when the homeserver was last known to have it, in Unix nanoseconds
}

// openedEvents remembers encrypted events, which never change, and which sessions are missing. The zero value is ready, and
// methods are safe for concurrent use.
type openedEvents struct {
	mu      sync.Mutex
	events  lru.Cache[eventAt, *Opened]
	brought lru.Cache[eventAt, json.RawMessage] // as the sync brought them
	missing lru.Cache[id.SessionID, time.Time]  // when a session was last waited for in vain
}

// get is nil where the event is not known.
func (o *openedEvents) get(at eventAt) *Opened {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, _ := o.events.Get(at)
	return known
}

func (o *openedEvents) put(at eventAt, event *Opened) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Forget(at)
	o.events.Most, o.events.Size = maxOpened, func(event *Opened) int { return event.size }
	event.there.Store(time.Now().UnixNano())
	o.events.Put(at, event)
}

func (o *openedEvents) bring(at eventAt, text json.RawMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Most, o.brought.Size = maxBroughtSize, func(text json.RawMessage) int { return len(text) }
	o.brought.Put(at, text)
}

// forget is for an event that was redacted.
func (o *openedEvents) forget(at eventAt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Forget(at)
	o.events.Forget(at)
}

func (o *openedEvents) broughtAs(at eventAt) json.RawMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, _ := o.brought.Get(at)
	return text
}

// miss tells how long the session is to be waited for, at most so long, and whether it must be asked for first: one of
// those who want it asks, and who comes later waits as long as that one.
func (o *openedEvents) miss(session id.SessionID, most time.Duration) (wait time.Duration, ask bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.missing.Get(session); ok && time.Since(at) < max(most, waitAgain) {
		return most - time.Since(at), false
	}
	o.missing.Most = maxMissing
	o.missing.Put(session, time.Now())
	return most, true
}
