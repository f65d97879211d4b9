package roomkv

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// adviceOneKey is what to do about a value that is too large.
const adviceOneKey = "store less under one key"

// perKey is the layout with a state event for each key.
type perKey struct{}

func (perKey) stateKey(key string) string { return wire.StateKey(key) }

// The dict of the other layout is under the empty state key.
func (perKey) holds(stateKey string) bool { return stateKey != "" }

func (perKey) parse(stateKey string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParsePerKey(stateKey, content)
}

func (perKey) oneKey() bool { return true }

func (l perKey) readAll(ctx context.Context, state roomState) ([]record, error) {
	events, err := state.list(ctx)
	if err != nil {
		return nil, err
	}
	records := make([]record, 0, len(events))
	for stateKey, evt := range events {
		if !l.holds(stateKey) {
			continue
		}
		records = append(records, recordsOf(state.viewOf(evt, stateKey))...)
	}
	return records, nil
}

// commit is not atomic for several keys: Matrix has no request that sends two state events. It makes the edits one
// after the other, in the keys' order, and stops at the first that fails.
func (perKey) commit(ctx context.Context, state roomState, keys []string, edit func([]string) commit.Edit) error {
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	for done, key := range keys {
		err := advise(state.dict(wire.StateKey(key)).writer.Do(ctx, edit([]string{key})), adviceOneKey)
		if err != nil && len(keys) > 1 {
			return fmt.Errorf("%w (%d of %d keys were done before)", err, done, len(keys))
		} else if err != nil {
			return err
		}
	}
	return nil
}
