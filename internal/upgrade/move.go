package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// migration brings the memory of a room that was upgraded to this room, which replaces it. Whoever comes first moves what can be
// read. What somebody has written to this room before counts more; what the homeserver has copied there is not that. A mark says
// that the memory was moved, and how many values were left. The reference to such a value stands here as in the old room: it tells the
// migration of another process what is missing, and that nobody has written or deleted the key since.
//
// In the single-state-key layout one event brings the memory and the mark. Where there are several events with many names, each brings the mark with
// what it has, unless values were left: under a sealed name, another in each room, such a value can belong into any of them. The event of their own
// fields has the mark when all others are there. In the per-key layout the mark is an event of its own, sent
// when all others are there, and no migration writes to a state key that somebody has written to. So any number of bots may
// move at once, and what one has moved and then changed or deleted does not come back.
type migration struct {
	Home
	old    Home
	stone  *tombstone
	create creation

	again   bool                       // whether the mark is there
	refs    map[string]string          // by name, what refers to encrypted events of the old room, where it stands there
	here    map[string]string          // by name, what stands here
	was     map[string]string          // that of it that nobody has written
	copies  map[id.EventID]bool        // the events that the homeserver has copied, and the empty one for none
	changes map[string]json.RawMessage // by name, what is to stand here
	keys    map[string]string          // of values, by name; they are encrypted where the room is
	left    int                        // how many values another client may be able to read
}

// once moves the memory unless that was done, or has failed just now.
func (m *migration) once(ctx context.Context) error {
	unlock, err := m.lockHome(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if m.rooms.of(m.ID).moved {
		return nil
	}
	if err := m.rooms.of(m.old.ID).failed.of(m.stone); err != nil {
		return err
	}
	if err = m.run(ctx); err == nil {
		m.rooms.in(m.ID, func(about *upgrade) { about.moved = true })
		return nil
	}
	err = m.old.replaced(m.ID, err)
	if ctx.Err() == nil {
		m.rooms.fail(m.old.Room, m.stone, err, false)
	}
	return err
}

func (m *migration) run(ctx context.Context) error {
	if err := m.staysEncrypted(ctx); err != nil {
		return err
	}
	evt, err := m.Get(ctx, m.Layout.StateKey(wire.PredecessorName))
	if err != nil {
		return err
	}
	if evt != nil {
		left := 0
		if dict, err := wire.ParseDict(evt.Content); err == nil {
			m.again, left = wire.MovedFrom(json.RawMessage(dict.Names[wire.PredecessorName]), m.old.ID)
		}
		// What was redacted is empty and stays so. Others leave at least their field of parents.
		if m.again && left == 0 || !m.isCopy(evt) && wire.Same(evt.Content, json.RawMessage(`{}`)) {
			return nil
		}
	}
	if err = m.bring(ctx, evt); err != nil && m.again && ctx.Err() == nil {
		m.Log(ctx).Warn().Err(err).Stringer("room_id", m.old.ID).Stringer("replacement", m.ID).Msg("Values stay in the room that was upgraded")
		return nil
	}
	return err
}

// staysEncrypted fails where values that were encrypted in the old room would be stored in the clear.
func (m *migration) staysEncrypted(ctx context.Context) error {
	if !m.Encrypt {
		return nil
	}
	was, err := m.old.IsEncrypted(ctx, true)
	if err != nil || !was {
		return err
	}
	is, err := m.IsEncrypted(ctx, true)
	if err == nil && !is {
		err = fault.Of(fault.ErrNoCrypto, nil, "%s is encrypted, and its replacement %s is not; nothing was moved", m.old.ID, m.ID)
	}
	return err
}

// isCopy tells whether the homeserver has copied the event. Dendrite gives the room's first event, what it copies and the tombstone one
// time. Who upgrades a room by hand has their tombstone after the room, and can have written to it in between.
func (m *migration) isCopy(evt *matrix.Event) bool {
	return evt.Sender == m.create.sender && evt.Time == m.create.time && evt.Time == m.stone.time
}

// bring writes what the old room has and this one is missing. marked is this room's event for the mark, nil where there is none.
func (m *migration) bring(ctx context.Context, marked *matrix.Event) error {
	if m.rooms.Away == nil {
	} else if away, err := m.rooms.Away(ctx, m.old.Room); err != nil {
		return err
	} else if away {
		return fault.Of(fault.ErrRoomUpgraded, nil, "the memory of %s is in account data at least in part, where it stays; Copy can take it to a store without WithRoomUpgrades", m.old.ID)
	}
	records, err := m.old.last(ctx, m.stone)
	if err != nil {
		return err
	}
	if err := m.compare(ctx, records, marked); err != nil || len(records) == 0 && len(m.was) == 0 {
		return err
	}
	if err := m.load(ctx, records); err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(m.changes))
	if m.Layout.Together("") {
		err := m.Dict(m.Layout.StateKey("")).Writer.Do(ctx, m.Fitting(ctx, m.edit(names)))
		return fault.Advise(err, "delete keys in a copy, or move them to a store with WithPerKeyState")
	}
	if err := m.InState().Commit(ctx, memory.Change{Names: names, Edit: m.edit}); err != nil || m.again && len(names) == 0 && m.Layout.Alone() {
		return err
	}
	return m.PutField(ctx, wire.PredecessorName, func(now json.RawMessage) json.RawMessage {
		left := m.left
		if _, theirs := wire.MovedFrom(now, m.old.ID); !m.again { // who has moved it at the same time can have left more
			left = max(left, theirs)
		}
		return wire.Predecessor(m.old.ID, left)
	})
}

