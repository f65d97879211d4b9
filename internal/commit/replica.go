package commit

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

const (
	// repairAfter is when a fork is merged that no writer has merged, about: whoever made it has died, or is on another
	// homeserver and could not know.
	repairAfter   = 1500 * time.Millisecond
	repairTimeout = time.Minute

	// powerTries is how often a read is made that shares the requests of writes which are refused.
	powerTries = 5
)

var (
	// ErrAgain ends an edit that must begin again, because the dict is written elsewhere, or what it depends on has changed.
	ErrAgain = errors.New("roomkv: the memory is written elsewhere by now")

	// ErrRefused is in the error of a [Room] whose homeserver has not taken state.
	ErrRefused = errors.New("state was refused")
)

// Replica is what a process knows of one dict, and who writes it. Its methods are safe for concurrent use.
type Replica struct {
	*replica.Dict
	Writer *Writer

	random func() uint64 // of repairs

	mu     sync.Mutex
	repair bool // whether one is about to be made
}

// NewReplica returns a replica of the dict in room, of which nothing is known.
func NewReplica(room Room, mode Mode) *Replica {
	dict := new(replica.Dict)
	return &Replica{Dict: dict, Writer: NewWriter(dict, room, mode), random: rand.Uint64}
}

// Read asks the homeserver for what is there, afresh also where that is known. It shares the requests of writes, and theirs can
// fail for a lack of power.
func (r *Replica) Read(ctx context.Context, afresh bool) error {
	for try := 1; ; try++ {
		err := r.Writer.Do(ctx, Edit{ReadOnly: true, Conditional: true, Afresh: afresh})
		if !errors.Is(err, ErrAgain) && (!errors.Is(err, ErrRefused) || try >= powerTries) {
			return err
		}
	}
}

// ReadView is the dict as a caller sees it: from memory while it is live, which means that a sync feeds it, else with a request. Where
// what is current lacks what this process has just written, another writer began from what was there before and will merge
// the two, and a look back does so here. The view holds for the caller's purpose where its names and the current ones
// agree.
func (r *Replica) ReadView(ctx context.Context, live bool, agree func(view, current map[string]string) bool) (*replica.View, error) {
	if live {
		if view := r.View(); view != nil {
			return view, nil
		}
		if err := r.Read(ctx, false); err != nil {
			return nil, err
		}
		if view := r.View(); view != nil {
			return view, nil
		}
	}
	current, err := r.Writer.room.Current(ctx)
	if err != nil || current == nil {
		return &replica.View{}, err
	}
	if view := r.View(); view != nil && r.Writer.Recent() && view.Event != current.ID &&
		!slices.Contains(current.Parents, view.Event) && !agree(view.Names, current.Dict) {
		if err := r.Read(ctx, false); err != nil {
			return nil, err
		}
		if view = r.View(); view != nil {
			return view, nil
		}
	}
	return replica.ViewOf(current), nil
}

// Bring adds events that one response of a sync brought. A fork that they leave is merged after a while, where it is still there and
// the dict is live then.
func (r *Replica) Bring(live func() bool, events ...merge.Event) {
	r.Feed(events...)
	forked := false
	r.Look(func(h *merge.History) { forked = len(h.Heads()) > 1 })
	if forked && !r.Writer.mode.Single {
		r.repairLater(live)
	}
}

func (r *Replica) repairLater(live func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repair {
		return
	}
	r.repair = true
	time.AfterFunc(time.Duration(float64(repairAfter)*(0.5+fraction(r.random()))), func() {
		r.mu.Lock()
		r.repair = false
		r.mu.Unlock()
		if !live() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), repairTimeout)
		defer cancel()
		_ = r.Repair(ctx) // somebody who may not write cannot repair; the next who may will
	})
}

// Repair merges what nobody has merged, where there is any.
func (r *Replica) Repair(ctx context.Context) error {
	return r.Writer.Do(ctx, Edit{Conditional: true, Apply: func(Base) (map[string]json.RawMessage, error) { return nil, nil }})
}

// Redacted is for a sync that brings a redaction of the event.
func (r *Replica) Redacted(event id.EventID) {
	current := false
	r.Look(func(h *merge.History) {
		current = slices.ContainsFunc(h.Heads(), func(head *merge.Event) bool { return head.ID == event })
	})
	if current {
		r.Forget()
	}
}

// Resolved is for a sync that gives the event as the current one without having brought it: the homeserver has changed its mind.
func (r *Replica) Resolved(event id.EventID) {
	if view := r.View(); view != nil && view.Event != event {
		r.Forget()
	}
}
