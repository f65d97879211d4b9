// Package commit is how edits of a dict get to the homeserver.
//
// A dict is what one state event holds: the whole memory in the single-state-key layout, one key in the per-key layout.
// A [Writer] makes the edits that wait for it in one event, looks back for what others sent at the same time, and merges
// that with it. A [Process] is what all stores of a process share: locks, and what was written.
package commit

import (
	"cmp"
	"context"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/retry"
)

// Mode is how a dict is written.
type Mode struct {
	// Single: nobody else writes, so that nothing needs to be looked for.
	Single bool

	// OneName: the dict has one name at most. An edit that is not conditional then replaces all there is, and nothing
	// needs to be read before it or merged after it.
	OneName bool

	// Background has the repairs that nobody waits for. A nil group never ends them.
	Background *background.Group

	// Drop: whatever is no longer stored after an edit is to be dropped, so that what was there before must be known.
	Drop bool

	// Policy is how long and how often the writer waits and asks. Where it is nil, that is [DefaultPolicy]. It must not change later on.
	Policy *Policy
}

// Writer writes one dict. The edits that wait while it sends others share the next event. Its methods are safe for
// concurrent use.
type Writer struct {
	dict   *replica.Dict
	room   Room
	mode   Mode
	policy *Policy

	// owner is there as long as the writer runs: whoever looks for a dict must not make a second one meanwhile. It is nil without one.
	owner *Replica

	random func() uint64 // of waits and nonces; called by the running loop alone

	mu      sync.Mutex
	queue   []*pending
	running bool
	idle    chan struct{} // closed when the loop ends that runs
	parts   int           // how often edits were divided

	waits retry.Waits // what the edits that are being made wait for

	last      atomic.Pointer[sent] // the last event of this writer, nil where there is none
	unsettled atomic.Bool          // whether the homeserver can have an event of this writer whose rivals nobody has looked for
	shadowed  atomic.Bool          // whether what counts is not what the homeserver gives as current
	repairing atomic.Bool          // whether repairLater waits

	// Of the running loop alone.
	sendTime  time.Duration // how long sending takes, about
	listLag   time.Duration // how long lists lack what was sent, about
	contended bool          // whether others wrote during the last commit

	blind  *blind // what was sent last without having read anything
	failed int    // over how many events in a row the homeserver has failed
}

// sent is an event that the homeserver has acknowledged.
type sent struct {
	event id.EventID
	at    time.Time
}

// NewWriter returns a writer of dict, which is what is known of the dict in room.
func NewWriter(dict *replica.Dict, room Room, mode Mode) *Writer {
	policy := cmp.Or(mode.Policy, &defaultPolicy)
	return &Writer{dict: dict, room: room, mode: mode, policy: policy, random: rand.Uint64, sendTime: policy.SendTime, listLag: policy.Lag}
}

// Do makes the edit, and returns when the homeserver has it and every other writer who could have overlooked it has
// merged it or will. It returns the error of Apply or of a request; with the latter, and when ctx ends, the edit can
// have been made all the same.
func (w *Writer) Do(ctx context.Context, edit Edit) error {
	p := &pending{Edit: edit, ctx: ctx, done: make(chan error, 1), calls: make(chan func()), left: make(chan struct{})}
	p.alone = edit.Barrier
	defer close(p.left)
	w.mu.Lock()
	w.queue = append(w.queue, p)
	if !w.running {
		w.running, w.idle = true, make(chan struct{})
		go w.loop()
	}
	w.mu.Unlock()
	for {
		select {
		case call := <-p.calls:
			call()
		case err := <-p.done:
			return err
		case <-ctx.Done():
			return w.waits.Explain(ctx.Err())
		}
	}
}

// Idle waits until nothing is on its way, also of edits whose callers have given up.
func (w *Writer) Idle() {
	w.mu.Lock()
	running, idle := w.running, w.idle
	w.mu.Unlock()
	if running {
		<-idle
	}
}

// Recent tells whether the writer has written so recently that another, who began before, can have hidden that.
func (w *Writer) Recent() bool {
	last := w.last.Load()
	return last != nil && w.policy.since(last.at) < w.policy.OwnFresh
}

// Repair merges what nobody has merged, where there is any. It asks the homeserver first: a merge of what a slow sync has brought would
// be current for a moment, and hide what has been written since.
func (w *Writer) Repair(ctx context.Context) error {
	return w.Do(ctx, Edit{Conditional: true, Afresh: true, Apply: func(Base) (map[string]json.RawMessage, error) { return nil, nil }})
}

// needsRepair tells whether there is something that nobody is known to have merged, or that counts and is not current.
func (w *Writer) needsRepair() bool {
	return len(replica.Read(w.dict, (*merge.History).Heads)) > 1 || w.shadowed.Load() || w.unsettled.Load()
}

// repairLater makes a Repair after a while, where there is still need of it then, and again where that fails. Whoever made a fork has died,
// or is on another homeserver and could not know, or it is a late delivery. Somebody who may not write cannot repair; the next who may will.
func (w *Writer) repairLater(ctx context.Context, pause time.Duration) {
	if !w.needsRepair() || w.repairing.Swap(true) {
		return
	}
	w.mode.Background.Go(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, w.policy.SettleFor)
		defer cancel()
		defer w.repairing.Store(false)
		for w.policy.sleep(ctx, pause) == nil && w.needsRepair() && w.Repair(ctx) != nil {
			pause *= 2
		}
	})
}

// loop runs as long as somebody waits.
func (w *Writer) loop() {
	defer runtime.KeepAlive(w.owner)
	for {
		batch := w.next(nil)
		if len(batch) == 0 {
			return
		}
		w.run(batch)
	}
}

// next takes what can share an event off the queue: with like, where that is given. Else the loop has ended where
// there is nothing.
func (w *Writer) next(like *pending) (batch []*pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.queue = take(w.queue, like)
	if w.running = like != nil || len(batch) > 0; !w.running {
		close(w.idle)
	}
	return batch
}

// divide puts edits back at the front of the queue, where the first half shares events with one another alone, and so does the second.
func (w *Writer) divide(edits []*pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, p := range edits {
		if i == 0 || i == len(edits)/2 {
			w.parts++
		}
		p.part = w.parts
	}
	w.queue = append(edits, w.queue...)
}

func (w *Writer) run(batch []*pending) {
	defer w.dict.Use()() // so that the dict takes and keeps what the sync brings, though it be unknown: what was sent comes back that way
	callers := detach(batch, w.policy)
	defer callers.release()
	ctx := w.waits.In(callers.ctx)
	c := commit{Writer: w, callers: callers, all: batch, todo: batch}
	release, err := w.room.Hold(ctx)
	if err == nil {
		defer release()
		err = c.do(ctx)
	}
	for _, p := range c.all {
		p.end(cmp.Or(err, p.err))
	}
}
