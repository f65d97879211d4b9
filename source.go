package roomkv

import (
	"context"
	"iter"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// How many state events are held in memory where a memory is read part by part, and how long their contents may be in all, in
// bytes.
const (
	partEvents = 1000
	partSize   = 2 << 20
)

// source is a memory that is copied from.
type source struct {
	roomState
	to roomState // where it is copied to
}

// part is a part of a memory.
type part struct {
	records []record
	left    int // about how many keys come after it
}

// parts reads the memory part by part, but for what belongs to the memory that it is copied to. One that is in account data is
// one part: only all of it tells what is hidden.
func (s source) parts(ctx context.Context) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		if o, err := s.away(ctx, false); err != nil || o != nil {
			var records []record
			if err == nil {
				records, err = o.now(ctx, s.isTheirs)
			}
			yield(part{s.seen(records), 0}, err)
			return
		}
		for after, more := "", true; more; {
			var records []record
			left, err := 0, error(nil)
			if s.core.layout.oneKey() {
				records, left, after, err = s.after(ctx, after)
			} else {
				records, err = s.now(ctx)
			}
			more = left > 0
			if !yield(part{s.seen(records), left}, err) || err != nil {
				return
			}
		}
	}
}

// after reads a part of the per-key layout, that after a state key, and tells how many keys are left after the last one. The
// sync is not asked: it can be behind.
func (s source) after(ctx context.Context, stateKey string) (records []record, left int, last string, err error) {
	var some matrix.Picker
	var seal *matrix.Event
	all := 0
	err = s.scanAll(ctx, func() matrix.Visit {
		some = matrix.Picker{Most: partEvents, Size: partSize, Wants: func(at string) bool {
			return s.core.layout.holds(at) && at > stateKey && !s.isTheirs(at)
		}}
		seal, all = nil, 0
		return func(evt *matrix.Event, late bool) error {
			switch {
			case *evt.StateKey == wire.SealName:
				seal = evt
			case some.Wants(*evt.StateKey) && !isEmpty(evt):
				all++
				return some.Add(evt, late)
			}
			return nil
		}
	})
	if err == nil && seal != nil {
		_, err = s.checkSealEvent(seal)
	}
	if err != nil {
		return nil, 0, "", err
	}
	events, more := some.Take()
	for _, at := range slices.Sorted(maps.Keys(events)) {
		records = append(records, recordsOf(s.viewOf(events[at], at))...)
	}
	if more {
		left = all - len(events)
	}
	return records, left, some.Last, nil
}

// now reads the dict of the single-state-key layout as the homeserver has it.
func (r roomState) now(ctx context.Context) ([]record, error) {
	view, err := r.afresh(ctx, r.core.layout.stateKey(""))
	if err == nil {
		err = r.checkNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return recordsOf(view), nil
}

// seen are the records of a memory, which has only sealed names where the store has a secret.
func (r roomState) seen(records []record) []record {
	if r.core.secret == nil {
		return records
	}
	return slices.DeleteFunc(records, func(r record) bool {
		_, plain := wire.KeyOf(r.name)
		return plain && r.err == nil
	})
}

// readNames gives the records of those of the names that the homeserver has.
func (r roomState) readNames(ctx context.Context, names []string) (map[string]record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.readNames(ctx, names)
	}
	found := make(map[string]record, len(names))
	wanted := make(map[string]string, len(names)) // by state key, or any for a dict
	for _, name := range names {
		wanted[r.core.layout.stateKey(name)] = name
	}
	if !r.core.layout.oneKey() {
		records, err := r.now(ctx)
		for _, record := range records {
			found[record.name] = record
		}
		return found, err
	}
	err := r.scanAll(ctx, func() matrix.Visit {
		clear(found)
		return func(evt *matrix.Event, _ bool) error {
			if name, ok := wanted[*evt.StateKey]; ok {
				if record := recordOf(r.viewOf(evt, *evt.StateKey), name); record != nil {
					found[name] = *record
				}
			}
			return nil
		}
	})
	return found, err
}

// beside tells whether both stores keep their state events in the same place, so that the one can see the other's.
func (r roomState) beside(other roomState) bool {
	return r.ID == other.ID && r.eventType.Type == other.eventType.Type
}

// isTheirs tells whether the state event with the state key is the dict that the memory is copied to.
func (s source) isTheirs(stateKey string) bool {
	return s.beside(s.to) && !s.to.core.layout.oneKey() && s.to.core.layout.holds(stateKey)
}

// isAt tells whether the memory's own state event is where the key goes, and would be overwritten there.
func (s source) isAt(key string) bool {
	return s.beside(s.to) && s.to.core.layout.oneKey() && !s.core.layout.oneKey() && s.core.layout.holds(s.to.core.layout.stateKey(s.to.name(key)))
}

// isEmpty tells whether the event holds nothing, as one whose key was deleted.
func isEmpty(evt *matrix.Event) bool {
	dict, err := wire.ParsePerKey(*evt.StateKey, evt.Content)
	return err == nil && len(dict.Names()) == 0
}

// erase redacts the state events of the records, and before them the encrypted events that these refer to, but for those that
// others refer to. It gives how many state events it has redacted.
func (s source) erase(ctx context.Context, records []record) (redacted int, err error) {
	events := map[string]id.EventID{} // by state key
	values := map[id.EventID]bool{}
	for _, record := range records {
		events[s.core.layout.stateKey(record.name)] = record.event
		for _, event := range wire.References(record.stored) {
			values[event] = true
		}
	}
	others := 0
	err = s.scanAll(ctx, func() matrix.Visit {
		others = 0
		return func(evt *matrix.Event, _ bool) error {
			if events[*evt.StateKey] != evt.ID {
				for event := range s.referred(map[string]*matrix.Event{*evt.StateKey: evt}) {
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
		return 0, fault.Of(ErrConflict, nil, "%d state events of %s have changed since they were copied, and the rest of the source was not redacted", others, s.ID)
	}
	if _, err := s.redact(ctx, slices.Collect(maps.Keys(values)), nil); err != nil {
		return 0, err
	}
	for stateKey, event := range events {
		if err := s.Redact(ctx, event); err != nil {
			return redacted, s.ExplainRedact(ctx, event, err)
		}
		redacted++
		if d := s.replica(stateKey); d != nil {
			d.Forget()
		}
	}
	return redacted, nil
}
