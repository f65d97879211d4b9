package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
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
	entry := Entry{*found, value}
	if err == nil {
		r.note(entry)
	}
	return entry, err
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

// Records gives all visible records, sorted by key and event; see [Room.Visible].
func (h Handle) Records(ctx context.Context) ([]Record, error) {
	records, err := h.All(ctx)
	records = h.Visible(records)
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(keyOf(a.Name), keyOf(b.Name)), cmp.Compare(a.Event, b.Event))
	})
	return records, err
}

// Entries reads all records, in the order of the keys. An error that keeps anything from being read comes with an entry that has no event.
func (h Handle) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		records, err := h.Records(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if h.Secret != nil {
			records = h.InOrder(ctx, records)
		}
		h.ReadEach(ctx, records)(yield)
	}
}

// Keys are the keys that there are, sorted, beside the error of the first that cannot be read.
func (h Handle) Keys(ctx context.Context) ([]string, error) {
	records, err := h.Records(ctx)
	if err != nil {
		return nil, err
	}
	reader := h.Reader().Together().KeysOnly()
	keys := make([]string, 0, len(records))
	for _, record := range records {
		if record.Err != nil {
			continue
		}
		key, plain := wire.KeyOf(record.Name)
		if !plain {
			entry, unreadable := h.Read(ctx, reader, &record)
			if errors.Is(unreadable, fault.ErrNotFound) { // deleted since
				continue
			}
			if entry.Key == "" && unreadable != nil {
				err = cmp.Or(err, unreadable)
				continue
			}
			key = entry.Key
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, err
}

// Visible are the records of a memory, which has only sealed names where the store has a secret.
func (r Room) Visible(records []Record) []Record {
	if r.Secret == nil {
		return records
	}
	return slices.DeleteFunc(records, func(found Record) bool {
		_, plain := wire.KeyOf(found.Name)
		return plain && found.Err == nil
	})
}

// VisibleNames leaves the names that stand for keys which a store with these settings sees.
func (r Room) VisibleNames(names map[string]string) map[string]string {
	names = maps.Clone(names)
	maps.DeleteFunc(names, func(name, _ string) bool {
		_, plain := wire.KeyOf(name)
		return plain && r.Secret != nil || !plain && !wire.IsSealed(name)
	})
	return names
}

// note remembers an entry for [Room.Known]. What is encrypted, or in the media repository, is remembered elsewhere, with what can make it
// unreadable.
func (r Reader) note(entry Entry) {
	if entry.view != nil && entry.inState && r.Secret == nil && r.MinTrust == nil {
		entry.JSON = bytes.Clone(entry.JSON) // the caller may change what was read
		entry.view.Note(entry.Key, &entry)
	}
}

// IsUnreadable tells errors about a value from those that keep anything from being read.
func IsUnreadable(err error) bool {
	return slices.ContainsFunc([]error{fault.ErrUndecryptable, fault.ErrUntrusted, fault.ErrCorrupt, fault.ErrMissingMedia, fault.ErrTooLarge}, func(kind error) bool { return errors.Is(err, kind) })
}
