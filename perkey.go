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

func (perKey) stateKey(name string) string { return wire.StateKeyOf(name) }

// The dict of the other layout is under the empty state key.
func (perKey) holds(stateKey string) bool { return stateKey != "" && stateKey != wire.SealName }

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
		if stateKey == wire.SealName {
			if _, err := state.checkSealEvent(evt); err != nil {
				return nil, err
			}
		}
		if !l.holds(stateKey) {
			continue
		}
		records = append(records, recordsOf(state.viewOf(evt, stateKey))...)
	}
	return records, nil
}

// commit is not atomic for several names: Matrix has no request that sends two state events. It makes the edits one
// after the other, in the names' order, and stops at the first that fails.
func (l perKey) commit(ctx context.Context, state roomState, names []string, edit func([]string) commit.Edit) error {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	for done, name := range names {
		some := edit([]string{name})
		var err error
		if len(some.Values) > 0 {
			err = state.checkRoom(ctx, true)
		}
		if err == nil {
			err = advise(state.dict(l.stateKey(name)).writer.Do(ctx, some), adviceOneKey)
		}
		if err != nil && len(names) > 1 {
			return fmt.Errorf("%w (%d of %d keys were done before)", err, done, len(names))
		} else if err != nil {
			return err
		}
	}
	return nil
}
