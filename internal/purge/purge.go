// Package purge takes keys out of a room's memory and out of its past: it redacts every event that ever held a value of theirs.
package purge

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/past"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Result is what a purge has done.
type Result struct {
	State     int                   // state events that were redacted
	Encrypted int                   // encrypted events that were redacted
	Media     []id.ContentURIString // attachments that held values
	Left      []Left                // events that still have a value, or can have it
	Unseen    bool                  // the homeserver does not list the room's events back to the first
}

// Left is an event that was not redacted, and why.
type Left struct {
	Event id.EventID
	Err   error
}

// Run purges keys. What it has done is added to done, which is right beside an error too. The error is why it could not go on.
func Run(ctx context.Context, h memory.Handle, keys []string, done *Result) error {
	return newPurge(h, keys, done).run(ctx)
}

const (
	// purgeRounds is how often a purge looks for what has come since it looked last, and does something about it.
	purgeRounds = 10

	// usedTries is in how many of them an encrypted event may be in use for values of other keys: what is current can be the event of a
	// writer that had not seen these encrypted anew, until the next write merges it.
	usedTries = 4
)

// purge is a Purge that is going on.
type purge struct {
	memory.Handle
	names  map[string]map[string]string // by state key: the key of each name
	seen   map[id.EventID]bool          // state events
	clear  []*matrix.Event              // state events to redact, the oldest first
	sealed map[id.EventID]bool          // encrypted events to look into: whether that is still to be done
	fields map[id.EventID]bool          // those that hold fields of a value, which do not have its key
	others map[string]bool              // names that are not purged
	used   map[id.EventID]int           // how often an encrypted event was in use
	done   *Result
	levels *event.PowerLevelsEventContent // nil until somebody has to be told
}

func newPurge(h memory.Handle, keys []string, done *Result) *purge {
	p := &purge{Handle: h, names: map[string]map[string]string{}, seen: map[id.EventID]bool{},
		sealed: map[id.EventID]bool{}, fields: map[id.EventID]bool{}, others: map[string]bool{}, used: map[id.EventID]int{}, done: done}
	for _, key := range keys {
		for _, name := range []string{h.NameOf(key), wire.Name(key)} { // it may have been stored before keys were sealed
			stateKey := h.Layout.StateKey(name)
			if p.names[stateKey] == nil {
				p.names[stateKey] = map[string]string{}
			}
			p.names[stateKey][name] = key
		}
	}
	return p
}

// run goes round until nothing is left to be done. What is redacted in a round was there before the round's writes, which have
// merged it: nobody who begins later needs it.
func (p *purge) run(ctx context.Context) error {
	for range purgeRounds {
		current, err := p.current(ctx)
		if err != nil {
			return err
		}
		if err := p.look(ctx, current); err != nil {
			return err
		}
		wrote, err := p.remove(ctx, current)
		again := false
		if err == nil {
			again, err = p.unseal(ctx)
		}
		if err == nil {
			err = p.empty(ctx)
		}
		if err != nil || !wrote && !again && len(p.clear) == 0 {
			return err
		}
	}
	for _, evt := range p.clear {
		p.leave(evt.ID, fault.Of(fault.ErrConflict, nil, "event %s in %s was not redacted, for others go on writing the key", evt.ID, p.ID))
	}
	return nil
}

// current are the current events of the keys' dicts, by state key. With sealed keys it looks for plain names in a listing, for a request would tell
// the homeserver something of the key where that decides about the event.
func (p *purge) current(ctx context.Context) (current map[string]*matrix.Event, err error) {
	hides := p.Secret != nil && !p.Layout.Together("")
	var listed map[string]*matrix.Event
	if hides {
		if listed, err = p.List(ctx); err != nil {
			return nil, err
		}
	}
	current = make(map[string]*matrix.Event, len(p.names))
	for stateKey := range p.names {
		evt := listed[stateKey]
		if !hides || slices.ContainsFunc(slices.Collect(maps.Keys(p.names[stateKey])), wire.IsSealed) {
			if evt, err = p.Get(ctx, stateKey); err != nil {
				return nil, err
			}
		}
		if evt != nil {
			current[stateKey] = evt
		}
	}
	return current, nil
}

