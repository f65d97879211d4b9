package roomkv

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// pastNames gives every name under which the homeserver lists a value, that is or was there, with its key: empty where no value
// tells it.
func (r roomState) pastNames(ctx context.Context) (map[string]string, error) {
	reading := r.Reader().Together().KeysOnly()
	keys, known := map[string]string{}, map[string]bool{}
	for evt, err := range r.pastEvents(ctx) {
		if err != nil {
			return nil, err
		}
		view := r.ViewOf(evt)
		for name := range r.visible(view.Names) {
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

// pastEvents are the memory's events, the newest first.
func (r roomState) pastEvents(ctx context.Context) iter.Seq2[*matrix.Event, error] {
	return func(yield func(*matrix.Event, error) bool) {
		current, err := r.heads(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		back := past{roomState: r}
		events, err := back.begin(ctx, slices.Collect(maps.Values(current))...)
		for ; err == nil; events, err = back.turn(ctx) {
			for _, evt := range events {
				if r.core.Layout.Holds(*evt.StateKey) && !yield(evt, nil) {
					return
				}
			}
			if back.ended {
				return
			}
		}
		yield(nil, err)
	}
}

// allRevisions are the events that changed what is stored under any of the names, of each name the newest first; see
// [roomState.revisions].
func (r roomState) allRevisions(ctx context.Context, names []string) iter.Seq2[*revision, error] {
	return func(yield func(*revision, error) bool) {
		lines := map[string][]*line{} // by state key
		for _, name := range names {
			stateKey := r.core.Layout.StateKey(name)
			lines[stateKey] = append(lines[stateKey], &line{Place: memory.Place{Room: r.Room, StateKey: stateKey}, name: name})
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
		for evt, err := range r.pastEvents(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			of := lines[*evt.StateKey]
			if len(of) > 0 {
				read := r.readPast(evt)
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
