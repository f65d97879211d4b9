package commit_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// opKind is what a caller asks for, as the methods of a Store.
type opKind int

const (
	put opKind = iota
	update
	create
	compareAndPut
	remove
	pop
	get
	transact
	sweep
	expire // what becomes of a value when its time is over
	opKinds
)

func (k opKind) String() string {
	return [...]string{"Put", "Update", "Create", "CompareAndPut", "Delete", "Pop", "Get", "Transact", "Sweep", "Expire"}[k]
}

// conditional tells whether what is stored depends on what is there.
func (k opKind) conditional() bool { return k != put && k != remove && k != get && k != expire }

// What a caller is told that is no fault.
var (
	errExists   = errors.New("it exists")
	errConflict = errors.New("it has changed")
	errNotFound = errors.New("not found")
	errPicky    = errors.New("an odd number")
)

// opPlan is an operation that is going to be made.
type opPlan struct {
	ID      string
	Kind    opKind
	Key     string
	Keys    []string      // of a PutAll or Transact, more of them
	Reads   []string      // of a Transact: keys that it reads and does not change
	Looks   bool          // of a Transact: it changes nothing
	Picky   bool          // of a Transact: it refuses to change anything where it finds an odd number of tokens in all
	Expires time.Duration // of a Put: how long the value counts, 0 for ever; what is made of it counts as long
	Think   time.Duration
	Timeout time.Duration // 0 without
	Want    []string      // what a Get must give, nil for whatever is right
}

// op is an operation as it was made. A value is a list of tokens: that of whoever made it from nothing, and those that were appended.
type op struct {
	opPlan
	process    *process
	start, end time.Time
	began      bool
	done       bool
	err        error
	saw        [][]string            // what was there, each time it was made
	sawAll     []map[string][]string // by a Transact: the same for all of its keys
	got        []string              // by a Get or Pop
	basis      []string              // what a CompareAndPut compares with
	number     int                   // of its end among all ends
}

func (o *op) String() string { return fmt.Sprintf("%s %s(%s)", o.ID, o.Kind, o.Key) }

// refused tells whether the caller was told that nothing was changed.
func (o *op) refused() bool {
	return o.done && (errors.Is(o.err, errExists) || errors.Is(o.err, errConflict) || errors.Is(o.err, errNotFound) || errors.Is(o.err, errPicky))
}

// acknowledged tells whether the caller was told that it is done, and can count on that.
func (o *op) acknowledged() bool {
	return o.done && o.err == nil && !o.powerless()
}

// powerless tells whether its process's power was taken away while it was made.
func (o *op) powerless() bool {
	return slices.ContainsFunc(o.process.world.powerless, func(p powerless) bool {
		return p.account == o.process.account && o.start.Before(p.until) && (!o.done || p.from.Before(o.end))
	})
}

// tokens reads a value.
func tokens(stored string) (list []string) {
	if at, text := wire.Expiry(stored); at == 0 || at > time.Now().UnixMilli() {
		_ = json.Unmarshal([]byte(text), &list)
	}
	return list
}

// expires is whether the first token of a value is of a Put whose value's time was over then.
func (w *world) expired(list []string, then time.Time) bool {
	return len(list) > 0 && slices.ContainsFunc(w.ops, func(o *op) bool { return o.Kind == expire && o.ID == list[0]+expiry && o.start.Before(then) })
}

// expiry is added to the ID of a Put for that of the end of its value.
const expiry = " ends"

func value(list ...string) json.RawMessage {
	text, _ := json.Marshal(list)
	return text
}

// stateKey is the state key of the dict with the key.
func (w *world) stateKey(key string) string {
	if w.OneName {
		return key
	}
	return ""
}

// perform makes an operation.
func (p *process) perform(plan opPlan) *op {
	w := p.world
	o := &op{opPlan: plan, process: p, start: time.Now(), began: true}
	ctx := context.WithValue(w.ctx, askerKey{}, &asker{id: plan.ID})
	if plan.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, plan.Timeout)
		defer cancel()
	}
	w.mu.Lock()
	w.ops = append(w.ops, o)
	w.mu.Unlock()
	w.note(o.ID, "%s(%s)", o.Kind, o.Key)
	err := p.make(ctx, o)
	if w.ctx.Err() != nil {
		return o
	}
	w.mu.Lock()
	o.done, o.err, o.end = true, err, time.Now()
	w.results++
	o.number = w.results
	w.mu.Unlock()
	what := ""
	switch {
	case err != nil:
		what = err.Error()
	case o.Kind == get || o.Kind == pop:
		what = fmt.Sprint(o.got)
	default:
		what = "done"
	}
	w.note(o.ID, "%s(%s) → %s", o.Kind, o.Key, what)
	return o
}

