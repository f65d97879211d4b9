package memory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// Transaction is what a function sees of a memory and changes there as a whole. A Transaction is good until its function has returned. It is not safe
// for concurrent use.
type Transaction struct {
	ctx     context.Context
	h       Handle
	base    commit.Base                // nil until the function has used its first key
	await   func(name string) bool     // sets base to that of the event with the name, and is false where there is none
	changes map[string]json.RawMessage // by name, nil for those that are removed
	keys    map[string]string          // by name, of values that were put
	event   string                     // the state key of the event, once base is there
	used    bool                       // whether a key was used that this event has
	err     error                      // why it cannot be done, whatever the function says

	unread struct{ name, key string } // the last that could not be read
}

// Transact calls fn, and makes what that changes in one event. It calls it again where another writer has changed a key at the same time that fn
// has read or changed. All keys that fn uses must be in one event; else it fails with [fault.ErrNotAtomic].
func (h Handle) Transact(ctx context.Context, fn func(*Transaction) error) error {
	if h.Layout.Together("") {
		t := &Transaction{}
		name := h.NameOf("")
		return h.transact(ctx, name, &t, func(base commit.Base) (made map[string]json.RawMessage, err error) {
			t = h.transaction(ctx, h.Layout.StateKey(name), base)
			return t.run(fn)
		})
	}
	for {
		if err := h.transactOne(ctx, fn); !errors.Is(err, errOtherKey) {
			return err
		}
	}
}

// errEnded is for a function that goes on though its transaction cannot be made any more, and errOtherKey for one that uses another key when it
// is called again.
var (
	errEnded    = errors.New("roomkv: the transaction has ended")
	errOtherKey = errors.New("roomkv: the transaction uses another key")
)

// transact makes the change of the event that holds the name with what apply gives. Last is what apply was called with last.
func (h Handle) transact(ctx context.Context, name string, last **Transaction, apply func(base commit.Base) (map[string]json.RawMessage, error)) error {
	change := Change{Names: []string{name}, Whole: !h.Layout.Alone()}
	values := map[string]string{} // see [commit.Edit]; it only grows
	edit := commit.Edit{Atomic: change.Whole, Conditional: true, Calls: true, Values: values, AddsValues: true}
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		made, err := apply(base)
		if err == nil {
			maps.Copy(values, (*last).keys)
		}
		return made, err
	}
	change.Edit = func([]string) commit.Edit { return edit }
	change.Changed = func() []string { return slices.Collect(maps.Keys((*last).changes)) }
	return h.commitAgain(ctx, change, &edit, func() (name, key string) { return (*last).unread.name, (*last).unread.key })
}

