package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// moveTimeout is how long a move into the state may take. It goes on when the write that began it is given up.
	moveTimeout = time.Minute

	// adviceAccount is what to do about account data that is too large.
	adviceAccount = "delete keys, store less under them, or give the bot the power to send state, which in the per-key layout holds more"
)

// overlay is the memory of a room as far as it is in account data, over what the state has. It implements [commit.Room] for
// account data.
type overlay struct {
	roomState
	account *account
	known   *replica.Dict
	writer  *commit.Writer
}

// overlay finds the room's overlay or makes it.
func (r roomState) overlay() *overlay {
	if known, ok := r.core.overlays.Load(r.ID); ok {
		return known.(*overlay)
	}
	state := roomState{core: r.core, Room: r.Room}
	o := &overlay{roomState: state, account: accountOf(state), known: new(replica.Dict)}
	o.writer = commit.NewWriter(o.known, o, commit.Mode{Single: true, Drop: r.core.RedactOld})
	known, _ := r.core.overlays.LoadOrStore(r.ID, o)
	return known.(*overlay)
}

// away tells whether the memory is in account data, at least in part, and for a write whether it goes there. Before a write
// it moves the memory into the state where that has become possible.
func (o *overlay) away(ctx context.Context, writing bool) (away bool, err error) {
	if away, known := o.account.where(writing); known {
		return away, nil
	}
	unlock, err := commit.Lock(ctx, o.account.power)
	if err != nil {
		return false, err
	}
	defer unlock()
	if away, known := o.account.where(writing); known {
		return away, nil
	}
	if err := o.learn(ctx); err != nil {
		return false, err
	}
	phase := o.account.now()
	if phase == unknown || phase == inAccount && writing {
		switch may := o.mayWrite(ctx); {
		case !may && phase == unknown:
			err = o.sink(ctx)
		case !may:
			o.account.enter(inAccount)
		case phase == unknown:
			o.account.enter(inState)
		default:
			err = o.move(ctx)
		}
	}
	away, known := o.account.where(writing)
	if err == nil && !known {
		err = o.move(ctx)
		away, _ = o.account.where(writing)
	}
	return away, err
}

// learn asks for account data where that is not known.
func (o *overlay) learn(ctx context.Context) error {
	unlock, err := commit.Lock(ctx, o.account.dict)
	if err != nil {
		return err
	}
	defer unlock()
	return o.learnLocked(ctx)
}

// learnAnew asks for account data also where it is known: what this process has written is not always what the homeserver has.
func (o *overlay) learnAnew(ctx context.Context) error {
	o.account.forget()
	return o.learn(ctx)
}

// learnLocked is learn for who has the lock.
func (o *overlay) learnLocked(ctx context.Context) error {
	if o.account.isKnown() {
		return nil
	}
	content, err := o.loadAccount(ctx)
	if err == nil {
		o.account.set(content)
	}
	return err
}

// fall is for when the homeserver has refused a write to the state for a lack of power.
func (o *overlay) fall(ctx context.Context) error {
	unlock, err := commit.Lock(ctx, o.account.power)
	if err != nil {
		return err
	}
	defer unlock()
	if o.account.now() == inAccount {
		return nil
	}
	if err := o.learn(ctx); err != nil {
		return err
	}
	return o.sink(ctx)
}

// sink is fall for who has the lock of who finds out where the memory is written.
func (o *overlay) sink(ctx context.Context) error {
	before := o.account.now()
	o.account.enter(falling)
	// What is on its way can still change the state, where the power comes back before it arrives.
	err := o.account.arrive(ctx)
	if err == nil {
		err = o.rescueAll(ctx)
	}
	if err != nil {
		o.account.enter(before)
		return err
	}
	o.account.enter(inAccount)
	return nil
}

// mayReturn tells whether something can come back under a name that the state does not have.
func (o *overlay) mayReturn(name string) bool {
	stateKey := o.core.Layout.StateKey(name)
	sent, err := o.core.Layout.Parse(stateKey, o.account.lately()[stateKey].content)
	_, there := sent.Names()[name]
	_, moved := o.account.current().Names[name]
	if moved || err == nil && there {
		return true
	}
	if d := o.Replica(stateKey); d != nil && d.View() != nil {
		_, there = d.View().Names[name]
		return there
	}
	return false
}

type movingKey struct{}

// moving is the context of what writes to the state wherever the memory is.
func moving(ctx context.Context) context.Context { return context.WithValue(ctx, movingKey{}, true) }

func isMoving(ctx context.Context) bool { return ctx.Value(movingKey{}) != nil }

// powerChanged is for when the sync tells that the power may be another one.
func (o *overlay) powerChanged(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	var err error
	switch o.account.askAnew() {
	case inAccount:
		_, err = o.away(ctx, true)
	case inState:
		if !o.mayWrite(ctx) {
			err = o.fall(ctx)
		}
	}
	if err != nil {
		o.Log(ctx).Warn().Err(err).Stringer("room_id", o.ID).Msg("The memory was not moved as the power to write it has changed")
	}
}

