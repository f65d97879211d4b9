package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

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

// Records gives all visible records, sorted by key and event; see [Room.Visible].
func (h Handle) Records(ctx context.Context) ([]Record, error) {
	records, err := h.All(ctx)
	records = h.Visible(records)
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(keyOf(a.Name), keyOf(b.Name)), cmp.Compare(a.Event, b.Event))
	})
	return records, err
}

// Entries reads the records of a listing. An error that keeps anything from being read comes with an entry that has no event. What has no key that
// can be told comes first.
func (h Handle) Entries(ctx context.Context, list Listing) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		records, err := h.Records(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		n := 0
		for entry, err := range h.ReadEach(ctx, h.Listed(ctx, records, list)) {
			if !yield(entry, err) {
				return
			}
			if entry.Err == nil {
				n++
			}
			if list.Reached(n) {
				return
			}
		}
	}
}

// Listed are the records of a listing, in its order, and before them those of which nobody can tell which keys they have.
func (r Room) Listed(ctx context.Context, records []Record, list Listing) []Record {
	type keyed struct {
		Record
		key   string
		known bool
	}
	reader := r.Reader().Together().KeysOnly()
	all := make([]keyed, 0, len(records))
	for _, found := range records {
		key, known := wire.KeyOf(found.Name)
		known = known && found.Err == nil
		if !known && found.Err == nil {
			entry, err := reader.Entry(ctx, &found)
			key, known = entry.Key, err == nil || entry.Key != ""
		}
		if !known || list.Holds(key) {
			all = append(all, keyed{found, key, known})
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		switch {
		case a.known && b.known:
			return list.Compare(a.key, b.key)
		case a.known:
			return 1
		case b.known:
			return -1
		}
		return 0
	})
	records = make([]Record, len(all))
	for i, found := range all {
		records[i] = found.Record
	}
	return records
}

// Keys are the keys of a listing, beside the error of the first that cannot be read.
func (h Handle) Keys(ctx context.Context, list Listing) ([]string, error) {
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
	return list.Of(keys), err
}

// GetAll reads the entries of some keys, as far as they are there, and tells what cannot be read.
func (h Handle) GetAll(ctx context.Context, keys []string) (map[string]Entry, error) {
	names, keyOf := h.NamesOf(keys)
	records, err := h.findEach(ctx, names)
	if err != nil {
		return nil, err
	}
	entries := make(map[string]Entry, len(records))
	var failed []error
	together := h.Reader().Together()
	for _, found := range records {
		entry, err := h.Read(ctx, together, &found)
		switch entry.Key = keyOf[found.Name]; {
		case errors.Is(err, fault.ErrNotFound): // deleted since
		case err != nil:
			failed = append(failed, err)
		default:
			entries[entry.Key] = entry
		}
	}
	return entries, errors.Join(failed...)
}

// findEach gives the records of those of the names that are there: with one request, or with none where the sync has told.
func (h Handle) findEach(ctx context.Context, names []string) (found []Record, err error) {
	byEvent := ByEvent(h.Layout, names)
	events := slices.Collect(maps.Keys(byEvent))
	if len(events) > 1 && slices.ContainsFunc(events, func(stateKey string) bool { return !h.told(stateKey) }) {
		all, err := h.All(ctx)
		return slices.DeleteFunc(all, func(record Record) bool { return !slices.Contains(names, record.Name) }), err
	}
	for _, of := range byEvent {
		some, err := h.Some(ctx, of)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
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

// note remembers an entry for [Room.Known]. What expires is not remembered. What is encrypted, or in the media repository, is remembered elsewhere, with what can make it
// unreadable.
func (r Reader) note(entry Entry) {
	if entry.view != nil && entry.inState && entry.Value.Expires == 0 && r.Secret == nil && r.MinTrust == nil {
		entry.JSON = bytes.Clone(entry.JSON) // the caller may change what was read
		entry.view.Note(entry.Key, &entry)
	}
}

// IsUnreadable tells errors about a value from those that keep anything from being read.
func IsUnreadable(err error) bool {
	return slices.ContainsFunc([]error{fault.ErrUndecryptable, fault.ErrUntrusted, fault.ErrCorrupt, fault.ErrMissingMedia, fault.ErrTooLarge}, func(kind error) bool { return errors.Is(err, kind) })
}
