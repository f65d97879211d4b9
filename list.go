package roomkv

import (
	"context"
	"iter"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// ListOption says which keys [Store.Keys], [Store.All] and [Tx.Keys] give, and in which order. Of two of the same kind the last counts.
type ListOption func(*memory.Listing)

// Prefix gives keys only that begin with prefix.
func Prefix(prefix string) ListOption {
	return func(l *memory.Listing) { l.Prefix = prefix }
}

// StartAfter begins after key, whether the memory has that key or not. The last key of one list is the start of the next. With [Descending] the list
// begins with the next smaller key.
func StartAfter(key string) ListOption {
	return func(l *memory.Listing) { l.After = &key }
}

// Limit gives at most n keys, the first ones in the list's order. With n below 1 the list fails with [ErrInvalidOption].
func Limit(n int) ListOption {
	return func(l *memory.Listing) {
		if l.Limit = n; n < 1 {
			l.Limit = -1
		}
	}
}

// Descending gives the largest key first.
func Descending() ListOption {
	return func(l *memory.Listing) { l.Descending = true }
}

// listing is what the options say.
func listing(opts []ListOption) (list memory.Listing, err error) {
	if err = apply(&list, opts); err == nil && list.Limit < 0 {
		err = fault.Of(ErrInvalidOption, nil, "Limit takes a number of at least 1")
	}
	return list, err
}

// Keys returns the keys in the room, sorted, also those whose values cannot be read. A room without memory has no keys, and that is no error. With
// [WithSealedKeys] it reads all values, for each holds its key; where one cannot be read the error is that, beside the other keys.
//
// It takes one request, and none while following, except in the per-key layout. There and with shards it takes more shortly after a write or a change of
// power levels (see docs/api.md), and what others wrote a moment ago can be missing. Options change nothing about the requests.
//
// Errors: [ErrInvalidOption], [ErrWrongSecret], [ErrCorrupt], and with sealed keys those of [Store.All].
func (s *Store) Keys(ctx context.Context, opts ...ListOption) (keys []string, err error) {
	ctx, op := s.begin(ctx, "Keys")
	defer op.end(&err)
	list, err := listing(opts)
	if err != nil {
		return nil, err
	}
	m, err := s.keyed(ctx)
	if err != nil {
		return nil, err
	}
	return m.Keys(ctx, list)
}

// All returns the entries in the order of their keys. It reads them when the iteration begins, with the requests that
// [Store.Keys] takes. An encrypted or large value is read when its turn comes.
//
// If that fails, All yields the error once, with a zero Entry. A value that cannot be read comes as an error beside
// the Entry's other fields, and the iteration goes on. In the per-key layout a state event whose key cannot be told
// comes as an error too, with an empty Key, before all others and whatever the options say.
//
// Errors: [ErrInvalidOption], [ErrUndecryptable], [ErrUntrusted], [ErrWrongSecret], [ErrCorrupt].
func (s *Store) All(ctx context.Context, opts ...ListOption) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, op := s.begin(ctx, "All")
		defer op.end(nil)
		yield = noting(op, yield)
		list, err := listing(opts)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		m, err := s.keyed(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for entry, err := range m.Entries(ctx, list) {
			if !yield(entryOf(entry), err) {
				return
			}
		}
	}
}

// GetAll returns the entries of some keys, by key. A key that is not there is not in the map, and that is no error. A value that cannot be read is
// not in the map either, and its error is one of those that are joined in GetAll's.
//
// It takes one request (with [WithShards] it reads only the state event that has all of the keys, where one has), in an encrypted room one more for each event with values that this process has not seen, and none
// while the store follows and the sync has told of all keys.
//
// Errors: those of [Store.Entry] but for [ErrNotFound].
func (s *Store) GetAll(ctx context.Context, keys ...string) (entries map[string]Entry, err error) {
	ctx, op := s.begin(ctx, "GetAll", keys...)
	defer op.end(&err)
	m, err := s.keyed(ctx, keys...)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return map[string]Entry{}, ctx.Err()
	}
	read, err := m.GetAll(ctx, keys)
	if read == nil {
		return nil, err
	}
	entries = make(map[string]Entry, len(read))
	for key, entry := range read {
		entries[key] = entryOf(entry)
	}
	return entries, err
}
