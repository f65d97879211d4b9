package roomkv

import (
	"context"
	"encoding/json"
	"iter"
	"strings"

	"github.com/roomkv/roomkv/internal/flush"
	"github.com/roomkv/roomkv/internal/memory"
)

// prefix is what all keys of a store begin with, and its callers leave out; see [Store.Sub].
type prefix string

// with is the prefix with more after it.
func (p prefix) with(more string) prefix { return p + prefix(more) }

// of is a key as the memory has it.
func (p prefix) of(key string) string { return string(p) + key }

// off is a key of the memory as the store has it.
func (p prefix) off(key string) string { return strings.TrimPrefix(key, string(p)) }

// full are the keys as the memory has them.
func (p prefix) full(keys []string) []string {
	if p == "" {
		return keys
	}
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = p.of(key)
	}
	return full
}

// listed is a listing as the memory has it.
func (p prefix) listed(list memory.Listing) memory.Listing {
	list.Prefix = p.of(list.Prefix)
	if list.After != nil {
		after := p.of(*list.After)
		list.After = &after
	}
	return list
}

// relative changes keys of the memory into those of the store.
func (p prefix) relative(keys []string) []string {
	for i, key := range keys {
		keys[i] = p.off(key)
	}
	return keys
}

// sub is the part of a memory whose keys have the store's prefix. It implements [flush.Keyed].
type sub struct {
	flush.Keyed
	prefix prefix
}

func (s sub) entry(entry memory.Entry) memory.Entry {
	entry.Key = s.prefix.off(entry.Key)
	return entry
}

// Entry implements [flush.Keyed].
func (s sub) Entry(ctx context.Context, key string) (memory.Entry, error) {
	entry, err := s.Keyed.Entry(ctx, s.prefix.of(key))
	return s.entry(entry), err
}

// GetAll implements [flush.Keyed].
func (s sub) GetAll(ctx context.Context, keys []string) (map[string]memory.Entry, error) {
	full, err := s.Keyed.GetAll(ctx, s.prefix.full(keys))
	if full == nil {
		return nil, err
	}
	entries := make(map[string]memory.Entry, len(full))
	for _, entry := range full {
		entry = s.entry(entry)
		entries[entry.Key] = entry
	}
	return entries, err
}

// Keys implements [flush.Keyed].
func (s sub) Keys(ctx context.Context, list memory.Listing) ([]string, error) {
	keys, err := s.Keyed.Keys(ctx, s.prefix.listed(list))
	return s.prefix.relative(keys), err
}

// Entries implements [flush.Keyed].
func (s sub) Entries(ctx context.Context, list memory.Listing) iter.Seq2[memory.Entry, error] {
	return func(yield func(memory.Entry, error) bool) {
		for entry, err := range s.Keyed.Entries(ctx, s.prefix.listed(list)) {
			if !yield(s.entry(entry), err) {
				return
			}
		}
	}
}

// PutAll implements [flush.Keyed].
func (s sub) PutAll(ctx context.Context, stored map[string]json.RawMessage) error {
	full := make(map[string]json.RawMessage, len(stored))
	for key, value := range stored {
		full[s.prefix.of(key)] = value
	}
	return s.Keyed.PutAll(ctx, full)
}

// Delete implements [flush.Keyed].
func (s sub) Delete(ctx context.Context, keys []string) error {
	return s.Keyed.Delete(ctx, s.prefix.full(keys))
}

// Update implements [flush.Keyed].
func (s sub) Update(ctx context.Context, key string, fn flush.Function) error {
	return s.Keyed.Update(ctx, s.prefix.of(key), fn)
}
