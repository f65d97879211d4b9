package flush

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// begin sees to it that what waits is sent after a while. The caller holds of.mu.
func (r *Room) begin(wait time.Duration) {
	if r.next == nil {
		r.next = newAttempt(time.Now().Add(wait))
	}
	if !r.running {
		r.running = true
		r.of.Background.Go(context.Background(), r.run)
	}
}

// run makes attempts as long as there is something to send.
func (r *Room) run(ctx context.Context) {
	for {
		r.of.mu.Lock()
		a := r.next
		r.running = a != nil
		r.of.mu.Unlock()
		if a == nil || r.await(ctx, a) != nil {
			return
		}
	}
}

// await makes an attempt when it is due. It fails when the store is closed.
func (r *Room) await(ctx context.Context, a *attempt) error {
	timer := time.NewTimer(time.Until(a.due))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.now:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case r.of.slots <- struct{}{}:
		defer func() { <-r.of.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, leave, err := r.Ahead(ctx)
	if err != nil {
		return err
	}
	defer leave()
	r.of.mu.Lock()
	if r.next != a { // all was given up
		r.of.mu.Unlock()
		return errClosed
	}
	edits := r.waiting
	r.waiting, r.sending, r.current, r.next = map[string]*edit{}, edits, a, nil
	late := r.late(edits)
	r.of.mu.Unlock()
	late()
	var sent map[string]*outcome
	_ = r.of.Background.Do(mautrix.WithMaxRetries(ctx, tries), background.Send, r.id, func(ctx context.Context) error {
		sent = r.send(ctx, edits)
		return firstError(sent)
	})
	r.rebase(sent)
	r.finish(a, sent)
	return nil
}

// late gives what says, now and then, that edits have waited for long. The caller holds of.mu.
func (r *Room) late(edits map[string]*edit) (tell func()) {
	oldest := time.Duration(0)
	for _, e := range edits {
		oldest = max(oldest, time.Since(e.since))
	}
	if oldest < 2*r.of.Every+time.Second || time.Since(r.of.told) < r.of.Policy.Or().TellLate {
		return func() {}
	}
	r.of.told = time.Now()
	rooms, size := 0, r.of.size
	for _, other := range r.of.rooms {
		if other.next != nil || other.current != nil {
			rooms++
		}
	}
	return func() {
		r.of.Log.Warn().Stringer("waited", oldest.Round(time.Second)).Int("rooms", rooms).Int("bytes", size).
			Msg("Writes wait for longer than WithFlushEvery says")
	}
}

// outcome is what has become of an edit that was sent.
type outcome struct {
	*edit

	mu      sync.Mutex // guards what follows: where the store is closed, what was to be sent can still be on its way
	settled bool       // whether it is known what has become of it, which one of the next three says
	done    bool
	failed  error           // why it is given up
	kept    error           // why it is tried again
	value   json.RawMessage // what is there now, where it is done

	tried  bool  // whether it was made with what is there
	sent   bool  // whether an event with it was acknowledged
	unread error // why what is there could not be read
	own    error // of the caller's function
}

// onto is for [memory.Put].
func (o *outcome) onto(old memory.Old, err error) (_ json.RawMessage, changes bool) {
	var value json.RawMessage
	var own error
	if err == nil {
		value, own = o.again(old)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried, o.unread, o.own, o.value = true, err, own, value
	return value, err == nil && own == nil
}

func (o *outcome) is(of func(*outcome) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return of(o)
}

func (o *outcome) isSettled() bool { return o.is(func(o *outcome) bool { return o.settled }) }

// isOpen tells whether it may have been done, so that it must not be made again. Refused: the last event was certainly not stored.
func (o *outcome) isOpen(refused bool) bool {
	return o.is(func(o *outcome) bool { return o.from != nil && (o.sent || o.tried && !refused) })
}

// send sends edits, and tells what has become of each.
func (r *Room) send(ctx context.Context, edits map[string]*edit) map[string]*outcome {
	all := make(map[string]*outcome, len(edits))
	for key, e := range edits {
		all[key] = &outcome{edit: e, value: e.value}
	}
	r.sendSome(ctx, slices.Sorted(maps.Keys(all)), all)
	return all
}

// sendSome sends the edits of some keys together, and in two halves where the homeserver refuses something in them, which need not be all.
func (r *Room) sendSome(ctx context.Context, keys []string, all map[string]*outcome) {
	err := r.Write(ctx, keys, func(h memory.Handle) error { return write(ctx, h, keys, all) })
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return all[key].isSettled() })
	refused, sure := matrix.RefusesContent(err)
	if refused && len(keys) > 1 && !slices.ContainsFunc(keys, func(key string) bool { return all[key].isOpen(sure) }) {
		r.sendSome(ctx, keys[:len(keys)/2], all)
		r.sendSome(ctx, keys[len(keys)/2:], all)
		return
	}
	for _, key := range keys {
		all[key].settle(err)
	}
}

