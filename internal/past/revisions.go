// Package past reads what a memory was: the revisions of a name and the whole memory at a moment, and restores it. It reads the room's history
// backwards, as far as the homeserver gives it.
package past

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// Revisions are the events that changed what is stored under the name, the newest first.
func Revisions(ctx context.Context, r memory.Room, name string) iter.Seq2[*Revision, error] {
	return func(yield func(*Revision, error) bool) {
		stateKey := r.Layout.StateKey(name)
		current, err := r.Get(ctx, stateKey)
		if err != nil || current == nil {
			if err != nil {
				yield(nil, err)
			}
			return
		}
		if dict, err := r.Layout.Parse(stateKey, current.Content); err == nil {
			if err := r.CheckFields(dict.Names); err != nil {
				yield(nil, err)
				return
			}
		}
		back := Events{Room: r}
		line := line{DictRoom: memory.DictRoom{Room: r, StateKey: stateKey}, name: name}
		events, err := back.Begin(ctx, current)
		for ; err == nil; events, err = back.Turn(ctx) {
			for _, evt := range events {
				if *evt.StateKey == stateKey {
					line.events = append(line.events, readPast(r, evt))
				}
			}
			for _, rev := range line.judge(back.Ended) {
				if !yield(rev, nil) {
					return
				}
			}
			if back.Ended {
				return
			}
		}
		yield(nil, err)
	}
}

// Names gives every name under which the homeserver lists a value, that is or was there, with its key: empty where no value
// tells it.
func Names(ctx context.Context, r memory.Room) (map[string]string, error) {
	reading := r.Reader().Together().KeysOnly()
	keys, known := map[string]string{}, map[string]bool{}
	for evt, err := range AllEvents(ctx, r) {
		if err != nil {
			return nil, err
		}
		view := r.ViewOf(evt)
		for name := range r.VisibleNames(view.Names) {
			if known[name] {
				continue
			}
			key, plain := wire.KeyOf(name)
			if !plain {
				entry, err := reading.Entry(ctx, memory.RecordOf(view, name))
				key, plain = entry.Key, err == nil
			}
			keys[name], known[name] = key, plain
		}
	}
	return keys, ctx.Err()
}

// AllEvents are the memory's events, the newest first.
func AllEvents(ctx context.Context, r memory.Room) iter.Seq2[*matrix.Event, error] {
	return func(yield func(*matrix.Event, error) bool) {
		current, err := Heads(ctx, r)
		if err != nil {
			yield(nil, err)
			return
		}
		back := Events{Room: r}
		events, err := back.Begin(ctx, slices.Collect(maps.Values(current))...)
		for ; err == nil; events, err = back.Turn(ctx) {
			for _, evt := range events {
				if r.Layout.Holds(*evt.StateKey) && !yield(evt, nil) {
					return
				}
			}
			if back.Ended {
				return
			}
		}
		yield(nil, err)
	}
}

// AllRevisions are the events that changed what is stored under any of the names, of each name the newest first; see
// [Revisions].
func AllRevisions(ctx context.Context, r memory.Room, names []string) iter.Seq2[*Revision, error] {
	return func(yield func(*Revision, error) bool) {
		lines := map[string][]*line{} // by state key
		for _, name := range names {
			stateKey := r.Layout.StateKey(name)
			lines[stateKey] = append(lines[stateKey], &line{DictRoom: memory.DictRoom{Room: r, StateKey: stateKey}, name: name})
		}
		judge := func(lines []*line, ended bool) bool {
			for _, line := range lines {
				for _, rev := range line.judge(ended) {
					if !yield(rev, nil) {
						return false
					}
				}
			}
			return true
		}
		for evt, err := range AllEvents(ctx, r) {
			if err != nil {
				yield(nil, err)
				return
			}
			of := lines[*evt.StateKey]
			if len(of) > 0 {
				read := readPast(r, evt)
				for _, line := range of {
					line.events = append(line.events, read)
				}
			}
			if len(of) > 0 && len(of[0].events)%(2*rivals) == 0 && !judge(of, false) {
				return
			}
		}
		for _, stateKey := range slices.Sorted(maps.Keys(lines)) {
			if !judge(lines[stateKey], true) {
				return
			}
		}
	}
}