// last is what the memory of an upgraded room had, together with what was acknowledged and nobody has merged. In the per-key layout a
// list shows which state keys have such rivals, and these alone are read by themselves.
func (r Home) last(ctx context.Context, stone *tombstone) (records []memory.Record, err error) {
	if !r.Layout.Alone() {
		for part, err := range r.InState().Parts(ctx, func(string) bool { return false }) {
			if err != nil {
				return nil, err
			}
			records = append(records, part.Records...)
		}
		return records, nil
	}
	events, err := r.ListWhole(ctx)
	if err == nil {
		err = r.CheckFieldsOf(events[wire.SealName])
	}
	if err != nil {
		return nil, err
	}
	newest := int64(0)
	for _, evt := range events {
		newest = max(newest, evt.Time)
	}
	// The clock of the tombstone's sender can be ahead of the writers', and one writer's ahead of the others'.
	since := min(newest, stone.time) - r.Policy.Unmerged.Milliseconds()
	listed := map[string][]merge.Event{} // by state key, the newest first
	for page, err := range r.Pages(ctx) {
		if err != nil {
			return nil, err
		}
		older := len(page.Events) > 0
		for _, evt := range page.Events {
			listed[*evt.StateKey] = append(listed[*evt.StateKey], r.Parsed(evt))
			older = older && evt.Time < since
		}
		if older {
			break
		}
	}
	for stateKey, evt := range events {
		if !r.Layout.Holds(stateKey) {
			continue
		}
		view := r.ViewOf(evt)
		var history merge.History
		history.AddPage(listed[stateKey], history.Now())
		heads := history.Heads()
		if merged := len(heads) == 0 || len(heads) == 1 && heads[0].ID == evt.ID; !merged && r.Parsed(evt).Marked {
			apart, err := r.apart(ctx, stateKey)
			if err != nil {
				return nil, err
			}
			if whole := apart.View(); whole != nil && whole.Err == nil {
				view = whole
			}
		}
		records = append(records, memory.RecordsOf(view)...)
	}
	return records, nil
}

// apart reads a dict of one name with all that nobody has merged, without what is known of it or waiting for who writes it.
func (r Home) apart(ctx context.Context, stateKey string) (*replica.Dict, error) {
	dict := new(replica.Dict)
	reader := commit.NewWriter(dict, memory.DictRoom{Room: r.Room, StateKey: stateKey}, commit.Mode{OneName: true})
	return dict, reader.Do(ctx, commit.Edit{ReadOnly: true, Conditional: true, Afresh: true, Overwrites: true})
}

// compare finds out what stands here that nobody has written: references that were left, and what the homeserver has copied. A copied
// seal is the old room's, and is replaced.
func (m *migration) compare(ctx context.Context, records []memory.Record, marked *matrix.Event) error {
	m.refs, m.here, m.was, m.copies = map[string]string{}, map[string]string{}, map[string]string{}, map[id.EventID]bool{"": true}
	for _, found := range records {
		if stored := string(found.Stored); wire.Refers(stored) {
			m.refs[found.Name] = stored
		}
	}
	events, err := map[string]*matrix.Event{}, error(nil)
	if !m.Layout.Together("") {
		events, err = m.ListWhole(ctx)
	} else if marked != nil {
		events[*marked.StateKey] = marked
	}
	copies, failed := m.copiesOf(ctx, events)
	if err == nil {
		err = failed
	}
	for stateKey, evt := range events {
		if !m.Layout.Holds(stateKey) {
			continue
		}
		for name, stored := range m.ViewOf(evt).Names {
			if m.here[name] = stored; m.refs[name] == stored {
				m.was[name] = stored
			}
		}
		if copied := copies[stateKey]; copied != nil {
			m.copies[copied.ID] = true
			maps.Copy(m.was, m.ViewOf(copied).Names)
		}
	}
	maps.DeleteFunc(m.was, func(name, _ string) bool { return wire.IsOwn(name) && name != wire.SealName })
	seal := events[m.Layout.StateKey(wire.SealName)]
	if err == nil && seal != nil && !m.again && m.Secret != nil && m.isCopy(seal) && !m.Layout.Together("") {
		err = m.PutField(ctx, wire.SealName, func(json.RawMessage) json.RawMessage { return m.Seal() })
	}
	return err
}

