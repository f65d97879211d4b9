package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// moveFrom moves the memory from the old room, unless somebody has done so. What somebody has written to this room before
// counts more; what the homeserver has copied there is not that.
//
// In the single-state-key layout one event brings the memory and the field that says so. In the per-key layout an event of its
// own says so when all others are there, and nobody who moves writes to a state key that somebody has written to: any
// number of bots may move at once, and what one has moved and then changed or deleted does not come back.
func (r roomState) moveFrom(ctx context.Context, old roomState, stone *tombstone, create creation) error {
	if err := r.mustStayEncrypted(ctx, old); err != nil {
		return err
	}
	if !r.core.fallback {
	} else if over, err := r.core.accounts.Memory(old.Room).Holds(ctx); err != nil {
		return err
	} else if over {
		return fault.Of(ErrRoomUpgraded, nil, "the memory of %s is in account data at least in part, where it stays; Copy can take it to a store without WithRoomUpgrades", old.ID)
	}
	// Dendrite gives the room's first event, what it copies and the tombstone one time. Who upgrades a room by hand has their
	// tombstone after the room, and can have written to it in between.
	copied := func(evt *matrix.Event) bool {
		return evt.Sender == create.sender && evt.Time == create.time && evt.Time == stone.time
	}
	if single, ok := r.core.Layout.(memory.OneDict); ok {
		return r.moveDict(ctx, single, old, stone, copied)
	}
	return r.moveKeys(ctx, old, stone, copied)
}

// cargo is what is moved, by the names that it has in the new room.
type cargo struct {
	stored map[string]json.RawMessage
	keys   map[string]string // of values, which are encrypted where the room is
}

const (
	// patience is how long after an upgrade nothing is moved while this client cannot read a value that another may: nobody moves
	// a value later that the first who moves has left. Then it is left all the same, or a key that nobody has would keep all
	// from writing for good.
	patience = 10 * time.Minute

	// askingTime is about how long a move that will not be done asks for the keys that it lacks, for reads wait for it.
	askingTime = time.Second
)

// isPatient tells whether values that the client cannot read are waited for. By the process's clock too, for that of the tombstone's
// sender can be wrong.
func (t *tombstone) isPatient() bool {
	return time.Since(time.UnixMilli(t.time)) < patience && time.Since(t.seen) < patience
}

// isLost tells whether nobody will ever read the value that the error is of.
func isLost(err error) bool {
	return errors.Is(err, ErrRedacted) || !isWithheld(err) && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrMissingMedia))
}

// isWithheld tells whether the value that the error is of may be for others to read, or for nobody. What is neither lost nor
// withheld cannot be read at this moment.
func isWithheld(err error) bool {
	return errors.Is(err, ErrUndecryptable) && !errors.Is(err, ErrRedacted) || errors.Is(err, ErrUntrusted) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, ErrMissingMedia) && media.SaysNo(err)
}

func withheld(err error) error {
	return fmt.Errorf("%w; another client may be able to read it, and the memory is not moved without that for %v", err, patience)
}

// reach fails where the client cannot decrypt a value now. It asks for all keys that it lacks before it waits for one, and leaves
// attachments alone, which would be downloaded again each time that the move is tried.
func (r roomState) reach(ctx context.Context, records []memory.Record) error {
	keys := r.Reader().KeysOnly()
	asking, began := keys.NotWaiting(), time.Now()
	tried := map[id.EventID]bool{}
	var missing []memory.Record
	for _, found := range records {
		events := wire.References(found.Stored)
		if !slices.ContainsFunc(events, func(event id.EventID) bool { return !tried[event] }) {
			continue
		}
		for _, event := range events {
			tried[event] = true
		}
		switch _, err := asking.Value(ctx, found.Name, found.Stored, found.Event); {
		case isWithheld(err):
			missing = append(missing, found)
		case err != nil && !isLost(err):
			return err
		}
		if len(missing) > 0 && time.Since(began) > askingTime {
			break
		}
	}
	waiting := keys.Together()
	for _, found := range missing {
		if _, err := waiting.Value(ctx, found.Name, found.Stored, found.Event); isWithheld(err) {
			return withheld(err)
		}
	}
	return nil
}

