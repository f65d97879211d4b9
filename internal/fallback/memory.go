// Package fallback keeps in a user's account data what the user may not write into a room's state: a decorator around the memory in the state.
package fallback

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// adviceAccount is what to do about account data that is too large.
	adviceAccount = "delete keys, store less under them, or give the bot the power to send state, which in the per-key layout holds more"
)

// errAgain ends an edit of account data that must begin again, because the memory is written to the state by now, and the other way round.
var errAgain = errors.New("roomkv: the memory is written elsewhere by now")

// Memory is a memory in account data over that in the state. What account data has under a name counts as long as the state has there what it
// had when that was written, and else is of no account: somebody has changed the state later.
//
// In one process writers of the state, any number at a time, and a writer of account data keep each other out, and so does who changes where the
// memory is written. So nothing that was acknowledged in the one place is overlooked in the other.
type Memory struct {
	state memory.Memory
	*accountDict
}

// overrides tells whether what account data has under the name, be it that there is nothing, is what is there.
func overrides(content wire.Account, state *stateView, name string) bool {
	over, ok := content.Over[name]
	return ok && state.counts(over, name)
}

// onto is what is there under the names of a view, with account data on top of the state.
func onto(content wire.Account, state *stateView) map[string]string {
	names := state.stored()
	for name := range content.Over {
		if !state.has(name) || !overrides(content, state, name) {
			continue
		}
		if stored, there := content.Names[name]; there {
			names[name] = stored
		} else {
			delete(names, name)
		}
	}
	return names
}

// recordOf is what is there under the name, or nil.
func (f *Memory) recordOf(content wire.Account, state *stateView, name string) *memory.Record {
	if !overrides(content, state, name) {
		return memory.RecordOf(state.at(name), name)
	}
	stored, found := content.Names[name]
	if !found {
		return nil
	}
	over := content.Over[name]
	return &memory.Record{Name: name, Stored: json.RawMessage(stored), Event: revisionOf(over), Sender: f.Client.UserID,
		Time: time.UnixMilli(over.Time), InAccount: true}
}

// with gives what is read of the state beneath account data. It fails with ErrWrongSecret where either was sealed with another secret.
func (f *Memory) with(content wire.Account, read func(state *stateView) error) (*stateView, error) {
	state := newStateView(f.Room)
	err := read(&state)
	if err == nil {
		err = f.CheckFields(content.Names)
	}
	if err == nil {
		err = state.check()
	}
	return &state, err
}

// Find implements [memory.Memory].
func (f *Memory) Find(ctx context.Context, name string, afresh bool) (*memory.Record, error) {
	content, err := f.learn(ctx)
	if err != nil {
		return nil, err
	}
	if len(content.Over) == 0 {
		return f.state.Find(ctx, name, afresh)
	}
	state, err := f.with(content, func(state *stateView) error { return state.read(ctx, []string{name}, afresh) })
	if err != nil {
		return nil, err
	}
	return f.recordOf(content, state, name), nil
}

// Some implements [memory.Memory].
func (f *Memory) Some(ctx context.Context, names []string) (records []memory.Record, err error) {
	content, err := f.learn(ctx)
	if err != nil {
		return nil, err
	}
	if len(content.Over) == 0 {
		return f.state.Some(ctx, names)
	}
	state, err := f.with(content, func(state *stateView) error { return state.read(ctx, names, false) })
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if found := f.recordOf(content, state, name); found != nil {
			records = append(records, *found)
		}
	}
	return records, nil
}

// All implements [memory.Memory]. A listing can be behind, so that names for which it seems to be later than account data are asked for.
func (f *Memory) All(ctx context.Context) ([]memory.Record, error) {
	content, err := f.learn(ctx)
	if err != nil {
		return nil, err
	}
	if len(content.Over) == 0 {
		return f.state.All(ctx)
	}
	return f.records(content, func(string) bool { return false }, func(state *stateView) error {
		err := state.readAll(ctx, false)
		for name := range content.Over {
			if err == nil && !overrides(content, state, name) {
				err = state.reread(ctx, name)
			}
		}
		return err
	})
}

