package roomkv

import (
	"context"
	"encoding/json"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// singleKey is the layout with the whole memory in the state event of one state key.
type singleKey struct{ stateKey string }

func (l singleKey) read(ctx context.Context, state roomState, key string) (*record, error) {
	dict, evt, err := l.dict(ctx, state)
	if err != nil {
		return nil, err
	}
	stored, ok := dict.Stored[key]
	if !ok {
		return nil, nil
	}
	return newRecord(key, stored, evt), nil
}

func (l singleKey) readAll(ctx context.Context, state roomState) ([]record, error) {
	dict, evt, err := l.dict(ctx, state)
	if err != nil {
		return nil, err
	}
	records := make([]record, 0, len(dict.Stored))
	for key, stored := range dict.Stored {
		records = append(records, *newRecord(key, stored, evt))
	}
	return records, nil
}

func (l singleKey) commit(ctx context.Context, state roomState, edit edit) error {
	unlock, err := commit.Lock(ctx, state.dict(l.stateKey))
	if err != nil {
		return err
	}
	defer state.unlock(unlock)

	dict, evt, err := l.dict(ctx, state)
	if err != nil {
		return err
	}
	found := make(map[string]*record, len(edit.keys))
	for _, key := range edit.keys {
		if stored, ok := dict.Stored[key]; ok {
			found[key] = newRecord(key, stored, evt)
		}
	}
	changes, err := edit.apply(found)
	if err != nil {
		return err
	}
	changed := false
	for key, stored := range changes {
		old, exists := dict.Stored[key]
		switch {
		case stored == nil && exists:
			delete(dict.Stored, key)
			changed = true
		case stored != nil && !(exists && wire.Same(old, stored)):
			dict.Stored[key] = stored
			changed = true
		}
	}
	if !changed {
		return nil
	}
	content := dict.Content()
	if err = state.fits(l.stateKey, content); err == nil {
		_, err = state.put(ctx, l.stateKey, content)
	}
	return advise(err, "delete keys, store less under them, or use WithPerKeyState, where each key has that much to itself")
}

// dict reads the dict, which is empty where there is no event, and the event.
func (l singleKey) dict(ctx context.Context, state roomState) (wire.Dict, *stateEvent, error) {
	evt, err := state.get(ctx, l.stateKey)
	if err != nil {
		return wire.Dict{}, nil, err
	}
	if evt == nil {
		return wire.Dict{Stored: map[string]json.RawMessage{}}, nil, nil
	}
	dict, err := wire.ParseDict(evt.Content)
	if err != nil {
		return wire.Dict{}, nil, fail(ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, l.stateKey, state.room, err)
	}
	return dict, evt, nil
}
