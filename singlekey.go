package roomkv

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// adviceOneDict is what to do about a memory that is too large, once its large values are out of it.
const adviceOneDict = "delete keys, store less under them, or Copy the memory to a store WithPerKeyState, where each key has that much to itself"

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

// commit makes room where the dict has none for new values.
func (l singleKey) commit(ctx context.Context, state roomState, names []string, edit func([]string) commit.Edit) error {
	return state.makingRoom(ctx, state.dict(l.dict).Writer, adviceOneDict, func() commit.Edit { return state.sealing(edit(names)) })
}

// makingRoom has the edit made, and makes room and tries again where the dict has none for new values, or for those that others
// write at the same time. A conditional edit that was sent goes on from there: its event counts or not once room is made.
func (r roomState) makingRoom(ctx context.Context, writer *commit.Writer, advice string, edit func() commit.Edit) error {
	attempt := new(commit.Attempt)
	for try := 1; ; try++ {
		do := edit()
		if do.Conditional {
			do.Attempt = attempt
		}
		err := writer.Do(ctx, r.fitting(ctx, do))
		if !errors.Is(err, ErrTooLarge) || attempt.GiveWay || try > roomTries && !attempt.Sent() {
			return fault.Advise(err, advice)
		}
		if try > roomTries {
			attempt.GiveWay = true
			continue
		}
		var full *crowded
		errors.As(err, &full)
		moved := 0
		var others []string
		if full != nil {
			others = full.names
		}
		if failed := writer.Do(ctx, r.sealing(r.makeRoom(ctx, others, &moved))); failed != nil {
			return fault.Advise(failed, advice)
		}
		if full == nil && moved == 0 {
			if !attempt.Sent() {
				return fault.Advise(err, advice)
			}
			attempt.GiveWay = true
		}
	}
}
