package roomkv

import (
	"context"
	"encoding/json"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// singleKey is the layout with the whole memory in the state event of one state key.
type singleKey struct{ dict string }

func (l singleKey) stateKey(string) string { return l.dict }

func (l singleKey) holds(stateKey string) bool { return stateKey == l.dict }

func (singleKey) parse(_ string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParseDict(content)
}

func (singleKey) oneKey() bool { return false }

func (l singleKey) readAll(ctx context.Context, state roomState) ([]record, error) {
	view, err := state.view(ctx, l.dict, func(view, other map[string]string) bool { return len(view) == len(other) && covers(view, other) })
	if err != nil {
		return nil, err
	}
	if view.Err != nil {
		return nil, view.Err
	}
	return recordsOf(view), state.checkNames(view.Names)
}

func covers(view, other map[string]string) bool {
	for name, stored := range other {
		if view[name] != stored {
			return false
		}
	}
	return true
}

func (l singleKey) commit(ctx context.Context, state roomState, names []string, edit func([]string) commit.Edit) error {
	err := state.dict(l.dict).writer.Do(ctx, state.sealing(edit(names)))
	return advise(err, "delete keys, store less under them, or use WithPerKeyState, where each key has that much to itself")
}
