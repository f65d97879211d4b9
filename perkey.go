package roomkv

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// adviceOneKey is what to do about a value that is too large.
const adviceOneKey = "store less under one key"

// parallel is how many state events are sent at the same time where there are several to send.
const parallel = 8

// perKey is the layout with a state event for each key.
type perKey struct{}

func (perKey) stateKey(name string) string { return wire.StateKeyOf(name) }

// The dict of the other layout is under the empty state key.
func (perKey) holds(stateKey string) bool {
	return stateKey != "" && stateKey != wire.SealName && stateKey != wire.PredecessorName
}

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

// commit is not atomic for several names: Matrix has no request that sends two state events. It makes several edits at a time
// and begins no other once one has failed.
func (l perKey) commit(ctx context.Context, state roomState, names []string, edit func([]string) commit.Edit) error {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) == 1 {
		return l.commitOne(ctx, state, names[0], edit)
	}
	var next, done atomic.Int64
	failures := make(chan error, parallel)
	var workers sync.WaitGroup
	for range min(parallel, len(names)) {
		workers.Go(func() {
			for len(failures) == 0 {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				if err := l.commitOne(ctx, state, names[i], edit); err != nil {
					failures <- err
					return
				}
				done.Add(1)
			}
		})
	}
	workers.Wait()
	select {
	case err := <-failures:
		return fmt.Errorf("%w (%d of %d keys were done)", err, done.Load(), len(names))
	default:
		return nil
	}
}

func (l perKey) commitOne(ctx context.Context, state roomState, name string, edit func([]string) commit.Edit) error {
	some := edit([]string{name})
	if len(some.Values) > 0 {
		if err := state.checkRoom(ctx, true); err != nil {
			return err
		}
	}
	err := fault.Advise(state.dict(l.stateKey(name)).Writer.Do(ctx, some), adviceOneKey)
	if err == nil && state.done != nil {
		state.done(name)
	}
	return err
}
