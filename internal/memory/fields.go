package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// fields are those that a memory of the store has beside its keys, by name.
func (r Room) fields() map[string]json.RawMessage {
	fields := map[string]json.RawMessage{}
	if name, stored := r.Layout.Mark(); name != "" {
		fields[name] = json.RawMessage(stored)
	}
	if r.Secret != nil {
		fields[wire.SealName] = r.Seal()
	}
	return fields
}

// CheckFields fails where what stands in a dict is not the store's: with ErrInvalidOption where its layout is another one of the same kind, and with
// ErrWrongSecret where its names were made with another secret.
func (r Room) CheckFields(names map[string]string) error {
	return r.checkFields(func(name string) (string, bool) {
		stored, there := names[name]
		return stored, there
	})
}

func (r Room) checkFields(at func(name string) (stored string, there bool)) error {
	if name, want := r.Layout.Mark(); name != "" {
		if mark, there := at(name); there && mark != want {
			return fault.Of(fault.ErrInvalidOption, nil, "%s in %s is %.20s, and the store's options say %s; Copy takes the memory to another event type", name, r.ID, mark, want)
		}
	}
	return r.CheckSeal(at(wire.SealName))
}

// CheckFieldsOf is CheckFields for the event that has them in a listing, nil where there is none.
func (r Room) CheckFieldsOf(evt *matrix.Event) error {
	if evt == nil {
		return nil
	}
	names, err := r.fieldsOf(evt)
	if err != nil {
		return err
	}
	return r.CheckFields(names)
}

func (r Room) fieldsOf(evt *matrix.Event) (map[string]string, error) {
	dict, err := wire.ParseDict(evt.Content)
	if err != nil {
		return nil, fault.Of(fault.ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, *evt.StateKey, r.ID, err)
	}
	return dict.Names, nil
}

// WithFields makes an edit fail in a dict that is not the store's, and add what is missing of the memory's own fields when it first stores something
// there.
func (r Room) WithFields(edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		if err := r.checkFieldsIn(base); err != nil {
			return nil, err
		}
		changes, err := apply(base)
		missing := r.missing(base)
		if err != nil || len(missing) == 0 {
			return changes, err
		}
		with := map[string]json.RawMessage{}
		stores := false
		for name, stored := range changes {
			with[name] = stored
			stores = stores || stored != nil
		}
		if stores {
			maps.Copy(with, missing)
		}
		return with, nil
	}
	return edit
}

func (r Room) checkFieldsIn(base commit.Base) error {
	return r.checkFields(func(name string) (string, bool) {
		stored, there := base.Stored(name)
		return string(stored), there
	})
}

// missing are the memory's own fields that a dict lacks.
func (r Room) missing(base commit.Base) map[string]json.RawMessage {
	missing := r.fields()
	maps.DeleteFunc(missing, func(name string, _ json.RawMessage) bool {
		_, there := base.Stored(name)
		return there
	})
	return missing
}

// EnsureFields is CheckFields where the memory's own fields stand apart from keys. They are asked for until they are there, and then looked at where a sync
// tells of them. With writing they are stored before the first value is.
func (r Room) EnsureFields(ctx context.Context, writing bool) error {
	began := time.Now()
	if ensured, err := r.ensuredSince(began, writing); ensured || r.Layout.Together("") {
		return err
	}
	own := r.fields()
	if len(own) == 0 && !writing {
		return nil
	}
	if writing {
		sealer, err := r.Sealer(ctx, true)
		if err != nil || sealer == nil && len(own) == 0 { // only where values are encrypted can keys be sealed
			return err
		}
	}
	unlock, err := commit.Lock(ctx, r.Address(r.Layout.StateKey(wire.SealName)))
	if err != nil {
		return err
	}
	defer unlock()
	if ensured, err := r.ensuredSince(began, writing); ensured {
		return err // whoever had the lock before has asked
	}
	asked := time.Now()
	names, err := r.currentFields(ctx, writing)
	if err == nil {
		err = r.CheckFields(names)
	}
	if err != nil {
		return err
	}
	own = r.lacking(names)
	if len(own) > 0 && writing {
		err = r.begin(ctx, own)
	}
	if err == nil {
		r.ensured.Store(r.ID, ensured{asked: asked, there: len(own) == 0 || writing, merged: writing})
	}
	return err
}

// ensured is what is known of a memory's own fields.
type ensured struct {
	asked  time.Time // when they were asked for
	there  bool      // whether all of them are there, and the store's
	merged bool      // whether it was looked for who has stored others at the same time
}

