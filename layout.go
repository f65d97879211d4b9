package roomkv

import (
	"context"
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// layout is how keys are spread over state events.
type layout interface {
	// stateKey is the state key of the event that holds the key.
	stateKey(key string) string

	// holds tells whether an event with the state key can hold keys.
	holds(stateKey string) bool

	// parse reads the content of such an event.
	parse(stateKey string, content json.RawMessage) (wire.Dict, error)

	// oneKey tells whether each event holds one key.
	oneKey() bool

	// readAll returns a record for every key, and one without a key for each event whose key cannot be told.
	readAll(ctx context.Context, state roomState) ([]record, error)

	// commit makes the edit of some keys, given once for each event that holds any of them.
	commit(ctx context.Context, state roomState, keys []string, edit func(keys []string) commit.Edit) error
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

// recordOf is nil where the key is not in the view.
func recordOf(view *replica.View, key string) *record {
	r := &record{key: key, event: view.Event, sender: view.Sender, time: time.UnixMilli(view.Time), err: view.Err}
	stored, ok := view.Names[wire.Name(key)]
	if !ok && view.Err == nil {
		return nil
	}
	r.stored = json.RawMessage(stored)
	return r
}

// recordsOf are the records of all keys in the view.
func recordsOf(view *replica.View) []record {
	if view.Err != nil {
		return []record{{event: view.Event, sender: view.Sender, time: time.UnixMilli(view.Time), err: view.Err}}
	}
	records := make([]record, 0, len(view.Names))
	for name := range view.Names {
		if key, ok := wire.KeyOf(name); ok {
			records = append(records, *recordOf(view, key))
		}
	}
	return records
}

// hasKey tells whether the record is of a key, not of an event whose key cannot be told.
func (r *record) hasKey() bool { return r.err == nil }

// entry reads the value. With an error it has all but that.
func (r *record) entry(room id.RoomID) (Entry, error) {
	entry := Entry{Key: r.key, Revision: Revision(r.event), Sender: r.sender, Time: r.time}
	if r.err != nil {
		return entry, r.err
	}
	var err error
	entry.Value, err = decode(r.stored, r.key, r.event, room)
	return entry, err
}

// decode reads a stored value.
func decode(stored json.RawMessage, key string, from id.EventID, room id.RoomID) (json.RawMessage, error) {
	value, err := wire.Decode(stored)
	switch {
	case err != nil:
		return nil, fail(ErrCorrupt, err, "event %s in %s, key %q: %v", from, room, key, err)
	case value.Event != "":
		return nil, fail(ErrUndecryptable, nil, "key %q in %s: the value is in event %s, and this version of roomkv cannot decrypt", key, room, value.Event)
	case value.Media != nil:
		return nil, fail(ErrCorrupt, nil, "event %s in %s, key %q: the value is in the media repository, which this version of roomkv cannot read", from, room, key)
	}
	return value.JSON, nil
}