// now is all as the homeserver has it, without the state events that are foreign. The sync is not asked: it can be behind.
func (f *Memory) now(ctx context.Context, foreign func(stateKey string) bool) ([]memory.Record, error) {
	content, err := f.learnAnew(ctx)
	if err != nil {
		return nil, err
	}
	return f.records(content, foreign, func(state *stateView) error { return state.readAll(ctx, true) })
}

func (f *Memory) records(content wire.Account, foreign func(stateKey string) bool, read func(*stateView) error) (records []memory.Record, err error) {
	state, err := f.with(content, read)
	if err != nil {
		return nil, err
	}
	hidden := map[string]bool{} // bases
	for name, over := range content.Over {
		if !overrides(content, state, name) {
			continue
		}
		hidden[over.Base] = true
		if found := f.recordOf(content, state, name); found != nil {
			records = append(records, *found)
		}
	}
	for _, found := range state.records(foreign) {
		switch base := baseOf(f.Room, "", false, found.Event); {
		case found.Err == nil && overrides(content, state, found.Name):
		case found.Err != nil && base != "" && hidden[base]: // whatever its name is
		default:
			records = append(records, found)
		}
	}
	return records, nil
}

// learnAnew asks for account data also where it is known: what this process has written is not always what the homeserver has.
func (f *Memory) learnAnew(ctx context.Context) (wire.Account, error) {
	f.account.forget()
	return f.learn(ctx)
}

// Named implements [memory.Memory].
func (f *Memory) Named(ctx context.Context, names []string) (map[string]memory.Record, error) {
	content, err := f.learn(ctx)
	if err == nil && len(content.Over) > 0 {
		content, err = f.learnAnew(ctx)
	}
	if err != nil {
		return nil, err
	}
	if len(content.Over) == 0 {
		return f.state.Named(ctx, names)
	}
	state, err := f.with(content, func(state *stateView) error { return state.read(ctx, names, true) })
	if err != nil {
		return nil, err
	}
	found := make(map[string]memory.Record, len(names))
	for _, name := range names {
		if record := f.recordOf(content, state, name); record != nil {
			found[name] = *record
		}
	}
	return found, nil
}

// Parts implements [memory.Memory]. What account data has a part of comes as one part: only all of it tells what is hidden.
func (f *Memory) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[memory.Part, error] {
	return func(yield func(memory.Part, error) bool) {
		if over, err := f.Holds(ctx); err != nil || over {
			var part memory.Part
			if err == nil {
				part.Records, err = f.now(ctx, foreign)
			}
			yield(part, err)
			return
		}
		f.state.Parts(ctx, foreign)(yield)
	}
}

// Holds tells whether account data has something of the memory.
func (f *Memory) Holds(ctx context.Context) (bool, error) {
	content, err := f.learn(ctx)
	return content.ID != "", err
}

// Away tells whether a write would go to account data, after it has moved to the state what can be.
func (f *Memory) Away(ctx context.Context) (bool, error) {
	to, err := f.whereTo(ctx)
	return to == toAccount, err
}

// NotInState is the error of what can only be done in the state, to a memory that is in account data.
func (f *Memory) NotInState(ctx context.Context, what string) error {
	if need, have, known := f.Levels(ctx, f.Type); known && have < need {
		return f.NoPower(what, f.Type, need, have, nil)
	}
	return fault.Of(fault.ErrForbidden, nil, "cannot %s in %s: it has not left account data for the state yet", what, f.ID)
}

// mayWrite tells whether the user has the power to write the memory into the state, or whether it is not known.
func mayWrite(ctx context.Context, r memory.Room) bool {
	need, have, known := r.Levels(ctx, r.Type)
	return !known || have >= need
}