// load reads what the old room has. What nobody can read is moved as it is where it refers to something.
func (r roomState) load(ctx context.Context, old roomState, stone *tombstone, records []memory.Record) (cargo, error) {
	load := cargo{map[string]json.RawMessage{}, map[string]string{}}
	if stone.isPatient() {
		if err := old.reach(ctx, records); err != nil {
			return load, err
		}
	}
	reader := old.Reader().Together()
	left := 0
	for _, found := range records {
		if found.Err != nil {
			left++
			continue
		}
		read, err := reader.Value(ctx, found.Name, found.Stored, found.Event)
		switch {
		case ctx.Err() != nil:
			return load, ctx.Err()
		case isWithheld(err) && stone.isPatient():
			return load, withheld(err)
		case err != nil && !isLost(err) && !isWithheld(err):
			return load, err
		}
		_, named := wire.KeyOf(found.Name)
		elsewhere, unreadable := wire.Decode(found.Stored)
		switch {
		case err == nil:
			name := found.Name
			if !named {
				name = r.NameOf(read.Key)
			}
			stored := found.Stored
			if elsewhere.JSON == nil {
				if stored, err = wire.Encode(read.JSON); err != nil {
					return load, fault.Of(ErrCorrupt, err, "event %s in %s, key %q", found.Event, old.ID, read.Key)
				}
				if stored, err = r.Keep(ctx, name, read.Key, stored); err != nil { // an attachment is of one room
					return load, err
				}
			}
			load.stored[name], load.keys[name] = stored, read.Key
		case named && (unreadable != nil || elsewhere.JSON == nil):
			load.stored[found.Name] = found.Stored
		default:
			left++
		}
	}
	if left > 0 {
		r.Log(ctx).Warn().Stringer("room_id", old.ID).Stringer("replacement", r.ID).Int("keys", left).Msg("Values that cannot be read stay in the room that was upgraded")
	}
	return load, nil
}

// moveDict is moveFrom for the single-state-key layout.
func (r roomState) moveDict(ctx context.Context, l memory.OneDict, old roomState, stone *tombstone, copied func(*matrix.Event) bool) error {
	current, err := r.Get(ctx, l.Key)
	if err != nil {
		return err
	}
	if current != nil {
		// What was redacted is empty and stays so. Others leave at least their field of parents.
		dict, err := wire.ParseDict(current.Content)
		if err == nil && (wire.MovedFrom(json.RawMessage(dict.Names()[wire.PredecessorName]), old.ID) || !copied(current) && wire.Same(current.Content, json.RawMessage(`{}`))) {
			return nil
		}
	}
	was, err := r.copyOf(ctx, current, copied)
	if err != nil {
		return err
	}
	view, err := old.Afresh(ctx, l.Key)
	if err == nil {
		err = old.CheckNames(view.Names)
	}
	if err != nil {
		return err
	}
	load, err := r.load(ctx, old, stone, memory.RecordsOf(view))
	if err != nil || len(load.stored) == 0 && len(was) == 0 {
		return err
	}
	edit := commit.Edit{Conditional: true, Values: load.keys, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
		if from, there := base.Stored(wire.PredecessorName); there && wire.MovedFrom(from, old.ID) {
			return nil, nil
		}
		untouched := func(name string) bool {
			now, there := base.Stored(name)
			before, wasThere := was[name]
			return there == wasThere && string(now) == before
		}
		changes := map[string]json.RawMessage{wire.PredecessorName: wire.Predecessor(old.ID)}
		for name := range was {
			if _, plain := wire.KeyOf(name); (plain || wire.IsSealed(name) || name == wire.SealName) && untouched(name) {
				changes[name] = nil
			}
		}
		for name, stored := range load.stored {
			if untouched(name) {
				changes[name] = stored
			}
		}
		if seal, sealed := base.Stored(wire.SealName); sealed && !untouched(wire.SealName) {
			if err := r.CheckSeal(string(seal), true); err != nil {
				return nil, err
			}
		} else if r.core.Secret != nil {
			changes[wire.SealName] = r.Seal()
		}
		return changes, nil
	}}
	return fault.Advise(r.Dict(l.Key).Writer.Do(ctx, r.Fitting(ctx, edit)), "delete keys in a copy, or move them to a store with WithPerKeyState")
}