// move takes what is in account data into the state. Where that has it already, account data is emptied. The caller has
// the lock of who finds out where the memory is written.
func (o *overlay) move(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveTimeout)
	defer cancel()
	err := o.tryMove(ctx)
	for errors.Is(err, errAgain) { // it shared an event with a write that may not go there now
		err = o.tryMove(ctx)
	}
	if errors.Is(err, ErrForbidden) || errors.Is(err, ErrTooLarge) { // the power can have come back since
		o.Log(ctx).Warn().Err(err).Stringer("room_id", o.ID).Msg("The memory stays in account data")
		return o.sink(ctx)
	}
	return err
}

func (o *overlay) tryMove(ctx context.Context) error {
	unlock, err := commit.Lock(ctx, o.account.dict)
	if err != nil {
		return err
	}
	defer unlock()
	if err = o.learnLocked(ctx); err == nil {
		err = o.moveLocked(ctx)
	}
	// Before the next who has the lock writes over the state that there was.
	if err == nil {
		o.account.enterMoved()
	} else {
		o.account.failedMove()
	}
	return err
}

// moveLocked is tryMove for who has the lock of who writes account data.
func (o *overlay) moveLocked(ctx context.Context) error {
	content := o.account.current()
	below, err := o.beneath(ctx, slices.Collect(maps.Keys(content.Over)), true)
	if err != nil {
		return err
	}
	var names []string
	for name := range content.Over {
		if below.hidden(content, name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0:
		return o.moveNames(ctx, content, names)
	case content.ID == "":
		return nil
	}
	if kept, err := o.keeps(ctx, content); !kept || err != nil {
		return err
	}
	return o.saveAccount(ctx, wire.Account{})
}

// keeps tells whether the state has what account data had, and not only the room's events; see [overlay.view].
func (o *overlay) keeps(ctx context.Context, content wire.Account) (bool, error) {
	if !o.core.Layout.Atomic() {
		return true, nil
	}
	below := o.nothing()
	stateKey := o.core.Layout.StateKey("")
	current, err := memory.Place{Room: o.Room, StateKey: stateKey}.Current(ctx)
	if err != nil || current == nil {
		return false, err
	}
	below.views[stateKey] = replica.ViewOf(current)
	for name := range content.Over {
		if below.hidden(content, name) {
			return false, nil
		}
	}
	return true, nil
}

// moveNames stores in the state what account data has under the names, as far as that still lies over what the state has. What was
// moved before, and has been left out of the state by the homeserver, is sent again as it was, or as it was changed since.
func (o *overlay) moveNames(ctx context.Context, content wire.Account, names []string) error {
	if !o.core.Layout.Atomic() && o.core.Secret != nil {
		if err := o.CheckRoom(ctx, true); err != nil {
			return err
		}
	}
	values := clearValues(content, names)
	mark := wire.MovedName(o.Client.UserID)
	return o.InState().Commit(moving(ctx), memory.Change{Names: names, Edit: func(names []string) commit.Edit {
		again := !o.core.Layout.Atomic() && o.account.isPlaced(content, names[0])
		_, there := content.Names[names[0]]
		sure := again || !o.core.Layout.Atomic() && !there // what was deleted can be in an event that the state lacks
		return commit.Edit{Conditional: true, Barrier: sure, Afresh: sure, Overwrites: true, Values: only(values, names), Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changes := map[string]json.RawMessage{}
			if before, _ := base.Stored(mark); wire.IsMoved(before, content) {
				return changes, nil
			}
			for _, name := range names {
				stored, found := base.Stored(name)
				event := id.EventID("")
				if !o.core.Layout.Atomic() {
					event = base.Event()
				}
				if wire.Base(string(stored), found, event) != content.Over[name].Base && (again || !o.isOwn(name, event)) {
					continue
				}
				changes[name] = nil
				if stored, there := content.Names[name]; there {
					changes[name] = json.RawMessage(stored)
				}
			}
			if o.core.Layout.Atomic() {
				changes[mark] = wire.Moved(content)
			}
			return changes, nil
		}}
	}})
}

