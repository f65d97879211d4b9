package retry

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Queues are the writes of clients whose accounts a homeserver limits, one queue for each client. A queue is there while somebody writes. The zero
// value is ready, and methods are safe for concurrent use.
type Queues struct {
	mu  sync.Mutex
	all map[any]*queue
}

// queue is the writes of one client. They go as they come until one is one too many. From then on each waits for its turn: the rooms take turns,
// and the writes of a room come in their order.
//
// Nobody says how often the client may write. So a write that came too early makes the pace slower, and each one that did not makes it a little
// faster, the more the longer that goes well. Few writes are refused then, no time is lost, and a homeserver that has become more generous is found out.
type queue struct {
	of     *Queues
	client any
	uses   int // guarded by of.mu

	mu      sync.Mutex
	limited bool
	next    time.Time     // when the next turn comes
	pace    time.Duration // from one turn to the next
	well    int           // how many writes in a row did not come too early
	last    Interrupted   // what was one too many
	told    time.Time     // when somebody was last told how long the queue is

	rooms   []string             // those that wait, in the order of their turns
	waiting map[string][]*waiter // by room, in their order
	timer   *time.Timer          // of the next turn
}

// waiter is a write that waits. Ready is closed when its turn has come.
type waiter struct{ ready chan struct{} }

// How the pace changes: by a sixteenth where a write came too early, beside what it came too early, and by n parts of 512 with the nth write in a row
// that did not. A pace of 5 seconds that is no longer needed is gone after some three minutes.
const (
	slower = 16
	faster = 512
)

// Turn is a write of a room, from before it is sent until it is done. A nil Turn waits for nobody.
type Turn struct {
	queue *queue
	room  string
	first bool // whether the write was refused, and so comes before the others of the room, and the room before the others
	paced bool // whether it was sent in its turn
}

// Enter gives the turn of a write. Leave must be called when the write is done.
func (q *Queues) Enter(client any, room string) *Turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := q.all[client]
	if own == nil {
		if q.all == nil {
			q.all = map[any]*queue{}
		}
		own = &queue{of: q, client: client, waiting: map[string][]*waiter{}}
		q.all[client] = own
	}
	own.uses++
	return &Turn{queue: own, room: room}
}

// Leave is for a write that is done.
func (t *Turn) Leave() {
	q := t.queue.of
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.queue.uses--; t.queue.uses == 0 {
		delete(q.all, t.queue.client)
	}
}

// Behind tells how many writes wait, of how many rooms. It is news once in a while.
func (t *Turn) Behind(every time.Duration) (writes, rooms int, news bool) {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, waiting := range q.waiting {
		writes += len(waiting)
	}
	if news = time.Since(q.told) >= every; news {
		q.told = time.Now()
	}
	return writes, len(q.rooms), news
}

// wait waits for the write's turn. It fails with an [*Interrupted] where the context ends first.
func (t *Turn) wait(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if own, ok := ctx.Value(slotKey{}).(*slot); ok && own.queue == t.queue {
		if t.paced = own.take(); t.paced {
			return nil
		}
	}
	_, err := t.take(ctx)
	return err
}

// take is wait, and tells whether there was a turn to wait for.
func (t *Turn) take(ctx context.Context) (limited bool, err error) {
	q := t.queue
	q.mu.Lock()
	if !q.limited {
		q.mu.Unlock()
		return false, nil
	}
	own := &waiter{ready: make(chan struct{})}
	q.add(t.room, own, t.first)
	reason := q.last
	if !t.first {
		reason.wait = max(0, time.Until(q.next))
	}
	q.give()
	q.mu.Unlock()
	defer note(ctx, &reason)()
	select {
	case <-own.ready:
		t.paced = true
		return true, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.drop(t.room, own) { // its turn has come at the same moment
		q.back()
	}
	return true, reason.by(ctx.Err())
}

// sent is for a write that was not one too many.
func (t *Turn) sent() {
	if t == nil {
		return
	}
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	t.first = false
	q.well = min(q.well+1, faster/2)
	q.pace -= q.pace * time.Duration(q.well) / faster
}

// limit is for a write that was one too many.
func (t *Turn) limit(reason Interrupted) {
	if t == nil {
		return
	}
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.paced {
		q.pace += reason.wait + q.pace/slower
	} else {
		q.pace = max(q.pace, reason.wait)
	}
	q.well = 0
	q.limited, q.last, q.next, t.first = true, reason, time.Now().Add(reason.wait), true
}

func (q *queue) add(room string, own *waiter, first bool) {
	if first {
		q.rooms = slices.DeleteFunc(q.rooms, func(other string) bool { return other == room })
		q.rooms = slices.Insert(q.rooms, 0, room)
		q.waiting[room] = slices.Insert(q.waiting[room], 0, own)
		return
	}
	if len(q.waiting[room]) == 0 {
		q.rooms = append(q.rooms, room)
	}
	q.waiting[room] = append(q.waiting[room], own)
}

// drop takes a write out of the queue, and tells whether it was there.
func (q *queue) drop(room string, own *waiter) bool {
	at := slices.Index(q.waiting[room], own)
	if at < 0 {
		return false
	}
	q.waiting[room] = slices.Delete(q.waiting[room], at, at+1)
	if len(q.waiting[room]) == 0 {
		delete(q.waiting, room)
		q.rooms = slices.DeleteFunc(q.rooms, func(other string) bool { return other == room })
	}
	return true
}

// give gives the turns that have come, and sees to it that the next one is given when it comes.
func (q *queue) give() {
	for len(q.rooms) > 0 {
		if wait := time.Until(q.next); wait > 0 {
			if q.timer != nil {
				q.timer.Stop()
			}
			q.timer = time.AfterFunc(wait, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.give()
			})
			return
		}
		room := q.rooms[0]
		own := q.waiting[room][0]
		q.drop(room, own)
		if len(q.waiting[room]) > 0 { // the others of the room come when all other rooms have had their turn
			q.rooms = append(q.rooms[1:], room)
		}
		q.next = time.Now().Add(q.pace)
		close(own.ready)
	}
}

// back is for a turn that was not used.
func (q *queue) back() {
	q.next = time.Now()
	q.give()
}

// slot is a turn that somebody has waited for ahead of the write.
type slot struct {
	queue *queue
	left  bool // guarded by queue.mu
}

type slotKey struct{}

// Ahead waits for the turn of a write of which it is not known yet what it sends. The first write of the client in the context that it gives
// waits no more. Leave must be called when all is done. It fails with an [*Interrupted] where the context ends first.
func (q *Queues) Ahead(ctx context.Context, client any, room string) (with context.Context, leave func(), err error) {
	turn := q.Enter(client, room)
	limited, err := turn.take(ctx)
	if err != nil {
		turn.Leave()
		return ctx, nil, err
	}
	own := &slot{queue: turn.queue, left: limited}
	return context.WithValue(ctx, slotKey{}, own), func() {
		if own.take() {
			own.queue.mu.Lock()
			own.queue.back()
			own.queue.mu.Unlock()
		}
		turn.Leave()
	}, nil
}

// take tells whether the turn was still there.
func (s *slot) take() (left bool) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	left, s.left = s.left, false
	return left
}
