package roomkv

import (
	"context"
	"sync"

	"maunium.net/go/mautrix/id"
)

// maxQueued is how many events wait for a slow watch. What comes when there are more is read from the homeserver
// instead.
const maxQueued = 1000

// watcher is the queue between the sync and a watch.
type watcher struct {
	room     id.RoomID
	follower *follower

	mu    sync.Mutex
	queue []*stateEvent // nil for events that were skipped
	since int64         // where the homeserver had stored the last event that the sync had brought before, 0 where nothing tells
	wake  chan struct{} // has an element while there may be something in the queue
}

func (f *follower) watch(room id.RoomID) *watcher {
	w := &watcher{room: room, follower: f, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == nil {
		f.watchers = map[*watcher]bool{}
	}
	f.watchers[w] = true
	return w
}

func (f *follower) unwatch(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// push adds an event, or nil where events of the room were skipped.
func (w *watcher) push(room id.RoomID, evt *stateEvent) {
	if room != w.room {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.since = w.follower.since.Load()
	}
	if len(w.queue) >= maxQueued {
		w.queue, evt = nil, nil
	}
	w.queue = append(w.queue, evt)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take waits for something in the queue. What the homeserver had stored up to since was brought before.
func (w *watcher) take(ctx context.Context) (events []*stateEvent, since int64, err error) {
	select {
	case <-w.wake:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	events, w.queue = w.queue, nil
	return events, w.since, nil
}
