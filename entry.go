package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/replica"
)

// Revision is the ID of the state event in which a value was read, or that brought a [Change]; in account data something of
// that kind (see [WithAccountDataFallback]). [Store.CompareAndPut]
// tells by it whether the key has changed since, and [WatchFrom] begins there. In the single-state-key layout an entry's
// revision is another one whenever any key has changed; CompareAndPut does not mind that.
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

	// Of that event: who sent it, and how far the device that encrypted it was trusted when it was decrypted.
	EncryptedBy id.UserID
	Trust       id.TrustState
}

// Decode decodes the entry's value into dest as [Store.Get] does.
func (e Entry) Decode(dest any) error {
	if err := json.Unmarshal(e.Value, dest); err != nil {
		return fault.Decode(e.Key, dest, err)
	}
	return nil
}

// entry reads what is there for the key under the name.
func (r roomState) entry(ctx context.Context, name, key string) (Entry, error) {
	found, err := r.find(ctx, name, false)
	if err != nil {
		return Entry{}, err
	}
	if found == nil {
		return Entry{}, notFound(key, r.ID)
	}
	entry, err := r.read(ctx, found)
	if entry.Key = key; errors.Is(err, ErrNotFound) {
		return Entry{}, notFound(key, r.ID)
	}
	return entry, err
}

// findInState is what the state has under the name, or nil. Afresh is for when what was read last must have been overwritten: the
// homeserver is then asked for more than what is current.
func (r roomState) findInState(ctx context.Context, name string, afresh bool) (*record, error) {
	stateKey := r.core.layout.stateKey(name)
	var view *replica.View
	var err error
	if afresh {
		d := r.dict(stateKey)
		if err = d.Read(ctx, true); err == nil {
			view = d.View()
		}
	}
	if view == nil && err == nil {
		view, err = r.view(ctx, stateKey, func(view, current map[string]string) bool {
			a, inView := view[name]
			b, isCurrent := current[name]
			return inView == isCurrent && a == b
		})
	}
	if err == nil && view.Err == nil {
		err = r.checkNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return recordOf(view, name), nil
}

// read reads a record's value. One that was redacted may have been overwritten a moment ago, by a writer whose event is not
// in what was read: then what is there now is read. The error is ErrNotFound where nothing is.
func (r roomState) read(ctx context.Context, found *record) (Entry, error) {
	entry, err := found.entry(ctx, r)
	if !errors.Is(err, ErrRedacted) {
		return entry, err
	}
	now, failed := r.find(ctx, found.name, true)
	switch {
	case failed != nil || now != nil && (now.err != nil || string(now.stored) == string(found.stored)):
		return entry, err
	case now == nil:
		return Entry{}, notFound(entry.Key, r.ID)
	}
	return now.entry(ctx, r)
}

// readEach reads the records one by one, but for those that have been deleted since.
func (r roomState) readEach(ctx context.Context, records []record) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := r.waitingTogether()
		for _, found := range records {
			if entry, err := r.read(ctx, &found); !errors.Is(err, ErrNotFound) && !yield(entry, err) {
				return
			}
		}
	}
}

// inOrder sorts records by their keys, which must be read where they are sealed. The values are left where they are.
func (r roomState) inOrder(ctx context.Context, records []record) []record {
	type keyed struct {
		record
		key string
	}
	r = r.waitingTogether()
	r.keysOnly = true
	all := make([]keyed, len(records))
	for i, found := range records {
		entry, _ := found.entry(ctx, r)
		all[i] = keyed{found, entry.Key}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	for i, found := range all {
		records[i] = found.record
	}
	return records
}