// look reads the state events that were not seen before.
func (p *purge) look(ctx context.Context, current map[string]*matrix.Event) error {
	back := past.Events{Room: p.Room}
	first := len(p.seen) == 0
	var found []*matrix.Event
	events, err := back.Begin(ctx, slices.Collect(maps.Values(current))...)
	for ; err == nil; events, err = back.Turn(ctx) {
		fresh := false
		for _, evt := range events {
			if p.seen[evt.ID] {
				continue
			}
			p.seen[evt.ID], fresh = true, true
			p.noteOthers(evt)
			if p.shows(evt) {
				found = append(found, &matrix.Event{ID: evt.ID, StateKey: evt.StateKey}) // contents would be the whole history
			}
		}
		if back.Ended || len(events) > 0 && !fresh {
			break
		}
	}
	slices.Reverse(found)
	p.clear = append(p.clear, found...)
	p.done.Unseen = p.done.Unseen || first && err == nil && !back.Whole
	return err
}

// shows tells whether a value stands in a state event, or in what the homeserver shows beside it. Synapse goes on showing that
// beside an event that was redacted before the one that it shows was, until it is redacted once more.
func (p *purge) shows(evt *matrix.Event) bool {
	stateKey := *evt.StateKey
	if p.names[stateKey] == nil {
		return false
	}
	_, inside := p.find(stateKey, evt.Content)
	if len(evt.Unsigned.Before) == 0 {
		return inside
	}
	_, beside := p.find(stateKey, evt.Unsigned.Before)
	return inside || beside
}

// noteOthers notes the names in a state event that are not purged.
func (p *purge) noteOthers(evt *matrix.Event) {
	dict, err := p.Layout.Parse(*evt.StateKey, evt.Content)
	if err != nil {
		return
	}
	for name := range dict.Names {
		if !p.isPurged(name) {
			p.others[name] = true
		}
	}
}

// find notes where the values are that a content has of the keys. It gives their names, and tells whether any value stands in
// the content itself, as it may in one that is not in the store's format.
func (p *purge) find(stateKey string, content json.RawMessage) (names []string, inClear bool) {
	dict, err := p.Layout.Parse(stateKey, content)
	if err != nil {
		return slices.Collect(maps.Keys(p.names[stateKey])), true
	}
	all := dict.Names
	for name := range p.names[stateKey] {
		stored, there := all[name]
		if !there {
			continue
		}
		names = append(names, name)
		read, err := wire.Decode(json.RawMessage(stored))
		if err != nil || read.Event == "" {
			inClear = true
			p.attachment(read)
		}
		for _, event := range wire.References(json.RawMessage(stored)) {
			if _, known := p.sealed[event]; !known {
				p.sealed[event] = true
			}
			p.fields[event] = p.fields[event] || read.Fields != nil
		}
	}
	return names, inClear
}

// attachment notes the attachment that a value is in, if any.
func (p *purge) attachment(read wire.Value) {
	if read.Media == nil {
		return
	}
	if media, err := wire.ParseMedia(read.Media); err == nil && !slices.Contains(p.done.Media, media.URL) {
		p.done.Media = append(p.done.Media, media.URL)
	}
}

