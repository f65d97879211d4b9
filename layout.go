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
	// stateKey is the state key of the event that holds the name.
	stateKey(name string) string

	// holds tells whether an event with the state key can hold keys.
	holds(stateKey string) bool

	// parse reads the content of such an event.
	parse(stateKey string, content json.RawMessage) (wire.Dict, error)

	// oneKey tells whether each event holds one key.
	oneKey() bool

	// readAll returns a record for every name, and one with an error for each event whose name cannot be told.
	readAll(ctx context.Context, state roomState) ([]record, error)

	// commit makes the edit of some names, given once for each event that holds any of them.
	commit(ctx context.Context, state roomState, names []string, edit func(names []string) commit.Edit) error
}

// record is what a state event, or account data, says of one name.
type record struct {
	name   string
	stored json.RawMessage
	event  id.EventID
	sender id.UserID
	time   time.Time
	place  Place
	err    error // ErrCorrupt: the event has no name
}

// recordOf is nil where the name is not in the view.
func recordOf(view *replica.View, name string) *record {
	r := &record{name: name, event: view.Event, sender: view.Sender, time: time.UnixMilli(view.Time), err: view.Err}
	stored, ok := view.Names[name]
	if !ok && view.Err == nil {
		return nil
	}
	r.stored = json.RawMessage(stored)
	return r
}

// recordsOf are the records of all names in the view that stand for keys, plain or sealed.
func recordsOf(view *replica.View) []record {
	if view.Err != nil {
		return []record{{event: view.Event, sender: view.Sender, time: time.UnixMilli(view.Time), err: view.Err}}
	}
	records := make([]record, 0, len(view.Names))
	for name := range view.Names {
		if _, plain := wire.KeyOf(name); plain || wire.IsSealed(name) {
			records = append(records, *recordOf(view, name))
		}
	}
	return records
}

// entry reads the value. With an error it has all that is known but that.
func (r *record) entry(ctx context.Context, room roomState) (Entry, error) {
	entry := Entry{Revision: Revision(r.event), Sender: r.sender, Time: r.time, Place: r.place}
	if r.err != nil {
		entry.Key, _ = wire.KeyOf(r.name)
		return entry, r.err
	}
	read, err := room.value(ctx, r.name, r.stored, r.event)
	entry.Key, entry.Value, entry.Encrypted, entry.EncryptedBy, entry.Trust = read.key, read.json, read.encrypted, read.sender, read.trust
	return entry, err
}
