package flush

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// errClosed is the error of what was not sent when the store was closed.
var errClosed = errors.New("roomkv: the store was closed before all was sent")

// Room is the memory of a room with what waits there on top of it. It implements [Keyed].
type Room struct {
	Memory
	of *Waiting
	id id.RoomID

	updating chan struct{} // holds an element while an Update goes on, for one comes after the other

	// Guarded by of.mu.
	waiting map[string]*edit // by key
	sending map[string]*edit // that are on their way; what waits comes after them
	current *attempt         // that sends them
	next    *attempt         // that sends what waits, nil where nothing does
	running bool             // whether a goroutine makes attempts
	pause   time.Duration    // after an attempt that has failed
}

// attempt is one at sending what waits in a room.
type attempt struct {
	due   time.Time
	now   chan struct{} // closed when somebody does not want to wait so long
	hurry bool          // whether it is
	done  chan struct{} // closed when it is over
	err   error         // why some edits still wait
}

func newAttempt(due time.Time) *attempt {
	return &attempt{due: due, now: make(chan struct{}), done: make(chan struct{})}
}

func (a *attempt) end(err error) {
	if a != nil {
		a.err = err
		close(a.done)
	}
}

// last waits for attempts, and gives the error of the last one, which takes up what those before it have left.
func last(ctx context.Context, attempts []*attempt) (err error, ended bool) {
	for _, a := range attempts {
		select {
		case <-a.done:
			err = a.err
		case <-ctx.Done():
			return nil, true
		}
	}
	return err, false
}

// hurry has what waits sent at once, and gives the attempts that send it. The caller holds of.mu.
func (r *Room) hurry() (attempts []*attempt) {
	if r.current != nil {
		attempts = append(attempts, r.current)
	}
	if r.next != nil {
		if attempts = append(attempts, r.next); !r.next.hurry {
			r.next.hurry = true
			close(r.next.now)
		}
	}
	return attempts
}

// Flush has what waits in the room sent at once, and waits until that is done. What was given up then is no error: [Waiting.Flush] tells.
func (r *Room) Flush(ctx context.Context) error {
	r.of.mu.Lock()
	attempts := r.hurry()
	r.of.mu.Unlock()
	err, ended := last(ctx, attempts)
	if ended {
		err = fault.Because(ctx.Err(), "%v: what was written to %s before has not been sent", ctx.Err(), r.id)
	}
	return err
}

// peek is what is there for the key once all has been sent. It is not known where nothing waits.
func (r *Room) peek(ctx context.Context, key string) (now memory.Old, known bool, err error) {
	r.of.mu.Lock()
	e := r.latest(key)
	r.of.mu.Unlock()
	if e == nil {
		return memory.Old{}, false, nil
	}
	now, err = r.unexpired(ctx, e.result())
	return now, true, err
}

// unexpired is nothing where the value's time is over.
func (r *Room) unexpired(ctx context.Context, old memory.Old) (memory.Old, error) {
	if old.Expires == 0 {
		return old, nil
	}
	now, err := r.Now(ctx)
	if err != nil || old.Expires <= now {
		return memory.Old{}, err
	}
	return old, nil
}

// latest is the last edit of the key. The caller holds of.mu.
func (r *Room) latest(key string) *edit {
	if e := r.waiting[key]; e != nil {
		return e
	}
	return r.sending[key]
}

// Entry implements [Keyed]. Of what waits it has key and value alone.
func (r *Room) Entry(ctx context.Context, key string) (memory.Entry, error) {
	switch now, known, err := r.peek(ctx, key); {
	case err != nil:
		return memory.Entry{}, err
	case !known:
		return r.Memory.Entry(ctx, key)
	case ctx.Err() != nil:
		return memory.Entry{}, ctx.Err()
	case !now.Found:
		return memory.Entry{}, memory.NotFound(key, r.id)
	default:
		return entry(key, now), nil
	}
}

func entry(key string, now memory.Old) memory.Entry {
	return memory.Entry{Value: memory.Value{Key: key, JSON: now.Value, Expires: now.Expires}}
}

// all is what waits, by key.
func (r *Room) all(ctx context.Context) (map[string]memory.Old, error) {
	r.of.mu.Lock()
	all := make(map[string]memory.Old, len(r.waiting)+len(r.sending))
	for _, edits := range []map[string]*edit{r.sending, r.waiting} {
		for key, e := range edits {
			all[key] = e.result()
		}
	}
	r.of.mu.Unlock()
	for key, old := range all {
		var err error
		if all[key], err = r.unexpired(ctx, old); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// GetAll implements [Keyed].
func (r *Room) GetAll(ctx context.Context, keys []string) (map[string]memory.Entry, error) {
	over, err := r.all(ctx)
	if err != nil {
		return nil, err
	}
	below := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, waits := over[key]; return waits })
	entries := map[string]memory.Entry{}
	err = ctx.Err()
	if len(below) > 0 && err == nil {
		entries, err = r.Memory.GetAll(ctx, below)
	}
	for _, key := range keys {
		if now := over[key]; now.Found && entries != nil {
			entries[key] = entry(key, now)
		}
	}
	return entries, err
}