// Watch has tell called with what comes after the version that is returned, until stop is called.
func (f *Memory) Watch(ctx context.Context, tell func(Version)) (now Version, stop func(), err error) {
	if _, err := f.learn(ctx); err != nil {
		return Version{}, nil, err
	}
	now, stop = f.account.watch(tell)
	return now, stop, nil
}

// Version is the one that is known.
func (f *Memory) Version() Version { return f.account.version() }

// Onto is what is there of the dict under the state key, with a version of account data on top of what the state has.
func (f *Memory) Onto(version Version, stateKey string, view *replica.View) map[string]string {
	state := newStateView(f.Room)
	state.dicts[stateKey] = view
	return onto(version.Account, &state)
}

// RevisionOf stands for a state event, for what account data has under a name.
func (v Version) RevisionOf(name string) (revision id.EventID, sent int64, ok bool) {
	over, ok := v.Over[name]
	return revisionOf(over), over.Time, ok
}

// Remove implements [memory.Memory].
func (f *Memory) Remove(ctx context.Context, names []string, done func(name string)) error {
	to, err := f.whereTo(ctx)
	if err == nil && to == toState && f.Layout.Alone() {
		names, err = f.Existing(ctx, names)
	}
	if err != nil || len(names) == 0 {
		return err
	}
	return f.Commit(ctx, memory.Removal(names, done))
}

// whereTo tells where writes go. Where that is not known, or the power was not asked for of late, it finds out, and moves the memory into the
// state where there is power again. That goes on when ctx ends.
func (f *Memory) whereTo(ctx context.Context) (destination, error) {
	if to, known := f.account.destination(f.Policy.AnswerFor); known {
		return to, nil
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.Policy.MoveFor)
		defer cancel()
		done <- f.settle(ctx)
	}()
	select {
	case err := <-done:
		to, _ := f.account.destination(f.Policy.AnswerFor)
		return to, err
	case <-ctx.Done():
		return unknown, ctx.Err()
	}
}

func (f *Memory) settle(ctx context.Context) error {
	leave, err := f.account.gate.alone(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if _, known := f.account.destination(f.Policy.AnswerFor); known {
		return nil
	}
	unlock, err := commit.Lock(ctx, f.account.dict)
	if err != nil {
		return err
	}
	defer unlock()
	for {
		asks := f.account.question()
		content, err := f.learnLocked(ctx)
		if err != nil {
			return err
		}
		to := toAccount
		if mayWrite(ctx, f.Room) {
			if err := f.move(ctx, content); err == nil {
				to = toState
			} else if !errors.Is(err, fault.ErrForbidden) && !errors.Is(err, fault.ErrTooLarge) {
				return err
			} else {
				f.Log(ctx).Warn().Err(err).Stringer("room_id", f.ID).Msg("The memory stays in account data")
			}
		}
		if f.account.answer(to, asks) {
			return nil
		}
	}
}

// powerChanged is for when a sync tells that the power may be another one.
func (f *Memory) powerChanged(ctx context.Context) {
	if !f.account.powerChanged() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, f.Policy.MoveFor)
	defer cancel()
	if err := f.Background.Do(ctx, background.Move, f.ID, f.settle); err != nil {
		f.Log(ctx).Warn().Err(err).Stringer("room_id", f.ID).Msg("The memory was not moved as the power to write it has changed")
	}
}

