package past

import (
	"context"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// search finds the events that lead to a moment.
type search struct {
	memory.Room
	moment  Moment
	found   bool                       // whether the revision's event was
	events  map[string][]*matrix.Event // by state key: those at or before the moment, the newest first
	current map[string]*matrix.Event   // by state key
	oldest  map[string]*matrix.Event   // by state key: the last that was listed
	listed  int64                      // when the last of any was sent, in Unix milliseconds
}

// farBack bounds how many events of one dict are looked at beyond the moment where writers have left no merge.
const farBack = 1000

func (s *search) run(ctx context.Context) error {
	var err error
	if s.current, err = Heads(ctx, s.Room); err != nil {
		return err
	}
	back := Events{Room: s.Room}
	events, err := back.Begin(ctx, slices.Collect(maps.Values(s.current))...)
	for ; err == nil; events, err = back.Turn(ctx) {
		for _, evt := range events {
			s.add(evt)
		}
		if back.Ended || s.found && s.enough() {
			break
		}
	}
	if err != nil {
		return err
	}
	cut := func(stateKey string) bool { return !back.Whole || s.follows(s.oldest[stateKey]) }
	if !s.found && slices.ContainsFunc(slices.Collect(maps.Keys(s.current)), cut) {
		return fault.Of(fault.ErrTooOld, nil, "the homeserver does not list revision %s in %s, nor all that was before", s.moment.Revision, s.ID)
	} else if !s.found {
		return fault.Of(fault.ErrNotFound, nil, "revision %s is not of this memory in %s", s.moment.Revision, s.ID)
	}
	for stateKey := range s.current {
		if back.Ended && len(s.events[stateKey]) == 0 && cut(stateKey) {
			return fault.Of(fault.ErrTooOld, nil, "the homeserver does not list what state %q in %s was then", stateKey, s.ID)
		}
	}
	return nil
}

// follows tells whether something was before the event, as far as it says so. The room's first event is no sign that
// nothing is left out: Dendrite lists that to a member who may see nothing else of that time.
func (s *search) follows(evt *matrix.Event) bool {
	if evt == nil {
		return true
	}
	read := s.Parsed(evt)
	return read.Replaces != "" || len(read.Parents) > 0
}

// add takes an event that is older than those before.
func (s *search) add(evt *matrix.Event) {
	stateKey := *evt.StateKey
	if !s.Layout.Holds(stateKey) {
		return
	}
	s.oldest[stateKey], s.listed = evt, evt.Time
	s.found = s.found || evt.ID == s.moment.Revision
	switch events := s.events[stateKey]; {
	case !s.found, s.moment.timed() && len(events) == 0 && evt.Time > s.moment.Time.UnixMilli():
	case s.Layout.Alone() && len(events) > rivals:
	default:
		s.events[stateKey] = append(events, evt)
	}
}

// enough tells whether what is older cannot matter.
func (s *search) enough() bool {
	for stateKey := range s.current {
		if len(s.events[stateKey]) == 0 {
			return false
		}
	}
	for stateKey, events := range s.events {
		far := len(events) > rivals || s.listed < events[0].Time-s.Policy.Unmerged.Milliseconds()
		if !s.Layout.Alone() && (!far || len(events) < farBack && s.history(stateKey).Open()) {
			return false
		}
	}
	return s.Layout.Alone() || len(s.events) > 0
}

// history is what is known of a dict. What is listed before an event that was redacted is left out: nobody knows any more
// which of that it had merged, and nothing is redacted that is yet to be merged.
func (s *search) history(stateKey string) *merge.History {
	h := new(merge.History)
	for i, evt := range s.events[stateKey] {
		if i > 0 && evt.Redacted() {
			break
		}
		h.AddOlder(s.Parsed(evt))
	}
	return h
}

func (s *search) snapshot(ctx context.Context) (*Snapshot, error) {
	found := &Snapshot{Room: s.Room, Records: map[string]memory.Record{}, Broken: map[string]memory.Record{}}
	for stateKey, events := range s.events {
		view, err := s.view(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if view.Err == nil && events[0].Redacted() {
			view.Err = fault.Of(fault.ErrRedacted, nil, "event %s in %s", view.Event, s.ID)
		}
		if view.Err != nil && s.Layout.Together("") {
			return nil, view.Err
		}
		if err := s.CheckFields(view.Names); view.Err == nil && err != nil {
			return nil, err
		}
		if view.Err != nil {
			found.Broken[stateKey] = *memory.RecordOf(view, nameOf(stateKey))
			continue
		}
		for name := range s.VisibleNames(view.Names) {
			found.Records[name] = *memory.RecordOf(view, name)
		}
	}
	return found, nil
}

// nameOf is the name that a state key of the per-key layout stands for, as far as it can be told without the content.
func nameOf(stateKey string) string {
	switch {
	case wire.IsSealed(stateKey):
		return stateKey
	case wire.StateKey(stateKey) == stateKey:
		return wire.Name(stateKey)
	default:
		return ""
	}
}

// view is a dict at the moment. What the revision's event changed counts, for it was current then.
func (s *search) view(ctx context.Context, stateKey string) (*replica.View, error) {
	h := s.history(stateKey)
	if len(h.Missing()) > 0 {
		h.GiveUp()
	}
	for unplaced := h.Unplaced(""); len(unplaced) > 0; unplaced = h.Unplaced("") {
		for _, event := range unplaced {
			at, known, err := s.Stored(ctx, event)
			if err != nil {
				return nil, err
			}
			h.Place(event, at, known)
		}
	}
	own := s.Parsed(s.events[stateKey][0])
	view := replica.ViewOf(&own)
	if s.moment.timed() || own.ID != s.moment.Revision || len(h.Heads()) == 1 {
		view.Names = h.Merge().Dict
		return view, nil
	}
	names := maps.Clone(h.Merge().Dict)
	for name := range names {
		if _, there := own.Dict[name]; !there && h.Origin(own.ID, name) == own.ID {
			delete(names, name)
		}
	}
	for name, stored := range own.Dict {
		if h.Origin(own.ID, name) == own.ID {
			names[name] = stored
		}
	}
	view.Names = names
	return view, nil
}

// At is the memory in the room's state as it was at the moment.
//
// Errors: ErrNotFound, ErrTooOld, ErrRedacted, ErrCorrupt, ErrWrongSecret, and those of requests.
func At(ctx context.Context, r memory.Room, moment Moment) (*Snapshot, error) {
	search := search{Room: r, moment: moment, found: moment.timed(), events: map[string][]*matrix.Event{}, oldest: map[string]*matrix.Event{}}
	if err := search.run(ctx); err != nil {
		return nil, err
	}
	return search.snapshot(ctx)
}