// remove takes the keys out of what is current, and writes that once more where the homeserver shows a value beside it. It merges
// what somebody has left unmerged of a dict that is to be redacted in part, or that refers to what is to be redacted.
func (p *purge) remove(ctx context.Context, current map[string]*matrix.Event) (wrote bool, err error) {
	for stateKey, evt := range current {
		names, _ := p.find(stateKey, evt.Content)
		shows := slices.ContainsFunc(p.clear, func(shown *matrix.Event) bool { return shown.ID == evt.ID })
		edit := commit.Edit{Afresh: true, Sweeps: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			changes := make(map[string]json.RawMessage, len(names))
			for _, name := range names {
				changes[name] = nil
			}
			return changes, nil
		}}
		switch {
		case len(names) > 0:
		case shows:
			edit.Conditional, edit.Barrier = true, true
		case p.Layout.Alone() || len(p.used) == 0 && !slices.ContainsFunc(p.clear, func(evt *matrix.Event) bool { return *evt.StateKey == stateKey }):
			continue
		default:
			edit.Conditional = true
		}
		wrote = wrote || len(names) > 0 || shows
		if len(names) == 0 {
			names = slices.Collect(maps.Keys(p.names[stateKey]))[:1] // they have one event
		}
		if err := p.Commit(ctx, memory.Change{Names: names, Edit: func([]string) commit.Edit { return edit }}); err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}

// empty redacts state events, but for those that are current, the oldest first; see shows.
func (p *purge) empty(ctx context.Context) error {
	if len(p.clear) == 0 {
		return nil
	}
	current, err := p.current(ctx)
	if err != nil {
		return err
	}
	var kept []*matrix.Event
	for _, evt := range p.clear {
		now, view := current[*evt.StateKey], p.Dict(*evt.StateKey).View()
		if now != nil && now.ID == evt.ID || view != nil && view.Event == evt.ID {
			kept = append(kept, evt)
			continue
		}
		redacted, err := p.redactOne(ctx, evt.ID)
		if err != nil {
			return err
		}
		p.done.State += redacted
	}
	p.clear = kept
	return nil
}

// unseal redacts the encrypted events, and tells whether there are some that it has to see again. The state can name any event, and
// only those that hold a purged key are redacted.
func (p *purge) unseal(ctx context.Context) (again bool, err error) {
	found := map[id.EventID]*seal.Opened{}
	for at, todo := range p.sealed {
		if !todo {
			continue
		}
		p.sealed[at] = false
		opened, err := p.Reader().NotWaiting().Open(ctx, at)
		switch {
		case errors.Is(err, fault.ErrRedacted), errors.Is(err, fault.ErrCorrupt):
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			p.leave(at, err)
		case p.holds(opened), p.fields[at] && !p.holdsOther(opened):
			found[at] = opened
		case p.fields[at]:
			p.leave(at, fault.Of(fault.ErrUndecryptable, nil, "event %s in %s was not redacted, for what it holds can be the value of another key", at, p.ID))
		}
	}
	if len(found) == 0 {
		return false, nil
	}
	used, err := p.reseal(ctx, found)
	if err != nil {
		return false, err
	}
	for at := range found {
		if p.used[at]++; used[at] && p.used[at] < usedTries {
			p.sealed[at], again = true, true
			continue
		}
		if used[at] {
			p.leave(at, fault.Of(fault.ErrUndecryptable, nil, "event %s in %s was not redacted, for the state refers to it for values of other keys", at, p.ID))
			continue
		}
		redacted, err := p.redactOne(ctx, at)
		if err != nil {
			return false, err
		}
		p.done.Encrypted += redacted
		p.Megolm.Forget(p.ID, at)
	}
	return again, nil
}

// holds tells whether an encrypted event holds a purged key, and notes its attachments.
func (p *purge) holds(event *seal.Opened) (holds bool) {
	for _, names := range p.names {
		for _, key := range names {
			inside, there := wire.Inside(event.Values, key)
			if holds = holds || there; there {
				if read, err := wire.Unseal(inside); err == nil {
					p.attachment(read)
				}
			}
		}
	}
	return holds
}

// holdsOther tells whether an encrypted event can hold the value of a key that is not purged. Whoever may write state can call any
// event a field of a purged one.
func (p *purge) holdsOther(event *seal.Opened) bool {
	for inside := range event.Values {
		key, ok := wire.KeyOf(inside)
		if ok && (p.others[wire.Name(key)] || p.others[p.NameOf(key)]) {
			return true
		}
	}
	return false
}

