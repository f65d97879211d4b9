package roomkv

import (
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// Revision is the ID of the state event in which a value was read, or that brought a [Change]; in account data something of
// that kind (see [WithAccountDataFallback]). [Store.CompareAndPut]
// tells by it whether the key has changed since, and [WatchFrom] begins there. In the single-state-key layout an entry's
// revision is another one whenever any key has changed; CompareAndPut does not mind that. It is empty for what waits for a flush (see [WithFlushEvery]).
type Revision string

// Entry is a key with its value and what Matrix knows of it.
type Entry struct {
	Key       string
	Value     json.RawMessage
	Revision  Revision
	Sender    id.UserID // who sent the state event: in the single-state-key layout, who last changed any key
	Time      time.Time // when, by the sender's homeserver's clock, to the millisecond
	Encrypted bool      // whether the value was in an encrypted event
	Deleted   bool      // in a [Store.History]: the key was removed, and there is no value
	Place     Place     // where it is stored: in the room's state, but for [WithAccountDataFallback]
	Expires   time.Time // when the value expires, by the homeserver's clock, the zero time if it does not; see [ExpireAfter]

	// Of that event: who sent it, and how far the device that encrypted it was trusted when it was decrypted.
	EncryptedBy id.UserID
	Trust       id.TrustState
}

// Decode decodes the entry's value into dest as [Store.Get] does.
func (e Entry) Decode(dest any) error {
	return decode(e.Key, e.Value, dest)
}

func decode(key string, value json.RawMessage, dest any) error {
	if err := json.Unmarshal(value, dest); err != nil {
		return fault.Decode(key, dest, err)
	}
	return nil
}

// entryOf is an entry as the API has it.
func entryOf(read memory.Entry) Entry {
	entry := Entry{Key: read.Key, Value: read.JSON, Revision: Revision(read.Event), Sender: read.Sender, Time: read.Time,
		Encrypted: read.Encrypted, EncryptedBy: read.By, Trust: read.Trust}
	if read.Value.Expires != 0 {
		entry.Expires = time.UnixMilli(read.Value.Expires)
	}
	if read.InAccount {
		entry.Place = InAccountData
	}
	return entry
}