// firstError is that of the first key, in their order, whose edit is given up or tried again.
func firstError(sent map[string]*outcome) (err error) {
	for _, key := range slices.Sorted(maps.Keys(sent)) {
		err = cmp.Or(err, sent[key].failed, sent[key].kept)
	}
	return err
}

// write sends the edits of some keys that are not done.
func write(ctx context.Context, h memory.Handle, keys []string, all map[string]*outcome) error {
	names, keyOf := h.NamesOf(keys)
	done := func(name string) { all[keyOf[name]].settle(nil) }
	how := memory.Put{Done: done, Onto: map[string]func(memory.Old, error) (json.RawMessage, bool){}, Sent: func(names []string) {
		for _, name := range names {
			all[keyOf[name]].is(func(o *outcome) bool { o.sent = true; return true })
		}
	}}
	stored := map[string]json.RawMessage{}
	var removed []string
	for _, name := range names {
		key := keyOf[name]
		switch o := all[key]; {
		case o.isSettled():
		case o.edit.value == nil && o.from == nil && h.Layout.Alone():
			removed = append(removed, name)
		default:
			if stored[key] = o.edit.value; o.from != nil {
				how.Onto[key] = o.onto
			}
		}
	}
	if len(removed) > 0 {
		if err := h.Remove(ctx, removed, done); err != nil {
			return err
		}
		for _, name := range removed { // also those that were not there
			done(name)
		}
	}
	return h.PutAll(ctx, stored, how)
}

// settle decides what becomes of the edit when the homeserver has it, or the error says why not.
func (o *outcome) settle(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled = true
	switch {
	case o.own != nil: // which changes nothing
		o.failed = o.own
	case err == nil && o.unread != nil, err != nil && !o.tried && o.from != nil && !isFinal(err):
		if o.kept = err; err == nil {
			o.kept = o.unread
		}
	case err == nil:
		o.done = true
	case isFinal(err):
		o.failed = err
	case o.from != nil && (o.sent || !matrix.Refused(err)): // it must not happen twice
		o.failed = fault.Because(err, "an Update that was kept back may have been done or not: %v", err)
	default:
		o.kept = err
	}
}

// isFinal tells whether another attempt would be in vain.
func isFinal(err error) bool {
	if _, sure := matrix.RefusesContent(err); sure {
		return true
	}
	for _, kind := range []error{fault.ErrForbidden, fault.ErrNotJoined, fault.ErrUnknownRoom, fault.ErrTooLarge, fault.ErrNoCrypto, fault.ErrWrongSecret,
		fault.ErrInvalidOption, fault.ErrRoomUpgraded, fault.ErrInvalidKey, fault.ErrInvalidValue} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// rebase makes what waits on top of edits again where these came out as something else.
func (r *Room) rebase(sent map[string]*outcome) {
	for key, o := range sent {
		if !o.done || string(o.value) == string(o.edit.value) {
			continue
		}
		of := (&edit{value: o.value}).result()
		for {
			r.of.mu.Lock()
			e := r.waiting[key]
			r.of.mu.Unlock()
			if e == nil || e.from == nil {
				break
			}
			value, err := e.again(of)
			r.of.mu.Lock()
			same := r.waiting[key] == e
			if same && err == nil {
				r.put(key, &edit{value: value, from: &of, steps: e.steps, since: e.since})
			} else if same {
				delete(r.waiting, key)
				r.of.free(e.size(key))
			}
			r.of.mu.Unlock()
			if same && err != nil {
				r.of.giveUp(r.id, key, err)
			}
			if same {
				break
			}
		}
	}
}

// finish ends an attempt. What is tried again comes before what waits.
func (r *Room) finish(a *attempt, sent map[string]*outcome) {
	var kept error
	size := 0
	for _, key := range slices.Sorted(maps.Keys(sent)) {
		o := sent[key]
		size += o.size(key)
		kept = cmp.Or(kept, o.kept)
		if o.failed != nil {
			r.of.giveUp(r.id, key, o.failed)
		}
	}
	if r.requeue(a, sent, size, kept) && kept != nil {
		explain(r.of.Log.Warn(), kept).Stringer("room_id", r.id).Msg("Writes that were kept back could not be sent, and are tried again")
	}
}

// requeue tells whether there was still need of it.
func (r *Room) requeue(a *attempt, sent map[string]*outcome, size int, kept error) bool {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if r.current != a { // all was given up
		return false
	}
	r.sending, r.current = nil, nil
	if kept == nil {
		r.pause = 0
	} else {
		r.pause = min(max(2*r.pause, r.of.Policy.Or().FlushPause), r.of.Policy.Or().FlushLongest)
		if r.next != nil {
			r.next.due = time.Now().Add(r.pause)
		}
		r.begin(r.pause)
	}
	for key, o := range sent {
		if o.kept == nil {
			continue
		}
		e := o.edit
		if after := r.waiting[key]; after != nil {
			e = after.onto(e)
		}
		r.put(key, e)
	}
	r.of.free(size)
	a.end(kept)
	return true
}
