package roomkv

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// Moment is a point in a memory's past, for [Store.At].
type Moment struct {
	revision id.EventID
	time     time.Time
	timed    bool
}

// AtRevision is the moment at which the event of a revision was current, that of an [Entry] or a [Change].
func AtRevision(revision Revision) Moment { return Moment{revision: id.EventID(revision)} }

// AtTime is a moment by the clocks of the homeservers that sent the events, to the millisecond. Where these are not set alike,
// it is as inexact as they are.
func AtTime(t time.Time) Moment { return Moment{time: t, timed: true} }

// Snapshot is the whole memory of a room as it was at one moment. It has what was stored then; the values are read when they are
// asked for, and encrypted ones decrypted then, so that one whose event is redacted in between is lost. Methods are safe for
// concurrent use.
type Snapshot struct {
	state   roomState
	records map[string]memory.Record // by name
	broken  map[string]memory.Record // by state key: events that cannot be read, whose names cannot be told
}

// At returns the memory of the store's room as it was at the moment.
//
// Of a time that is all that was sent until then: in the order in which the homeserver lists the events of a dict, up to the
// last that is no later than that. Of a revision it is all that the homeserver lists up to it, and what that event
// changed itself. Writes at the same time are merged as they were, or would have been.
//
// In the single-state-key layout it takes a request to begin and one for each page of events back to that moment, and one more;
// see [Store.History]. In the per-key layout it goes on until it has found what each key was, which for a key that was made
// since is the room's beginning. A key that a homeserver whose clock is ahead has written, and that so seems later than all that
// is listed, takes one more.
//
// What was in account data then is not in it; see [WithAccountDataFallback].
//
// What was there before the user might see the room's history cannot be read. In the per-key layout Dendrite leaves no sign of
// it: a key that was there seems to have been made later.
//
// Errors: [ErrNotFound] for a revision that is not one of this store's memory; [ErrTooOld] where the homeserver does not list
// what there was at that moment, because it has purged it, or the room's settings hide it; [ErrRedacted] where the
// event that was current then was redacted; [ErrCorrupt]; [ErrWrongSecret].
func (s *Store) At(ctx context.Context, moment Moment) (*Snapshot, error) {
	state, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	if moment == (Moment{}) {
		return nil, fault.Of(ErrNotFound, nil, "no revision was given")
	}
	if err := state.CheckRoom(ctx, false); err != nil {
		return nil, err
	}
	search := search{roomState: state, moment: moment, found: moment.timed, events: map[string][]*matrix.Event{}, oldest: map[string]*matrix.Event{}}
	if err := search.run(ctx); err != nil {
		return nil, err
	}
	return search.snapshot(ctx)
}

// search finds the events that lead to a moment.
type search struct {
	roomState
	moment  Moment
	found   bool                       // whether the revision's event was
	events  map[string][]*matrix.Event // by state key: those at or before the moment, the newest first
	current map[string]*matrix.Event   // by state key
	oldest  map[string]*matrix.Event   // by state key: the last that was listed
}

// farBack bounds how many events of one dict are looked at beyond the moment where writers have left no merge.
const farBack = 1000