// copyOf is what the homeserver has copied, by name: the current event, or one before it.
func (r roomState) copyOf(ctx context.Context, current *matrix.Event, copied func(*matrix.Event) bool) (map[string]string, error) {
	if current == nil {
		return nil, nil
	}
	names := func(evt *matrix.Event) map[string]string { return r.Parsed(evt).Dict }
	if copied(current) {
		return names(current), nil
	}
	for page, err := range r.Pages(ctx) {
		if err != nil {
			return nil, err
		}
		for _, evt := range page.Events {
			if *evt.StateKey == *current.StateKey && copied(evt) {
				return names(evt), nil
			}
		}
	}
	return nil, nil
}

// moveKeys is moveFrom for the per-key layout.
func (r roomState) moveKeys(ctx context.Context, old roomState, stone *tombstone, copied func(*matrix.Event) bool) error {
	here, err := r.ListWhole(ctx)
	if err != nil {
		return err
	}
	if evt := here[wire.PredecessorName]; evt != nil {
		dict, err := wire.ParseDict(evt.Content)
		if err == nil && wire.MovedFrom(json.RawMessage(dict.Names()[wire.PredecessorName]), old.ID) {
			return nil
		}
	}
	there, err := old.ListWhole(ctx)
	if err != nil {
		return err
	}
	if seal := there[wire.SealName]; seal != nil {
		if _, err := old.CheckSealEvent(seal); err != nil {
			return err
		}
	}
	maps.DeleteFunc(there, func(stateKey string, _ *matrix.Event) bool { return !r.core.Layout.Holds(stateKey) })
	views, err := old.merged(ctx, there, stone)
	if err != nil {
		return err
	}
	var records []memory.Record
	for _, view := range views {
		records = append(records, memory.RecordsOf(view)...)
	}
	load, err := r.load(ctx, old, stone, records)
	if err != nil {
		return err
	}
	copies := map[string]id.EventID{} // by state key
	changes := map[string]json.RawMessage{}
	for stateKey, evt := range here {
		if !r.core.Layout.Holds(stateKey) || !copied(evt) {
			continue
		}
		copies[stateKey] = evt.ID
		for name := range r.ViewOf(evt).Names {
			changes[name] = nil
		}
	}
	maps.Copy(changes, load.stored)
	if len(changes) == 0 {
		return nil
	}
	if err := r.sealAnew(ctx, here[wire.SealName], copied); err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Collect(maps.Keys(changes)), func(name string) bool {
		evt := here[wire.StateKeyOf(name)]
		return evt != nil && copies[wire.StateKeyOf(name)] == ""
	})
	err = r.InState().Commit(ctx, memory.Change{Names: names, Edit: func(names []string) commit.Edit {
		edit := commit.Edit{Conditional: true, Values: map[string]string{}}
		if key, ok := load.keys[names[0]]; ok {
			edit.Values[names[0]] = key
		}
		edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
			if base.Event() != copies[wire.StateKeyOf(names[0])] {
				return nil, nil
			}
			return map[string]json.RawMessage{names[0]: changes[names[0]]}, nil
		}
		return edit
	}})
	if err != nil {
		return err
	}
	moved := wire.OfNames(map[string]string{wire.PredecessorName: string(wire.Predecessor(old.ID))})
	_, _, err = r.PutState(ctx, r.Type, wire.PredecessorName, moved.Content())
	return err
}

// sealAnew replaces a seal that the homeserver has copied, which is that of the old room.
func (r roomState) sealAnew(ctx context.Context, seal *matrix.Event, copied func(*matrix.Event) bool) error {
	if seal == nil || !copied(seal) {
		return nil
	}
	dict := wire.OfNames(nil)
	if r.core.Secret != nil {
		dict = wire.OfNames(map[string]string{wire.SealName: string(r.Seal())})
	}
	return r.PutSeal(ctx, dict)
}