// ensuredSince tells whether the memory's own fields are known to be there. For who does not write it is enough that they were asked for since then. The error
// is that of CheckFields where the sync has brought others.
func (r Room) ensuredSince(began time.Time, writing bool) (bool, error) {
	known, _ := r.ensured.Load(r.ID)
	last, _ := known.(ensured)
	stateKey := r.Layout.StateKey(wire.SealName)
	switch {
	case !last.there:
		return !writing && last.asked.After(began), nil
	case !r.Layout.Feeds(stateKey) || !r.Follower.Live(r.ID):
		return !writing || last.merged, nil
	}
	view := r.Dict(stateKey).View()
	if view == nil {
		return false, nil
	}
	err := view.Err
	if err == nil {
		err = r.CheckFields(view.Names)
	}
	if err != nil {
		return true, err
	}
	return !writing || len(r.lacking(view.Names)) == 0, nil
}

// lacking are the memory's own fields that are not among the names.
func (r Room) lacking(names map[string]string) map[string]json.RawMessage {
	lacking := r.fields()
	maps.DeleteFunc(lacking, func(name string, _ json.RawMessage) bool { return names[name] != "" })
	return lacking
}

// afterFields makes an edit store values once the memory's own fields are there, where these stand apart from keys.
func (r Room) afterFields(ctx context.Context, edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		changes, err := apply(base)
		if err == nil && len(changes) > 0 {
			err = r.EnsureFields(ctx, true)
		}
		return changes, err
	}
	return edit
}

// currentFields are the memory's own fields, where they stand apart from keys. Who writes looks for what others have stored at the same time: nobody writes the
// event again later, and merges.
func (r Room) currentFields(ctx context.Context, writing bool) (map[string]string, error) {
	stateKey := r.Layout.StateKey(wire.SealName)
	if feeds, live := r.Layout.Feeds(stateKey), r.Follower.Live(r.ID); feeds && (live || writing) {
		view := r.Dict(stateKey).View()
		var err error
		if view == nil || !live {
			view, err = r.Afresh(ctx, stateKey)
		}
		if err != nil {
			return nil, err
		}
		return view.Names, view.Err
	}
	evt, err := r.Get(ctx, stateKey)
	if err != nil || evt == nil {
		return nil, err
	}
	return r.fieldsOf(evt)
}

// begin stores fields that a memory lacks, unless another layout of the same kind has keys there: somebody can have redacted its mark.
func (r Room) begin(ctx context.Context, fields map[string]json.RawMessage) error {
	if mark, _ := r.Layout.Mark(); fields[mark] != nil {
		var other error
		if _, err := r.Scan(ctx, r.Type, func() matrix.Visit {
			other = nil
			return func(evt *matrix.Event, _ bool) error {
				if r.Layout.Excludes(*evt.StateKey) && hasKeys(evt) {
					other = fault.Of(fault.ErrInvalidOption, nil, "state %q in %s has keys, which are spread otherwise than the store's options say", *evt.StateKey, r.ID)
				}
				return nil
			}
		}); err != nil || other != nil {
			return cmp.Or(err, other)
		}
	}
	for name, stored := range fields { // with one of a dict the others are put too
		return r.PutField(ctx, name, func(now json.RawMessage) json.RawMessage {
			if len(now) > 0 { // another process has stored it since it was asked for
				return now
			}
			return stored
		})
	}
	return nil
}

func hasKeys(evt *matrix.Event) bool {
	dict, _ := wire.ParseDict(evt.Content)
	return slices.ContainsFunc(slices.Collect(maps.Keys(dict.Names)), func(name string) bool { return !wire.IsOwn(name) })
}

// PutField stores a field of the memory's own, where these stand apart from keys: what is makes of the one that is there, nil where that is not known.
func (r Room) PutField(ctx context.Context, name string, is func(now json.RawMessage) json.RawMessage) error {
	stateKey := r.Layout.StateKey(name)
	if r.Layout.Feeds(stateKey) {
		return r.Dict(stateKey).Writer.Do(ctx, commit.Edit{Conditional: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changes, names := r.missing(base), base.Names()
			now, _ := base.Stored(name)
			changes[name] = is(now)
			names[name] = string(changes[name])
			return changes, r.CheckFields(names)
		}})
	}
	sent, _, err := r.PutState(ctx, r.Type, stateKey, wire.Dict{Names: map[string]string{name: string(is(nil))}}.Content())
	if err == nil {
		commit.ThisProcess.Written.Add(r.Address(stateKey), sent) // so that a listing that does not have it yet asks for it by itself
	}
	return err
}