// Keys implements [Keyed].
func (r *Room) Keys(ctx context.Context, list memory.Listing) ([]string, error) {
	over, err := r.all(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := r.Memory.Keys(ctx, list.Unlimited())
	if keys == nil && err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { _, waits := over[key]; return waits })
	for key, now := range over {
		if now.Found {
			keys = append(keys, key)
		}
	}
	return list.Of(keys), err
}

// Entries implements [Keyed].
func (r *Room) Entries(ctx context.Context, list memory.Listing) iter.Seq2[memory.Entry, error] {
	return func(yield func(memory.Entry, error) bool) {
		over, err := r.all(ctx)
		if err != nil {
			yield(memory.Entry{}, err)
			return
		}
		var left []string
		for key, now := range over {
			if now.Found {
				left = append(left, key)
			}
		}
		left = list.Unlimited().Of(left)
		n := 0
		give := func(e memory.Entry, err error) (more bool) {
			if e.Err == nil {
				n++
			}
			return yield(e, err) && !list.Reached(n)
		}
		until := func(more func(key string) bool) bool {
			for len(left) > 0 && more(left[0]) {
				key := left[0]
				left = left[1:]
				if !give(entry(key, over[key]), nil) {
					return false
				}
			}
			return true
		}
		for below, err := range r.Memory.Entries(ctx, list.Unlimited()) {
			if err != nil && below.Event == "" { // nothing could be read
				yield(below, err)
				return
			}
			if _, waits := over[below.Key]; waits && below.Err == nil {
				continue
			}
			if below.Err == nil && !until(func(key string) bool { return list.Compare(key, below.Key) < 0 }) || !give(below, err) {
				return
			}
		}
		until(func(string) bool { return true })
	}
}

// PutAll implements [Keyed].
func (r *Room) PutAll(ctx context.Context, stored map[string]json.RawMessage) error {
	for key, value := range stored {
		if err := r.Check(ctx, key, value); err != nil {
			return err
		}
	}
	if waits, err := r.set(ctx, stored); waits || err != nil {
		return err
	}
	return r.Memory.PutAll(ctx, stored)
}

// Delete implements [Keyed].
func (r *Room) Delete(ctx context.Context, keys []string) error {
	values := make(map[string]json.RawMessage, len(keys))
	for _, key := range keys {
		values[key] = nil
	}
	if waits, err := r.set(ctx, values); waits || err != nil {
		return err
	}
	return r.Memory.Delete(ctx, keys)
}

// set has values wait that do not depend on what is there. It does not when all was closed, and then what had waited is sent.
func (r *Room) set(ctx context.Context, values map[string]json.RawMessage) (waits bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := r.of.reserve(ctx); err != nil {
		return false, err
	}
	r.of.mu.Lock()
	if r.of.closed {
		r.of.mu.Unlock()
		return false, r.Flush(ctx)
	}
	defer r.of.mu.Unlock()
	now := time.Now()
	for key, value := range values {
		e := &edit{value: value, since: now}
		if before := r.waiting[key]; before != nil {
			e.since = before.since
		}
		r.put(key, e)
	}
	return true, nil
}

// put has an edit wait in place of the one that waits. The caller holds of.mu.
func (r *Room) put(key string, e *edit) {
	if before := r.waiting[key]; before != nil {
		r.of.size -= before.size(key)
	}
	r.waiting[key] = e
	r.of.size += e.size(key)
	r.begin(r.of.Every)
}

// Update implements [Keyed].
func (r *Room) Update(ctx context.Context, key string, fn Function) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.of.reserve(ctx); err != nil {
		return err
	}
	select {
	case r.updating <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.updating }()
	for {
		r.of.mu.Lock()
		before, closed := r.latest(key), r.of.closed
		r.of.mu.Unlock()
		if closed {
			if err := r.Flush(ctx); err != nil {
				return err
			}
			return r.Memory.Update(ctx, key, fn)
		}
		var of memory.Old
		if before != nil {
			var err error
			if of, err = r.unexpired(ctx, before.result()); err != nil {
				return err
			}
		} else if read, err := r.Memory.Entry(ctx, key); err == nil {
			of = memory.Old{Value: read.JSON, Found: true, Expires: read.Value.Expires}
		} else if !errors.Is(err, fault.ErrNotFound) {
			return err
		}
		given := of
		given.Value = slices.Clone(of.Value)
		stored, err := fn(given)
		if err == nil && stored != nil {
			err = r.Check(ctx, key, stored)
		}
		if err != nil {
			return err
		}
		if same(oldOf(stored), of) || r.add(key, before, of, stored, fn) {
			return nil
		}
	}
}

// add has an Update wait, unless the key has changed since before.
func (r *Room) add(key string, before *edit, of memory.Old, stored json.RawMessage, fn Function) bool {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if r.latest(key) != before || r.of.closed {
		return false
	}
	e := &edit{value: stored, since: time.Now()}
	switch waiting := r.waiting[key]; {
	case waiting == nil:
		e.from, e.steps = &of, []Function{fn}
	case waiting.from == nil:
		e.since = waiting.since
	default:
		e.since, e.from, e.steps = waiting.since, waiting.from, append(waiting.steps, fn) // the edit before is not appended to again
	}
	r.put(key, e)
	return true
}
