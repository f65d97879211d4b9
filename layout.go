package roomkv

import (
	"context"
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

// layout is how keys are spread over state events.
type layout interface {
	// read returns the record of one key, or nil where there is none.
	read(ctx context.Context, state roomState, key string) (*record, error)

	// readAll returns a record for every key, and one without a key for each event whose key cannot be told.
	readAll(ctx context.Context, state roomState) ([]record, error)

	// commit carries out the edit while no other writer of this process touches its keys.
	commit(ctx context.Context, state roomState, edit edit) error
}

// record is what a state event says of one key.
type record struct {
	key    string
	stored json.RawMessage
	event  id.EventID
	sender id.UserID
	time   time.Time
	err    error // ErrCorrupt: the event has no key
}

func newRecord(key string, stored json.RawMessage, evt *stateEvent) *record {
	return &record{key: key, stored: stored, event: evt.ID, sender: evt.Sender, time: time.UnixMilli(evt.Time)}
}

// edit is a change of some keys at once.
type edit struct {
	keys []string // the keys that may change

	// apply gives what is to be stored under each key that changes, and nil for a key to be deleted. It gets
	// the records of the keys that exist, but none where blind is true, for then they need not be read.
	apply func(found map[string]*record) (map[string]json.RawMessage, error)
	blind bool
}

// hasKey tells whether the record is of a key, not of an event whose key cannot be told.
func (r *record) hasKey() bool { return r.err == nil }

// entry reads the value. With an error it has all but that.
func (r *record) entry(room id.RoomID) (Entry, error) {
	entry := Entry{Key: r.key, Revision: Revision(r.event), Sender: r.sender, Time: r.time}
	if r.err != nil {
		return entry, r.err
	}
	value, err := wire.Decode(r.stored)
	switch {
	case err != nil:
		return entry, fail(ErrCorrupt, err, "event %s in %s, key %q: %v", r.event, room, r.key, err)
	case value.Event != "":
		return entry, fail(ErrUndecryptable, nil, "key %q in %s: the value is in event %s, and this version of roomkv cannot decrypt", r.key, room, value.Event)
	case value.Media != nil:
		return entry, fail(ErrCorrupt, nil, "event %s in %s, key %q: the value is in the media repository, which this version of roomkv cannot read", r.event, room, r.key)
	}
	entry.Value = value.JSON
	return entry, nil
}
