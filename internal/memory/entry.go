package memory

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// Entry is a record with its value.
type Entry struct {
	Record
	Value
}

// NotFound is the error of a key that the room's memory does not have.
func NotFound(key string, room id.RoomID) error {
	return fault.Of(fault.ErrNotFound, nil, "%q in %s", key, room)
}

// Entry reads a record's value. With an error the entry has all that is known but that.
func (r Reader) Entry(ctx context.Context, found *Record) (Entry, error) {
	if found.Err != nil {
		return Entry{*found, Value{Key: keyOf(found.Name)}}, found.Err
	}
	value, err := r.Value(ctx, found.Name, found.Stored, found.Event)
	return Entry{*found, value}, err
}

// Entry reads what is there for the key under the name.
//
// Errors: ErrNotFound, and those of [Reader.Value].
func (h Handle) Entry(ctx context.Context, name, key string) (Entry, error) {
	found, err := h.Find(ctx, name, false)
	if err == nil && found == nil {
		err = NotFound(key, h.ID)
	}
	if err != nil {
		return Entry{}, err
	}
	entry, err := h.Read(ctx, h.Reader(), found)
	if entry.Key = key; errors.Is(err, fault.ErrNotFound) {
		err = NotFound(key, h.ID)
	}
	return entry, err
}

// Read reads a record's value. One that was redacted may have been overwritten a moment ago, by a writer whose event is not in what was read:
// then what is there now is read. The error is ErrNotFound where nothing is.
func (h Handle) Read(ctx context.Context, r Reader, found *Record) (Entry, error) {
	entry, err := r.Entry(ctx, found)
	if !errors.Is(err, fault.ErrRedacted) {
		return entry, err
	}
	now, failed := h.Find(ctx, found.Name, true)
	switch {
	case failed != nil || now != nil && (now.Err != nil || string(now.Stored) == string(found.Stored)):
		return entry, err
	case now == nil:
		return Entry{}, NotFound(entry.Key, h.ID)
	}
	return r.Entry(ctx, now)
}

// ReadEach reads the records one by one, but for those that have been removed since. Together they wait for missing keys no longer than one.
func (h Handle) ReadEach(ctx context.Context, records []Record) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		together := h.Reader().Together()
		for _, found := range records {
			if entry, err := h.Read(ctx, together, &found); !errors.Is(err, fault.ErrNotFound) && !yield(entry, err) {
				return
			}
		}
	}
}

// InOrder sorts records by their keys, which must be read where they are sealed. The values are left where they are.
func (r Room) InOrder(ctx context.Context, records []Record) []Record {
	type keyed struct {
		Record
		key string
	}
	reader := r.Reader().Together().KeysOnly()
	all := make([]keyed, len(records))
	for i, found := range records {
		entry, _ := reader.Entry(ctx, &found)
		all[i] = keyed{found, entry.Key}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	for i, found := range all {
		records[i] = found.Record
	}
	return records
}