// reseal encrypts anew what is current and shares an encrypted event with a purged key. It gives the events that the state refers to
// then.
func (p *purge) reseal(ctx context.Context, events map[id.EventID]*seal.Opened) (used map[id.EventID]bool, err error) {
	records, err := p.InState().All(ctx)
	if err != nil {
		return nil, err
	}
	from := map[string]string{} // by name: the reference
	var values []commit.Value
	for _, found := range records {
		read, err := wire.Decode(found.Stored)
		if found.Err != nil || err != nil || events[read.Event] == nil || !p.Reader().Trusts(events[read.Event]) || p.isPurged(found.Name) {
			continue
		}
		key, inside, there := p.Inside(events[read.Event], found.Name)
		if !there {
			continue
		}
		if stored, err := storedForm(inside); err == nil {
			stored = wire.WithExpiryOf(stored, found.Stored)
			from[found.Name] = string(found.Stored)
			values = append(values, commit.ValueOf(found.Name, key, wire.Canonical(stored)))
		}
	}
	if err := p.sealAnew(ctx, values, from); err != nil {
		return nil, err
	}
	current, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	now, err := p.current(ctx) // a listing can be behind
	maps.Copy(current, now)
	return memory.Referred(current), err
}

func (p *purge) isPurged(name string) bool {
	_, purged := p.names[p.Layout.StateKey(name)][name]
	return purged
}

// storedForm is a value as it would stand in the state.
func storedForm(inside json.RawMessage) (json.RawMessage, error) {
	read, err := wire.Unseal(inside)
	switch {
	case err != nil:
		return nil, err
	case read.Media != nil:
		return wire.StoredMedia(read.Media), nil
	default:
		return wire.Encode(read.JSON)
	}
}

// sealAnew encrypts values in new events where the state still has the references that they are from.
func (p *purge) sealAnew(ctx context.Context, values []commit.Value, from map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	slices.SortFunc(values, func(a, b commit.Value) int { return strings.Compare(a.Name, b.Name) })
	byName := make(map[string]commit.Value, len(values))
	for _, value := range values {
		byName[value.Name] = value
	}
	batch := seal.NewBatch(p.AskedSealer, values)
	return p.Commit(ctx, memory.Change{Names: slices.Collect(maps.Keys(byName)), Edit: func(names []string) commit.Edit {
		keys := make(map[string]string, len(names))
		for _, name := range names {
			keys[name] = byName[name].Key
		}
		return commit.Edit{Conditional: true, Sweeps: true, Anew: true, Values: keys, Sealer: batch.Sealer, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changes := map[string]json.RawMessage{}
			for _, name := range names {
				if stored, there := base.Stored(name); there && wire.Canonical(stored) == wire.Canonical(json.RawMessage(from[name])) {
					changes[name] = wire.WithExpiryOf(json.RawMessage(byName[name].Stored), stored)
				}
			}
			return changes, nil
		}}
	}})
}

// redactOne redacts an event, and gives how many that were. The error ends the purge.
func (p *purge) redactOne(ctx context.Context, at id.EventID) (redacted int, err error) {
	err = p.Redact(ctx, at)
	switch {
	case err == nil:
		return 1, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, mautrix.MForbidden):
		p.leave(at, p.mayNot(ctx, at, err))
	case !matrix.IsStatus(err, http.StatusNotFound):
		p.leave(at, p.Explain(ctx, "redact", err))
	}
	return 0, nil
}

func (p *purge) leave(at id.EventID, err error) {
	p.done.Left = append(p.done.Left, Left{at, err})
}

// mayNot says which power a redaction takes.
func (p *purge) mayNot(ctx context.Context, at id.EventID, cause error) error {
	if p.levels == nil {
		levels, err := p.PowerLevels(ctx)
		if err != nil {
			return fault.Of(fault.ErrForbidden, cause, "cannot redact event %s in %s", at, p.ID)
		}
		p.levels = levels
	}
	return p.MayNotRedact(at, p.levels, cause)
}
