package memory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// Transaction is what a function sees of a memory, and what it changes there, all at once. It is good until the function has returned, and not
// safe for concurrent use.
type Transaction struct {
	ctx     context.Context
	h       Handle
	base    commit.Base                // nil before the first key is known
	await   func(name string) bool     // waits for the base of the event with the name; it has none where it is not true
	changes map[string]json.RawMessage // by name, nil for those that are removed
	keys    map[string]string          // by name, of values that were put
	event   string                     // the state key of the event, where not all names have the same
	err     error                      // why it cannot be done, whatever the function says

	unread struct{ name, key string } // the last that could not be read
}

// errEnded is for a function that goes on though its transaction cannot be made any more.
var errEnded = errors.New("roomkv: the transaction has ended")

// Transact calls fn, and makes what that changes in one event. It calls it again where another writer has changed a key at the same time that fn
// has read or changed. Where each name has an event of its own fn can use one key alone, and else fails with [fault.ErrNotAtomic].
func (h Handle) Transact(ctx context.Context, fn func(*Transaction) error) error {
	values := map[string]string{} // see [commit.Edit]; it only grows
	do := func(t *Transaction, call func() error) (map[string]json.RawMessage, error) {
		err := call()
		if t.err != nil {
			err = t.err
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(values, t.keys)
		return t.kept()
	}
	first := h.transaction(ctx)
	edit := commit.Edit{Atomic: h.Layout.Atomic(), Conditional: true, Calls: true, Values: values, AddsValues: true}
	last := first
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		t := h.transaction(ctx)
		t.base, last = base, t
		return do(t, func() error { return fn(t) })
	}
	change := Change{Names: []string{wire.Name("")}, Whole: h.Layout.Atomic(), Changed: func() []string { return slices.Collect(maps.Keys(last.changes)) }}
	if !h.Layout.Atomic() {
		var failed error
		next, stop := iter.Pull(func(await func(string) bool) {
			first.await = await
			failed = fn(first)
		})
		defer stop()
		name, used := next() // up to the first key
		if !used {
			if first.err != nil {
				return first.err
			}
			return failed
		}
		change.Names = []string{name}
		again := edit.Apply
		edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
			if first.base != nil {
				return again(base)
			}
			first.base = base
			return do(first, func() error {
				next() // to the end
				return failed
			})
		}
	}
	change.Edit = func([]string) commit.Edit { return edit }
	return h.commitAgain(ctx, change, &edit, func() (name, key string) { return last.unread.name, last.unread.key })
}

func (h Handle) transaction(ctx context.Context) *Transaction {
	return &Transaction{ctx: ctx, h: h, changes: map[string]json.RawMessage{}, keys: map[string]string{}}
}

// Room is the room with the memory.
func (t *Transaction) Room() id.RoomID { return t.h.ID }

// nameOf is the name of a key that the function uses.
func (t *Transaction) nameOf(key string) (name string, err error) {
	name = t.h.NameOf(key)
	if t.h.Layout.Atomic() {
		return name, t.err
	}
	event := t.h.Layout.StateKey(name)
	switch {
	case t.err != nil:
		return name, t.err
	case t.base == nil:
		if t.event = event; !t.await(name) {
			t.err = cmp.Or(context.Cause(t.ctx), errEnded)
		}
	case t.event == "":
		t.event = event
	case t.event != event:
		t.err = fault.Of(fault.ErrNotAtomic, nil, "%q and another key in %s have a state event each", key, t.h.ID)
	}
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
	if value, found, err = t.h.ValueIn(t.ctx, t.base, name); err != nil {
		t.unread.name, t.unread.key = name, key
	}
	return value, found, err
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
	if !t.h.Layout.Atomic() {
		t.err = fault.Of(fault.ErrNotAtomic, nil, "the keys in %s have a state event each", t.h.ID)
		return nil, t.err
	}
	var keys []string
	reader := t.h.Reader().NotWaiting().KeysOnly()
	for name, stored := range t.h.VisibleNames(t.base.Names()) {
		if _, changed := t.changes[name]; changed {
			continue
		}
		key, plain := wire.KeyOf(name)
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
