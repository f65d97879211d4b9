package roomkv

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// perKey is the layout with a state event for each key.
type perKey struct{}

func (perKey) read(ctx context.Context, state roomState, key string) (*record, error) {
	stateKey := wire.StateKey(key)
	evt, err := state.get(ctx, stateKey)
	if err != nil || evt == nil {
		return nil, err
	}
	return parsePerKey(evt, stateKey, state), nil
}

func (perKey) readAll(ctx context.Context, state roomState) ([]record, error) {
	events, err := state.list(ctx)
	if err != nil {
		return nil, err
	}
	records := make([]record, 0, len(events))
	for stateKey, evt := range events {
		if found := parsePerKey(evt, stateKey, state); found != nil {
			records = append(records, *found)
		}
	}
	return records, nil
}

// commit is not atomic: Matrix has no request that sends two state events. It sends one a key, in the keys'
// order, and stops at the first that fails.
func (l perKey) commit(ctx context.Context, state roomState, edit edit) error {
	return advise(l.send(ctx, state, edit), "store less under one key")
}

func (l perKey) send(ctx context.Context, state roomState, edit edit) error {
	// In one order everywhere, so that two edits never wait for each other.
	keys := slices.Compact(slices.Sorted(slices.Values(edit.keys)))
	for _, key := range keys {
		unlock, err := commit.Lock(ctx, state.dict(wire.StateKey(key)))
		if err != nil {
			return err
		}
		defer state.unlock(unlock)
	}

	var found map[string]*record
	if !edit.blind {
		var err error
		if found, err = l.readSome(ctx, state, keys); err != nil {
			return err
		}
	}
	changes, err := edit.apply(found)
	if err != nil {
		return err
	}
	contents := make(map[string]json.RawMessage, len(changes))
	for key, stored := range changes {
		contents[key] = wire.Deleted()
		if stored != nil {
			contents[key] = wire.PerKeyContent(key, stored)
		}
		if err := state.fits(wire.StateKey(key), contents[key]); err != nil {
			return err
		}
	}
	for done, key := range slices.Sorted(maps.Keys(contents)) {
		stateKey := wire.StateKey(key)
		event, err := state.put(ctx, stateKey, contents[key])
		if err != nil && len(contents) > 1 {
			return fmt.Errorf("%w (%d of %d keys were done before)", err, done, len(contents))
		} else if err != nil {
			return err
		}
		written.Add(state.dict(stateKey), event)
	}
	return nil
}

// readSome reads the records of some keys, several in one listing. What that does not show is asked for by itself, for
// another client can have written it only just now.
func (l perKey) readSome(ctx context.Context, state roomState, keys []string) (map[string]*record, error) {
	found := make(map[string]*record, len(keys))
	if len(keys) == 1 {
		one, err := l.read(ctx, state, keys[0])
		if one != nil {
			found[keys[0]] = one
		}
		return found, err
	}
	events, err := state.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var one *record
		if evt := events[wire.StateKey(key)]; evt != nil {
			one = parsePerKey(evt, wire.StateKey(key), state)
		}
		if one == nil {
			if one, err = l.read(ctx, state, key); err != nil {
				return nil, err
			}
		}
		if one != nil {
			found[key] = one
		}
	}
	return found, nil
}

// parsePerKey reads the event of one key. It is nil where that was deleted.
func parsePerKey(evt *stateEvent, stateKey string, state roomState) *record {
	key, stored, ok, err := wire.ParsePerKey(stateKey, evt.Content)
	if err == nil && !ok {
		return nil
	}
	parsed := newRecord(key, stored, evt)
	if err != nil {
		parsed.err = fail(ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, stateKey, state.room, err)
	}
	return parsed
}