// isOwn tells whether the event of a name is one of the user's. In the per-key layout that is one which the homeserver has left out of
// the state, and whose value account data has, or what was written after it. So does an event of somebody else's that was merged there.
func (o *overlay) isOwn(name string, event id.EventID) (own bool) {
	stateKey := o.core.Layout.StateKey(name)
	if o.account.hasMerged(stateKey, event) {
		return true
	}
	o.Dict(stateKey).Look(func(h *merge.History) {
		own = slices.ContainsFunc(h.Heads(), func(head *merge.Event) bool { return head.ID == event && head.Sender == o.Client.UserID })
	})
	return own
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

// only are those of a map that have one of the names.
func only(all map[string]string, names []string) map[string]string {
	some := maps.Clone(all)
	maps.DeleteFunc(some, func(name, _ string) bool { return !slices.Contains(names, name) })
	return some
}

// find is what is there under the name, or nil.
func (o *overlay) find(ctx context.Context, name string) (*memory.Record, error) {
	below, err := o.beneath(ctx, []string{name}, false)
	if err != nil {
		return nil, err
	}
	content, err := below.over()
	if err != nil {
		return nil, err
	}
	return below.recordOf(content, name), nil
}

// readNames gives the records of those of the names that are there; see [roomState.readNames].
func (o *overlay) readNames(ctx context.Context, names []string) (map[string]memory.Record, error) {
	if err := o.learnAnew(ctx); err != nil {
		return nil, err
	}
	below, err := o.beneath(ctx, names, true)
	if err != nil {
		return nil, err
	}
	content, err := below.over()
	if err != nil {
		return nil, err
	}
	found := make(map[string]memory.Record, len(names))
	for _, name := range names {
		if record := below.recordOf(content, name); record != nil {
			found[name] = *record
		}
	}
	return found, nil
}

// readAll gives the records of account data and of the state beneath it.
func (o *overlay) readAll(ctx context.Context) ([]memory.Record, error) {
	below, err := o.beneathAll(ctx)
	if err != nil {
		return nil, err
	}
	return below.records(func(string) bool { return false })
}

// now is readAll as the homeserver has it, without the state events that are not the memory's. The sync is not asked: it can be
// behind.
func (o *overlay) now(ctx context.Context, foreign func(stateKey string) bool) ([]memory.Record, error) {
	err := o.learnAnew(ctx)
	if err != nil {
		return nil, err
	}
	var below beneath
	if !o.core.Layout.Atomic() {
		below, err = o.listed(ctx, o.nothing(), o.ListWhole)
	} else {
		below, err = o.beneath(ctx, nil, true)
	}
	if err != nil {
		return nil, err
	}
	return below.records(foreign)
}

// commit makes the edit in account data.
func (o *overlay) commit(ctx context.Context, names []string, edit func(names []string) commit.Edit) error {
	below, err := o.beneath(ctx, names, true)
	if err != nil {
		return err
	}
	return fault.Advise(o.writer.Do(ctx, o.Fitting(ctx, below.edit(o.Sealing(edit(slices.Clone(names)))))), adviceAccount)
}

// Current implements [commit.Room].
func (o *overlay) Current(context.Context) (*merge.Event, error) {
	content := o.account.current()
	if content.ID == "" {
		return nil, nil
	}
	return &merge.Event{ID: eventOf(content), Sender: o.Client.UserID, Dict: content.All()}, nil
}

// Recent implements [commit.Room]: there is no history.
func (*overlay) Recent(context.Context, string, int) (commit.Page, error) {
	return commit.Page{}, nil
}

// Before implements [commit.Room].
func (o *overlay) Before(context.Context, id.EventID, int) (commit.Page, error) {
	return commit.Page{}, nil
}

// Latest implements [commit.Room].
func (o *overlay) Latest(context.Context) ([]merge.Event, error) { return nil, nil }

// Powerless implements [commit.Room]: everybody may write what is their own.
func (o *overlay) Powerless(context.Context, id.UserID) (since int64, err error) { return 0, nil }

// Stored implements [commit.Room].
func (*overlay) Stored(context.Context, id.EventID) (place int64, known bool, err error) {
	return 0, false, nil
}

// Hold implements [commit.Room].
func (o *overlay) Hold(ctx context.Context) (release func(), err error) {
	if release, err = commit.Lock(ctx, o.account.dict); err != nil {
		return nil, err
	}
	if phase := o.account.now(); phase != inAccount && phase != falling {
		err = errAgain
	} else {
		err = o.learnLocked(ctx)
	}
	if err != nil {
		release()
		return nil, err
	}
	o.known.Forget()
	return release, nil
}

// Send implements [commit.Room].
func (o *overlay) Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error) {
	read, err := wire.ParseAccount(content)
	if err != nil {
		return "", false, fault.Of(ErrCorrupt, err, "the account data for %s", o.ID)
	}
	stamped := o.account.stamp(read)
	return eventOf(stamped), true, o.saveAccount(ctx, stamped)
}

// Sealer implements [commit.Room].
func (o *overlay) Sealer(ctx context.Context, again bool) (commit.Sealer, error) {
	return o.Room.Sealer(ctx, again)
}

// Drop implements [commit.Room].
func (o *overlay) Drop(ctx context.Context, stored []string) { o.DropOld(ctx, stored) }

// Fits implements [commit.Room].
func (o *overlay) Fits(size int) error {
	if size > wire.MaxEvent {
		return o.accountTooLarge(size, nil)
	}
	return nil
}

// TooLarge implements [commit.Room].
func (*overlay) TooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }

// NotSent implements [commit.Room]: account data has no rivals that a look back could find.
func (o *overlay) NotSent(error) bool { return true }

// RefusesContent implements [commit.Room].
func (*overlay) RefusesContent(err error) (refused, sure bool) { return matrix.RefusesContent(err) }

// Synced implements [commit.Room]: the sync brings account data, but not in the order of writes.
func (*overlay) Synced(context.Context) bool { return false }

// Behind implements [commit.Room].
func (*overlay) Behind(id.EventID) {}

// Refused implements [commit.Room].
func (*overlay) Refused(context.Context, id.EventID) error { return nil }
