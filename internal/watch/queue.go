package watch

import (
	"context"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/matrix"
)

// maxQueued is how many events wait for a slow watch. What comes when there are more is read from the homeserver
// instead.
const maxQueued = 1000

// Queue is between the sync and a watch.
type Queue struct {
	room id.RoomID
	of   *Queues

	mu    sync.Mutex
	queue []news
	since int64         // where the homeserver had stored the last event that the sync had brought before, 0 where nothing tells
	wake  chan struct{} // has an element while there may be something in the queue
}

// news is what a watch is news of: an event, what account data has now, or what somebody has said. It is empty where events of the room were skipped.
type news struct {
	event   *matrix.Event
	account *fallback.Version
	notice  *Notice
	closed  bool // the store follows no more
}

// push adds something to the queue.
func (w *Queue) push(room id.RoomID, some news) {
	if room != w.room {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.since = w.of.Since()
	}
	if len(w.queue) >= maxQueued && !some.closed {
		w.queue, some = nil, news{closed: slices.Contains(w.queue, news{closed: true})}
	}
	w.queue = append(w.queue, some)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take waits for something in the queue, or until then. What the homeserver had stored up to since was brought before.
func (w *Queue) take(ctx context.Context, until <-chan time.Time) (all []news, since int64, err error) {
	select {
	case <-w.wake:
	case <-until:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all, w.queue = w.queue, nil
	return all, w.since, nil
}

// Queues are those of all watches of a store. Since is set before the first use. Methods are safe for concurrent use.
type Queues struct {
	Since func() int64 // where the homeserver had stored the last event that the sync has brought, 0 where nothing tells

	mu  sync.RWMutex
	all map[*Queue]bool
}

// open makes a queue for a watch of the room.
func (q *Queues) open(room id.RoomID) *Queue {
	w := &Queue{room: room, of: q, wake: make(chan struct{}, 1)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all == nil {
		q.all = map[*Queue]bool{}
	}
	q.all[w] = true
	return w
}

func (q *Queues) close(w *Queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.all, w)
}

func (q *Queues) each(push func(w *Queue)) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	for w := range q.all {
		push(w)
	}
}

// Bring hands on the memory's events that the sync has brought.
func (q *Queues) Bring(room id.RoomID, events []*matrix.Event) {
	q.each(func(w *Queue) {
		for _, evt := range events {
			w.push(room, news{event: evt})
		}
	})
}

// Notice hands on what somebody has said of the room.
func (q *Queues) Notice(room id.RoomID, notice Notice) {
	q.each(func(w *Queue) { w.push(room, news{notice: &notice}) })
}

// LookBack makes those who watch the room ask what they have missed.
func (q *Queues) LookBack(room id.RoomID) { q.each(func(w *Queue) { w.push(room, news{}) }) }

// LookBackAll is LookBack in all rooms.
func (q *Queues) LookBackAll() { q.each(func(w *Queue) { w.push(w.room, news{}) }) }

// End ends the watches.
func (q *Queues) End() { q.each(func(w *Queue) { w.push(w.room, news{closed: true}) }) }