// move puts what counts of account data into the state, and then empties account data. Of a move that was cut off, what is in the state already
// counts no more. The caller is alone, and has the lock.
func (f *Memory) move(ctx context.Context, content wire.Account) error {
	state := newStateView(f.Room)
	if content.ID == "" {
		return nil
	}
	if err := state.read(ctx, slices.Collect(maps.Keys(content.Over)), true); err != nil {
		return err
	}
	var names []string
	for name := range content.Over {
		if overrides(content, &state, name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		if err := f.EnsureFields(ctx, true); err != nil {
			return err
		}
		if err := f.state.Commit(ctx, memory.Change{Names: names, Edit: func(names []string) commit.Edit { return f.moving(content, &state, names) }}); err != nil {
			quiet(f.Room, names)
			return err
		}
	}
	err := f.save(ctx, wire.Account{})
	if err == nil {
		f.account.setMoved()
	}
	return err
}

// moving stores in the state what account data has under the names, where that still lies over what the state has.
func (f *Memory) moving(content wire.Account, state *stateView, names []string) commit.Edit {
	return commit.Edit{Conditional: true, Overwrites: true, Values: clearValues(content, names), Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
		changes := map[string]json.RawMessage{}
		for _, name := range names {
			_, there := base.Stored(name)
			expired := content.Over[name].Until != 0 && !there
			if !expired && baseIn(f.Room, base, name) != content.Over[name].Base && !isOwn(f.Room, name) {
				continue
			}
			changes[name] = nil
			if stored, there := content.Names[name]; there {
				changes[name] = json.RawMessage(stored)
			}
		}
		return changes, nil
	}}
}

// clearValues are those of the names behind which account data has a value that is not in an encrypted event, with their keys.
func clearValues(content wire.Account, names []string) map[string]string {
	values := map[string]string{}
	for _, name := range names {
		stored, found := content.Names[name]
		if !found {
			continue
		}
		read, err := wire.Decode([]byte(stored))
		if key, plain := wire.KeyOf(name); plain && (err != nil || read.Event == "") {
			values[name] = key
		}
	}
	return values
}

// Commit implements [memory.Memory].
func (f *Memory) Commit(ctx context.Context, change memory.Change) error {
	for {
		to, err := f.whereTo(ctx)
		switch {
		case err != nil:
		case to == toState:
			err = f.commitToState(ctx, change)
		default:
			err = f.commitToAccount(ctx, change)
		}
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// commitToState makes the edit in the state. The homeserver's refusal for a lack of power makes all writes go to account data, and fails with errAgain.
func (f *Memory) commitToState(ctx context.Context, change memory.Change) error {
	leave, err := f.account.gate.share(ctx)
	if err != nil {
		return err
	}
	held := true // also where an Update's function panics
	defer func() {
		if held {
			go func() {
				quiet(f.Room, change.Names) // it can be on its way
				leave()
			}()
		}
	}()
	if to, _ := f.account.destination(f.Policy.AnswerFor); to != toState {
		return errAgain
	}
	var mu sync.Mutex
	var sent []id.EventID
	inState := change
	inState.Edit = func(names []string) commit.Edit {
		edit := change.Edit(names)
		if isAccount(edit.Since) { // which is no event that can be looked for
			edit.Since = ""
		}
		if told := edit.OnSent; edit.Conditional {
			edit.OnSent = func(event id.EventID) {
				if told != nil {
					told(event)
				}
				mu.Lock()
				defer mu.Unlock()
				sent = append(sent, event)
			}
		}
		return edit
	}
	err = f.state.Commit(ctx, inState)
	if ctx.Err() != nil {
		return err
	}
	held = false
	leave()
	if !errors.Is(err, fault.ErrForbidden) || !errors.Is(err, fault.ErrRefused) {
		return err
	}
	if counts, failed := counts(ctx, f.Room, change.ChangedNames(), sent); counts || failed != nil {
		return failed
	}
	if leave, err = f.account.gate.alone(ctx); err != nil {
		return err
	}
	defer leave()
	f.account.write(toAccount)
	return errAgain
}

// commitToAccount makes the edit in account data.
func (f *Memory) commitToAccount(ctx context.Context, change memory.Change) error {
	edit := f.over(ctx, change, f.WithFields(change.Edit(slices.Clone(change.Names))))
	return fault.Advise(f.writer.Do(ctx, f.Fitting(ctx, edit)), adviceAccount)
}
