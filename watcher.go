package roomkv

import (
	"context"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/matrix"
)

// maxQueued is how many events wait for a slow watch. What comes when there are more is read from the homeserver
// instead.
const maxQueued = 1000

// watcher is the queue between the sync and a watch.
type watcher struct {
	room id.RoomID
	feed *feed

	mu    sync.Mutex
	queue []news
	since int64         // where the homeserver had stored the last event that the sync had brought before, 0 where nothing tells
	wake  chan struct{} // has an element while there may be something in the queue
}

func (f *feed) watch(room id.RoomID) *watcher {
	w := &watcher{room: room, feed: f, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == nil {
		f.watchers = map[*watcher]bool{}
	}
	f.watchers[w] = true
	return w
}

func (f *feed) unwatch(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// news is what a watch is news of: an event, or what account data has now. It is empty where events of the room were skipped.
type news struct {
	event   *matrix.Event
	account *fallback.Version
	closed  bool // the store follows no more
}

// push adds something to the queue.
func (w *watcher) push(room id.RoomID, some news) {
	if room != w.room {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.since = w.feed.core.Follower.Since()
	}
	if len(w.queue) >= maxQueued && !some.closed {
		w.queue, some = nil, news{}
	}
	w.queue = append(w.queue, some)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take waits for something in the queue. What the homeserver had stored up to since was brought before.
func (w *watcher) take(ctx context.Context) (all []news, since int64, err error) {
	select {
	case <-w.wake:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all, w.queue = w.queue, nil
	return all, w.since, nil
}