func (s *search) run(ctx context.Context) error {
	var err error
	if s.current, err = s.heads(ctx); err != nil {
		return err
	}
	back := past{roomState: s.roomState}
	events, err := back.begin(ctx, slices.Collect(maps.Values(s.current))...)
	for ; err == nil; events, err = back.turn(ctx) {
		for _, evt := range events {
			s.add(evt)
		}
		if back.ended || s.found && s.enough() {
			break
		}
	}
	if err != nil {
		return err
	}
	cut := func(stateKey string) bool { return !back.whole || s.follows(s.oldest[stateKey]) }
	if !s.found && slices.ContainsFunc(slices.Collect(maps.Keys(s.current)), cut) {
		return fault.Of(ErrTooOld, nil, "the homeserver does not list revision %s in %s, nor all that was before", s.moment.revision, s.ID)
	} else if !s.found {
		return fault.Of(ErrNotFound, nil, "revision %s is not of this memory in %s", s.moment.revision, s.ID)
	}
	for stateKey := range s.current {
		if back.ended && len(s.events[stateKey]) == 0 && cut(stateKey) {
			return fault.Of(ErrTooOld, nil, "the homeserver does not list what state %q in %s was then", stateKey, s.ID)
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
	read := s.roomState.Parsed(evt)
	return read.Replaces != "" || len(read.Parents) > 0
}

// heads are the current events of all dicts.
func (r roomState) heads(ctx context.Context) (map[string]*matrix.Event, error) {
	if single, ok := r.core.Layout.(memory.OneDict); ok {
		evt, err := r.Get(ctx, single.Key)
		if err != nil || evt == nil {
			return nil, err
		}
		return map[string]*matrix.Event{single.Key: evt}, nil
	}
	current, err := r.List(ctx)
	maps.DeleteFunc(current, func(stateKey string, _ *matrix.Event) bool { return !r.core.Layout.Holds(stateKey) })
	return current, err
}

// add takes an event that is older than those before.
func (s *search) add(evt *matrix.Event) {
	stateKey := *evt.StateKey
	if !s.core.Layout.Holds(stateKey) {
		return
	}
	s.oldest[stateKey] = evt
	s.found = s.found || evt.ID == s.moment.revision
	switch events := s.events[stateKey]; {
	case !s.found, s.moment.timed && len(events) == 0 && evt.Time > s.moment.time.UnixMilli():
	case !s.core.Layout.Atomic() && len(events) > rivals:
	default:
		s.events[stateKey] = append(events, evt)
	}
}

// enough tells whether what is older cannot matter.
func (s *search) enough() bool {
	if !s.core.Layout.Atomic() {
		for stateKey := range s.current {
			if len(s.events[stateKey]) == 0 {
				return false
			}
		}
		return true
	}
	for stateKey, events := range s.events {
		h := s.history(stateKey)
		if len(events) <= rivals || len(events) < farBack && h.Open() {
			return false
		}
	}
	return len(s.events) > 0
}

// history is what is known of a dict. What is listed before an event that was redacted is left out: nobody knows any more
// which of that it had merged, and nothing is redacted that is yet to be merged.
func (s *search) history(stateKey string) *merge.History {
	h := new(merge.History)
	for i, evt := range s.events[stateKey] {
		if i > 0 && evt.Redacted() {
			break
		}
		h.AddOlder(s.roomState.Parsed(evt))
	}
	return h
}

func (s *search) snapshot(ctx context.Context) (*Snapshot, error) {
	found := &Snapshot{state: s.roomState, records: map[string]memory.Record{}, broken: map[string]memory.Record{}}
	for stateKey, events := range s.events {
		view, err := s.view(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if view.Err == nil && events[0].Redacted() {
			view.Err = fault.Of(ErrRedacted, nil, "event %s in %s", view.Event, s.ID)
		}
		if s.core.Layout.Atomic() {
			if view.Err != nil {
				return nil, view.Err
			}
			if err := s.CheckNames(view.Names); err != nil {
				return nil, err
			}
		}
		if view.Err != nil {
			found.broken[stateKey] = *memory.RecordOf(view, nameOf(stateKey))
			continue
		}
		for name := range s.visible(view.Names) {
			found.records[name] = *memory.RecordOf(view, name)
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
	own := s.roomState.Parsed(s.events[stateKey][0])
	view := replica.ViewOf(&own)
	if s.moment.timed || own.ID != s.moment.revision || len(h.Heads()) == 1 {
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

// Get decodes the value that key had into dest, as [Store.Get] does.
//
// Errors: those of [Store.Get], and [ErrRedacted].
func (s *Snapshot) Get(ctx context.Context, key string, dest any) error {
	entry, err := s.Entry(ctx, key)
	if err != nil {
		return err
	}
	return entry.Decode(dest)
}

// Entry returns the value that key had, with the revision that was current, its sender and time; see [Store.Entry]. A value that
// this process has not read before takes a request where it is encrypted.
//
// Errors: those of [Store.Entry], and [ErrRedacted].
func (s *Snapshot) Entry(ctx context.Context, key string) (Entry, error) {
	name := s.state.NameOf(key)
	found, ok := s.records[name]
	if !ok {
		found, ok = s.broken[s.state.core.Layout.StateKey(name)]
	}
	if !ok {
		return Entry{}, memory.NotFound(key, s.state.ID)
	}
	entry, err := s.state.Reader().Entry(ctx, &found)
	entry.Key = key
	return entryOf(entry), err
}

// Keys returns the keys that there were, sorted; see [Store.Keys].
func (s *Snapshot) Keys(ctx context.Context) ([]string, error) {
	var keys []string
	var failed error
	reader := s.state.Reader().Together().KeysOnly()
	for name, found := range s.records {
		key, plain := wire.KeyOf(name)
		if !plain {
			entry, err := reader.Entry(ctx, &found)
			if key = entry.Key; key == "" && err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, failed
}

// All returns every entry that there was, in the order of the keys; see [Store.All], whose errors it has, and [ErrRedacted].
func (s *Snapshot) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		reader := s.state.Reader().Together()
		all := slices.AppendSeq(slices.Collect(maps.Values(s.records)), maps.Values(s.broken))
		for _, found := range s.state.InOrder(ctx, all) {
			entry, err := reader.Entry(ctx, &found)
			if !yield(entryOf(entry), err) {
				return
			}
		}
	}
}

// of fails where the snapshot is not one of the memory.
func (s *Snapshot) of(state roomState) error {
	if s == nil {
		return fault.Of(ErrInvalidOption, nil, "the snapshot is nil")
	}
	mine, other := s.state.core, state.core
	if s.state.ID != state.ID || mine.Type != other.Type || mine.Layout != other.Layout || string(mine.Secret) != string(other.Secret) {
		return fault.Of(ErrInvalidOption, errors.New("another memory"), "the snapshot is of another memory than this one in %s; Copy takes values from one to another", state.ID)
	}
	return nil
}
