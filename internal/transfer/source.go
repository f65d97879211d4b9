package transfer

import (
	"context"
	"iter"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// source is a memory that is copied from.
type source struct {
	memory.Handle
	to memory.Handle // where it is copied to
}

// parts reads the memory part by part, but for what belongs to the memory that it is copied to.
func (s source) parts(ctx context.Context, of memory.Memory) iter.Seq2[memory.Part, error] {
	return func(yield func(memory.Part, error) bool) {
		for part, err := range of.Parts(ctx, s.isTheirs) {
			part.Records = s.Visible(part.Records)
			if !yield(part, err) {
				return
			}
		}
	}
}

// beside tells whether both stores keep their state events in the same place, so that the one can see the other's.
func beside(r, other memory.Room) bool {
	return r.ID == other.ID && r.Type.Type == other.Type.Type
}

// isTheirs tells whether the state event with the state key is a dict that the memory is copied to.
func (s source) isTheirs(stateKey string) bool {
	return beside(s.Room, s.to.Room) && s.Layout != s.to.Layout && !s.to.Layout.Alone() && s.to.Layout.Holds(stateKey)
}

// isAt tells whether the memory's own state event is where the key goes, and would be overwritten there.
func (s source) isAt(key string) bool {
	return beside(s.Room, s.to.Room) && s.to.Layout.Alone() && !s.Layout.Alone() && s.Layout.Holds(s.to.Layout.StateKey(s.to.NameOf(key)))
}

// erase redacts the state events of the records, and before them the encrypted events that these refer to, but for those that
// others refer to. It gives how many state events it has redacted.
func (s source) erase(ctx context.Context, records []memory.Record) (redacted int, err error) {
	events := map[string]id.EventID{} // by state key
	values := map[id.EventID]bool{}
	for _, record := range records {
		events[s.Layout.StateKey(record.Name)] = record.Event
		for _, event := range wire.References(record.Stored) {
			values[event] = true
		}
	}
	others := 0
	err = s.ScanAll(ctx, s.Type, func() matrix.Visit {
		others = 0
		return func(evt *matrix.Event, _ bool) error {
			if events[*evt.StateKey] != evt.ID {
				for event := range memory.Referred(map[string]*matrix.Event{*evt.StateKey: evt}) {
					delete(values, event)
				}
				if events[*evt.StateKey] != "" {
					others++
				}
			}
			return nil
		}
	})
	switch {
	case err != nil:
		return 0, err
	case others > 0:
		return 0, fault.Of(fault.ErrConflict, nil, "%d state events of %s have changed since they were copied, and the rest of the source was not redacted", others, s.ID)
	}
	if _, err := s.RedactValues(ctx, slices.Collect(maps.Keys(values)), nil); err != nil {
		return 0, err
	}
	for stateKey, event := range events {
		if err := s.Redact(ctx, event); err != nil {
			return redacted, s.ExplainRedact(ctx, event, err)
		}
		redacted++
		if d := s.Replica(stateKey); d != nil {
			d.Forget()
		}
	}
	return redacted, nil
}