// transactOne is Transact where there are several events. The first key that fn uses tells which it is. Another goroutine then begins the
// change and hands over what is there. The function fn stays in the caller's goroutine.
func (h Handle) transactOne(ctx context.Context, fn func(*Transaction) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // where fn panics the change must not wait for its result
	type result struct {
		of   *Transaction
		made map[string]json.RawMessage
		err  error
	}
	bases, results, ended := make(chan commit.Base), make(chan result), make(chan error, 1)
	var failed error // why there is no change that fn could be made part of
	t := h.transaction(ctx, "", nil)
	t.await = func(name string) bool {
		last := t
		go func() {
			ended <- h.transact(ctx, name, &last, func(base commit.Base) (map[string]json.RawMessage, error) {
				select {
				case bases <- base:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				select {
				case result := <-results:
					last = result.of
					return result.made, result.err
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
		}()
		select {
		case t.base = <-bases:
			return true
		case failed = <-ended:
			return false
		}
	}
	made, err := t.run(fn)
	switch {
	case failed != nil:
		return failed
	case t.base == nil: // no key was used
		return err
	}
	event := t.event
	for {
		select {
		case results <- result{t, made, err}:
		case err := <-ended:
			return err
		}
		select {
		case base := <-bases:
			t = h.transaction(ctx, event, base)
			if made, err = t.run(fn); len(t.changes) == 0 && errors.Is(t.err, fault.ErrNotAtomic) && !t.used {
				err = errOtherKey
			}
		case err := <-ended:
			return err
		}
	}
}

func (h Handle) transaction(ctx context.Context, event string, base commit.Base) *Transaction {
	return &Transaction{ctx: ctx, h: h, event: event, base: base, changes: map[string]json.RawMessage{}, keys: map[string]string{}}
}

// run calls fn, and gives what it has changed.
func (t *Transaction) run(fn func(*Transaction) error) (map[string]json.RawMessage, error) {
	err := fn(t)
	if t.err != nil {
		err = t.err
	}
	if err != nil {
		return nil, err
	}
	return t.kept()
}

// Room is the room with the memory.
func (t *Transaction) Room() id.RoomID { return t.h.ID }

// nameOf is the name of a key that the function uses.
func (t *Transaction) nameOf(key string) (name string, err error) {
	name = t.h.NameOf(key)
	event := t.h.Layout.StateKey(name)
	switch {
	case t.err != nil:
	case t.base == nil:
		if t.event = event; !t.await(name) {
			t.err = cmp.Or(context.Cause(t.ctx), errEnded)
		}
	case t.event != event:
		t.err = fault.Of(fault.ErrNotAtomic, nil, "%q and another key in %s are not in the same state event", key, t.h.ID)
	}
	t.used = t.used || t.err == nil
	return name, t.err
}

// Value is what is there for the key.
func (t *Transaction) Value(key string) (value json.RawMessage, found bool, err error) {
	name, err := t.nameOf(key)
	if err != nil {
		return nil, false, err
	}
	if stored, changed := t.changes[name]; changed {
		if stored == nil {
			return nil, false, nil
		}
		read, err := wire.Decode(stored)
		return bytes.Clone(read.JSON), true, err
	}
	old, err := t.h.OldIn(t.ctx, t.base, name)
	if err != nil {
		t.unread.name, t.unread.key = name, key
	}
	return old.Value, old.Found, err
}

// Put stores a value, in its stored form.
func (t *Transaction) Put(key string, stored json.RawMessage) error {
	name, err := t.nameOf(key)
	if err == nil {
		err = t.h.CheckLarge(t.ctx, name, key, stored)
	}
	if err == nil {
		t.changes[name], t.keys[name] = stored, key
	}
	return err
}

// Delete removes a key.
func (t *Transaction) Delete(key string) error {
	name, err := t.nameOf(key)
	if err == nil {
		t.changes[name] = nil
	}
	return err
}

// Keys are the keys that there are.
func (t *Transaction) Keys(list Listing) ([]string, error) {
	if !t.h.Layout.Together(list.Prefix) {
		t.err = fault.Of(fault.ErrNotAtomic, nil, "the keys in %s are not all in the same state event", t.h.ID)
	}
	if _, err := t.nameOf(list.Prefix); err != nil { // of which the event is that of them all
		return nil, err
	}
	var keys []string
	reader := t.h.Reader().NotWaiting().KeysOnly()
	for name, stored := range t.h.VisibleNames(t.base.Names()) {
		if _, changed := t.changes[name]; changed {
			continue
		}
		key, plain := wire.KeyOf(name)
		if fresh, ok := t.base.FreshKey(name); ok {
			key, plain = fresh, true
		}
		if !plain {
			value, err := reader.Value(t.ctx, name, json.RawMessage(stored), t.base.Event())
			if key = value.Key; err != nil && key == "" {
				t.unread.name, t.unread.key = name, key
				return nil, err
			}
		}
		keys = append(keys, key)
	}
	for name, stored := range t.changes {
		if stored != nil {
			keys = append(keys, t.keys[name])
		}
	}
	return list.Of(keys), nil
}

// kept are the changes, with what is too large for an event in the media repository.
func (t *Transaction) kept() (map[string]json.RawMessage, error) {
	kept := maps.Clone(t.changes)
	for name, stored := range kept {
		if stored == nil {
			continue
		}
		var err error
		if kept[name], err = t.h.Keep(t.ctx, name, t.keys[name], stored); err != nil {
			return nil, err
		}
	}
	return kept, nil
}
