package fallback

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// over makes an edit of the memory one of account data. It leaves out there what no longer counts.
func (f *Memory) over(ctx context.Context, change memory.Change, edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Since = ""
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		state, err := f.beneath(ctx, change.Names)
		if err != nil {
			return nil, err
		}
		field, _ := base.Stored(wire.AccountName)
		over := wire.Overs(field)
		changes := map[string]json.RawMessage{}
		names := change.Names
		if change.Whole {
			names = slices.DeleteFunc(slices.Collect(maps.Keys(over)), func(name string) bool { return !state.has(name) })
		}
		for _, name := range names { // of others, another store of this process can have seen more
			if o, ok := over[name]; ok && !state.counts(o, name) {
				delete(over, name)
				changes[name] = nil
			}
		}
		expired, err := state.expired(ctx)
		if err != nil {
			return nil, err
		}
		wanted, err := apply(overBase{base, &state, over, expired})
		if err != nil {
			return nil, err
		}
		for name, stored := range wanted {
			changes[name] = stored
			_, beneath := state.at(name).Names[name]
			switch {
			case wire.IsOwn(name):
			case stored == nil && (!beneath || expired[name]):
				delete(over, name)
			default:
				written := state.over(name)
				written.Time = over[name].Time
				over[name] = written
			}
		}
		for name, o := range over { // what has expired over nothing
			_, there := base.Stored(name)
			if _, changes := changes[name]; o.Base == "" && !there && !changes {
				delete(over, name)
			}
		}
		maps.DeleteFunc(changes, func(name string, stored json.RawMessage) bool {
			_, there := base.Stored(name)
			return !there && stored == nil
		})
		if changes[wire.AccountName] = nil; len(over) > 0 {
			changes[wire.AccountName] = wire.Field(over)
		}
		return changes, nil
	}
	return edit
}

// overBase implements [commit.Base] for account data over the state.
type overBase struct {
	commit.Base
	state *stateView
	over  map[string]wire.Over // what counts

	expired map[string]bool // names of the state whose time is over
}

func (b overBase) Stored(name string) (json.RawMessage, bool) {
	if _, over := b.over[name]; over {
		return b.Base.Stored(name)
	}
	if stored, ok := b.state.at(name).Names[name]; ok && !b.expired[name] {
		return json.RawMessage(stored), true
	}
	if wire.IsOwn(name) {
		return b.Base.Stored(name)
	}
	return nil, false
}

func (b overBase) Fresh(name string) bool {
	_, over := b.over[name]
	return over && b.Base.Fresh(name)
}

func (b overBase) Names() map[string]string {
	names := onto(wire.Account{Names: b.Base.Names(), Over: b.over}, b.state)
	for name := range b.expired {
		if _, over := b.over[name]; !over {
			delete(names, name)
		}
	}
	return names
}

func (b overBase) Event() id.EventID { return b.state.at("").Event }

func (b overBase) Unchanged(name string, since id.EventID) bool {
	if over, ok := b.over[name]; ok {
		_, there := b.Base.Stored(name)
		return there && !b.Base.Fresh(name) && revisionOf(over) == since
	}
	return b.state.unchanged(name, since)
}