func (p *process) make(ctx context.Context, o *op) error {
	switch o.Kind {
	case get:
		view, err := p.read(ctx, o.Key)
		if err == nil {
			o.got = tokens(view.Names[o.Key])
		}
		return err
	case put:
		if p.plain {
			return p.overwrite(ctx, o)
		}
		values, changes := map[string]string{}, map[string]json.RawMessage{}
		for _, key := range o.keys() {
			values[key], changes[key] = key, value(o.ID)
			if o.Expires > 0 {
				at := o.start.Add(o.Expires).UnixMilli()
				changes[key] = json.RawMessage(wire.Expiring(string(changes[key]), at))
				end := &op{opPlan: opPlan{ID: o.ID + expiry, Kind: expire, Key: key}, process: p, start: time.UnixMilli(at), began: true}
				p.world.mu.Lock()
				p.world.ops = append(p.world.ops, end)
				p.world.mu.Unlock()
			}
		}
		return p.commit(ctx, o.Key, commit.Edit{Values: values, Overwrites: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			return changes, nil
		}})
	case sweep:
		return p.commit(ctx, o.Key, commit.Edit{Conditional: true, Sweeps: true})
	case remove:
		if p.world.OneName {
			if e, err := (&simRoom{process: p, key: o.Key}).Current(ctx); err != nil || (e == nil || e.Dict[o.Key] == "") && !p.knows(o.Key) {
				return err
			}
		}
		return p.commit(ctx, o.Key, commit.Edit{Overwrites: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{o.Key: nil}, nil
		}})
	case update:
		return p.change(ctx, o, commit.Edit{Calls: true, Values: map[string]string{}}, func(_ commit.Base, old []string, found bool) (json.RawMessage, error) {
			return value(append(slices.Clone(old), o.ID)...), nil
		})
	case create:
		return p.change(ctx, o, commit.Edit{Values: map[string]string{}}, func(_ commit.Base, _ []string, found bool) (json.RawMessage, error) {
			if found {
				return nil, errExists
			}
			return value(o.ID), nil
		})
	case compareAndPut:
		view, err := p.read(ctx, o.Key)
		if err != nil {
			return err
		}
		stored, there := view.Names[o.Key]
		revision := view.Event
		if !there {
			revision = ""
		}
		o.basis = tokens(stored)
		if o.basis == nil {
			there, revision = false, ""
		}
		return p.change(ctx, o, commit.Edit{Values: map[string]string{}, Since: revision}, func(base commit.Base, _ []string, found bool) (json.RawMessage, error) {
			if found != there || found && !base.Unchanged(o.Key, revision) {
				return nil, errConflict
			}
			return value(append(slices.Clone(o.basis), o.ID)...), nil
		})
	case transact:
		values := map[string]string{}
		return p.commit(ctx, o.Key, commit.Edit{Atomic: true, Calls: true, Values: values, AddsValues: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			saw := map[string][]string{}
			for _, key := range slices.Concat(o.keys(), o.Reads) {
				stored, _ := base.Stored(key)
				saw[key] = tokens(string(stored))
			}
			p.world.mu.Lock()
			o.sawAll = append(o.sawAll, saw)
			p.world.mu.Unlock()
			changes := map[string]json.RawMessage{}
			if o.Looks {
				return changes, nil
			}
			if found := len(slices.Concat(slices.Collect(maps.Values(saw))...)); o.Picky && found%2 == 1 {
				return nil, errPicky
			}
			for _, key := range o.keys() {
				stored, _ := base.Stored(key)
				values[key], changes[key] = key, wire.WithExpiryOf(value(append(slices.Clone(saw[key]), o.ID)...), stored)
			}
			return changes, nil
		}})
	case pop:
		return p.change(ctx, o, commit.Edit{Calls: true}, func(_ commit.Base, old []string, found bool) (json.RawMessage, error) {
			if o.got = nil; !found {
				return nil, errNotFound
			}
			o.got = old
			return nil, nil
		})
	}
	panic("no such operation")
}

// overwrite is a Put of opsdroid's: it reads what is current and sends that with its own key changed, and whatever it does not know.
func (p *process) overwrite(ctx context.Context, o *op) error {
	room := &simRoom{process: p, key: p.world.stateKey(o.Key)}
	content := map[string]json.RawMessage{}
	err := room.do(ctx, "GET", "content", func(*request) func() (string, error) {
		var now json.RawMessage
		if e := p.world.server.current(room.key); e != nil {
			now = e.content
		}
		return func() (string, error) {
			clear(content)
			return "", json.Unmarshal([]byte(cmp.Or(string(now), "{}")), &content)
		}
	})
	if err != nil {
		return err
	}
	if content["roomkv.parents"] == nil {
		return errNotFound // what it writes beside the first event of a memory can erase that, for nothing tells what it had read
	}
	content[o.Key] = value(o.ID)
	text, err := json.Marshal(content)
	if err == nil {
		_, _, err = room.Send(ctx, text)
	}
	return err
}

// knows tells whether the process knows of a value, which a rival can hide in the state.
func (p *process) knows(key string) bool {
	d := p.find(key)
	if d == nil {
		return false
	}
	view := d.View()
	return view != nil && view.Names[key] != ""
}

// read is what a Get does.
func (p *process) read(ctx context.Context, key string) (*replica.View, error) {
	return p.view(ctx, p.world.stateKey(key), func(view, current map[string]string) bool { return view[key] == current[key] })
}

// commit is what package roomkv does with an edit.
func (p *process) commit(ctx context.Context, key string, edit commit.Edit) error {
	return p.dict(p.world.stateKey(key)).Writer.Do(ctx, edit)
}

// change is an edit that depends on what is there.
func (p *process) change(ctx context.Context, o *op, edit commit.Edit, fn func(base commit.Base, old []string, found bool) (json.RawMessage, error)) error {
	edit.Conditional = true
	if edit.Values != nil {
		edit.Values[o.Key] = o.Key
	}
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		stored, found := base.Stored(o.Key)
		old := tokens(string(stored))
		if !slices.ContainsFunc(o.saw, func(s []string) bool { return slices.Equal(s, old) }) {
			p.world.mu.Lock()
			o.saw = append(o.saw, old)
			p.world.mu.Unlock()
		}
		changed, err := fn(base, old, found)
		if err != nil {
			return nil, err
		}
		if changed != nil {
			changed = wire.WithExpiryOf(changed, stored)
		}
		return map[string]json.RawMessage{o.Key: changed}, nil
	}
	return p.commit(ctx, o.Key, edit)
}

// parts are the tokens of a value as one text.
func parts(list []string) string { return strings.Join(list, " ") }
