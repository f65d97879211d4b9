package roomkv

import (
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"
)

// What one commit of storeAll has, about: bytes of values, which are in memory together, and keys, after which it tells how far
// it is.
const (
	batchBytes = 500_000
	batchKeys  = 200
)

// storeAll stores many values, in their stored form, under their keys, as [roomState.putAll] does, in several commits. With
// keep those that the dict of the single-state-key layout has by then stay as they are; in the per-key layout, to ask once more for each
// key would triple the requests. After each commit it calls done with what that has stored.
func (s *Store) storeAll(ctx context.Context, values iter.Seq2[string, json.RawMessage], keep bool, done func(batch map[string]json.RawMessage)) error {
	keep = keep && !s.core.layout.oneKey()
	batch, size := map[string]json.RawMessage{}, 0
	commit := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.write(ctx, slices.Collect(maps.Keys(batch)), func(to roomState) error { return to.putAll(ctx, batch, keep) })
		if err == nil {
			done(batch)
		}
		batch, size = map[string]json.RawMessage{}, 0
		return err
	}
	for key, value := range values {
		if len(batch) >= batchKeys || size+len(value) > batchBytes {
			if err := commit(); err != nil {
				return err
			}
		}
		batch[key] = value
		size += len(value)
	}
	return commit()
}
