// Package commit is how edits of a dict get to the homeserver.
//
// A dict is what one state event holds: the whole memory in the single-state-key layout, one key in the per-key layout.
// A [Writer] makes the edits that wait for it in one event, looks back for what others sent at the same time, and merges
// that with it. A [Process] is what all stores of a process share: locks, and what was written.
package commit

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/meter"
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

	// Background has the repairs that nobody waits for. A nil group never ends them. Room is the room that it is told of.
	Background *background.Group
	Room       id.RoomID

	// Meter counts what is merged, whoever waits for it. It may be nil.
	Meter *meter.Meter

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
	owner any

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

	line line // its latest events

	blind  *blind // what was sent last without having read anything
	failed int    // over how many events in a row the homeserver has failed
}

// NewWriter returns a writer of dict, which is what is known of the dict in room.
func NewWriter(dict *replica.Dict, room Room, mode Mode) *Writer {
	policy := cmp.Or(mode.Policy, &defaultPolicy)
	return &Writer{dict: dict, room: room, mode: mode, policy: policy, random: rand.Uint64, sendTime: policy.SendTime, listLag: policy.Lag}
}

// Recent tells whether the writer has written so recently that another, who began before, can have hidden that.
func (w *Writer) Recent() bool {
	last := w.last.Load()
	return last != nil && w.policy.since(last.at) < w.policy.OwnFresh
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

// blind is a value that was sent without having read anything.
type blind struct {
	names map[string]string
	by    string
	event id.EventID
}
