package commit

import (
	"cmp"
	"context"
	"encoding/json"
	"runtime"
	"time"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// Do makes the edit, and returns when the homeserver has it and every other writer who could have overlooked it has
// merged it or will. It returns the error of Apply or of a request; with the latter, and when ctx ends, the edit can
// have been made all the same.
func (w *Writer) Do(ctx context.Context, edit Edit) error {
	p := &pending{Edit: edit, ctx: ctx, done: make(chan error, 1), calls: make(chan func()), left: make(chan struct{})}
	p.alone = edit.Barrier
	p.Conditional = edit.Conditional || edit.Atomic
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
		repair := func() error { return w.mode.Background.Do(ctx, background.Repair, w.mode.Room, w.Repair) }
		for w.policy.sleep(ctx, pause) == nil && w.needsRepair() && repair() != nil {
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