// copiesOf are the events that the homeserver has copied, by state key: the current ones, or where an event has many names perhaps one before it.
func (m *migration) copiesOf(ctx context.Context, current map[string]*matrix.Event) (map[string]*matrix.Event, error) {
	copies, missing := map[string]*matrix.Event{}, map[string]bool{}
	if m.again { // all copies were replaced
		return copies, nil
	}
	for stateKey, evt := range current {
		if m.isCopy(evt) {
			copies[stateKey] = evt
		} else if m.Layout.Holds(stateKey) && !m.Layout.Alone() {
			missing[stateKey] = true
		}
	}
	if len(missing) == 0 {
		return copies, nil
	}
	for page, err := range m.Pages(ctx) {
		if err != nil {
			return nil, err
		}
		for _, evt := range page.Events {
			if missing[*evt.StateKey] && m.isCopy(evt) {
				copies[*evt.StateKey] = evt
				delete(missing, *evt.StateKey)
			}
		}
		if len(missing) == 0 {
			break
		}
	}
	return copies, nil
}

// load reads what is to stand here. Values are encrypted anew, so that this room's members can read them. What cannot be read is left as
// it is, but for what nobody will ever read under a sealed name, which nobody could delete.
func (m *migration) load(ctx context.Context, records []memory.Record) error {
	m.changes, m.keys = map[string]json.RawMessage{}, map[string]string{}
	for name := range m.was {
		m.changes[name] = nil
	}
	if m.Secret != nil && m.Layout.Together("") {
		m.changes[wire.SealName] = m.Seal()
	}
	sealer, err := m.Sealer(ctx, true)
	if err != nil {
		return err
	}
	old := m.old.Reader().Together()
	unread, failed := 0, map[string]error{} // by reference, which many values can share
	for _, found := range records {
		if _, missing := m.was[found.Name]; m.again && !missing {
			continue
		}
		name, read, ref := found.Name, memory.Value{}, m.refs[found.Name]
		err := failed[ref]
		switch {
		case found.Err != nil:
			err = found.Err
		case err == nil:
			read, err = old.Value(ctx, name, found.Stored, found.Event)
		}
		if ref != "" && errors.Is(err, fault.ErrUndecryptable) {
			failed[ref] = err
		}
		_, plain := wire.KeyOf(name)
		switch lost := errors.Is(err, fault.ErrRedacted) || errors.Is(err, fault.ErrCorrupt); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && (!read.Encrypted || sealer != nil): // else it would stand in the clear
			if !plain {
				name = m.NameOf(read.Key)
			}
			stored, err := wire.Encode(read.JSON)
			if err == nil {
				stored = wire.WithExpiryOf(stored, found.Stored)
				stored, err = m.Keep(ctx, name, read.Key, stored) // an attachment is of one room
			}
			if err != nil {
				return err
			}
			m.changes[name], m.keys[name] = stored, read.Key
			continue
		case err != nil && !memory.IsUnreadable(err):
			return err
		case found.Err == nil && (plain || !lost):
			m.changes[name] = found.Stored
			if ref != "" && !lost {
				m.left++
			}
		}
		unread++
	}
	for name, stored := range m.changes { // an edit of values that changes none makes no event for the mark
		now := m.here[name]
		if same := now == string(stored) && (sealer == nil || m.refs[name] != ""); same || now != m.was[name] {
			delete(m.changes, name)
			delete(m.keys, name)
		}
	}
	if unread > 0 {
		m.Log(ctx).Warn().Stringer("room_id", m.old.ID).Stringer("replacement", m.ID).Int("keys", unread).Msg("Values that cannot be read stay in the room that was upgraded")
	}
	return nil
}

// edit makes those of the changes that are under names to which nobody has written.
func (m *migration) edit(names []string) commit.Edit {
	return commit.Edit{Conditional: true, Values: m.keys, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
		changes := map[string]json.RawMessage{}
		for _, name := range names {
			if m.isFree(base, name) {
				changes[name] = m.changes[name]
			}
		}
		if m.Layout.Alone() || m.isMarked(base) && len(changes) == 0 && !m.again { // somebody else has moved all meanwhile
			return changes, nil
		}
		left := 0 // of which the event tells that is written last
		switch {
		case m.Layout.Together(""):
			left = m.left
		case m.left > 0: // somebody who can read more may bring more to this event
			return changes, nil
		}
		changes[wire.PredecessorName] = wire.Predecessor(m.old.ID, left)
		if seal, sealed := base.Stored(wire.SealName); sealed && changes[wire.SealName] == nil {
			return changes, m.CheckSeal(string(seal), true)
		}
		return changes, nil
	}}
}

// isFree tells whether nobody has written what stands under the name, or deleted what stood there.
func (m *migration) isFree(base commit.Base, name string) bool {
	now, there := base.Stored(name)
	was, stood := m.was[name]
	since := !m.again && m.isMarked(base) // somebody else has moved the memory meanwhile
	switch {
	case there && string(now) == m.refs[name]:
		return true
	case m.Layout.Alone():
		return m.copies[base.Event()]
	default:
		return !since && there == stood && string(now) == was
	}
}

// isMarked tells whether a dict of many names has the mark.
func (m *migration) isMarked(base commit.Base) bool {
	mark, _ := base.Stored(wire.PredecessorName)
	marked, _ := wire.MovedFrom(mark, m.old.ID)
	return marked
}
