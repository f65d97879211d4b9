package watch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/matrix"
)

const (
	room  = id.RoomID("!room:example.org")
	other = id.RoomID("!other:example.org")
)

// queuesAt are queues of a sync that has come to where since says.
func queuesAt(since *int64) *Queues { return &Queues{Since: func() int64 { return *since }} }

func someEvents(n int) (events []*matrix.Event) {
	for i := range n {
		events = append(events, &matrix.Event{ID: id.EventID(fmt.Sprint("$", i))})
	}
	return events
}

// take gives what waits in the queue, and where the sync was before; nothing where there is nothing.
func take(t *testing.T, w *Queue) ([]news, int64) {
	t.Helper()
	if len(w.wake) == 0 {
		assert.Empty(t, w.queue, "nobody is told of this")
		return nil, 0
	}
	all, since, err := w.take(t.Context(), nil)
	require.NoError(t, err)
	return all, since
}

func TestQueueKeepsOrderAndWhereItBegan(t *testing.T) {
	since := int64(5)
	q := queuesAt(&since)
	w := q.open(room)
	events := someEvents(3)
	q.Bring(room, events[:2])
	since = 6
	q.LookBack(room)
	q.Bring(room, events[2:])
	all, began := take(t, w)
	assert.Equal(t, []news{{event: events[0]}, {event: events[1]}, {}, {event: events[2]}}, all)
	assert.Equal(t, int64(5), began, "the sync had come to there before the first of them")

	all, _ = take(t, w)
	assert.Empty(t, all, "each comes once")
	q.Bring(room, events[:1])
	since = 7
	all, began = take(t, w)
	assert.Equal(t, []news{{event: events[0]}}, all)
	assert.Equal(t, int64(6), began)
}

func TestQueueIsOfOneRoom(t *testing.T) {
	since := int64(0)
	for _, test := range []struct {
		about              string
		push               func(q *Queues)
		own, others, after int // how much there is in each queue, the last one closed
	}{
		{"events", func(q *Queues) { q.Bring(room, someEvents(2)) }, 2, 0, 0},
		{"no events", func(q *Queues) { q.Bring(room, nil) }, 0, 0, 0},
		{"a look back", func(q *Queues) { q.LookBack(other) }, 0, 1, 0},
		{"a look back everywhere", func(q *Queues) { q.LookBackAll() }, 1, 1, 0},
		{"the end", func(q *Queues) { q.End() }, 1, 1, 0},
	} {
		q := queuesAt(&since)
		own, others, closed := q.open(room), q.open(other), q.open(room)
		q.close(closed)
		test.push(q)
		for w, want := range map[*Queue]int{own: test.own, others: test.others, closed: test.after} {
			all, _ := take(t, w)
			assert.Len(t, all, want, test.about)
		}
	}
}

func TestFullQueueBecomesALookBack(t *testing.T) {
	since := int64(5)
	q := queuesAt(&since)
	w := q.open(room)
	q.Bring(room, someEvents(1))
	since = 9
	q.Bring(room, someEvents(maxQueued-1))
	assert.Len(t, w.queue, maxQueued)
	w.push(other, news{})
	assert.Len(t, w.queue, maxQueued)

	w.push(room, news{account: &fallback.Version{}})
	late := someEvents(maxQueued - 1)
	q.Bring(room, late)
	all, began := take(t, w)
	require.Len(t, all, maxQueued, "and what comes then waits as before")
	assert.Equal(t, news{}, all[0])
	assert.Equal(t, news{event: late[0]}, all[1])
	assert.Equal(t, int64(5), began, "the look back goes as far as the first that was dropped")
}

func TestEndIsNotDropped(t *testing.T) {
	since := int64(0)
	for _, waiting := range []int{0, 1, maxQueued - 1, maxQueued} {
		q := queuesAt(&since)
		w := q.open(room)
		q.Bring(room, someEvents(waiting))
		q.End()
		all, _ := take(t, w)
		require.Len(t, all, waiting+1)
		assert.Equal(t, news{closed: true}, all[waiting])
	}
}

func TestTakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since := int64(0)
		q := queuesAt(&since)
		w := q.open(room)
		got := make(chan []news, 1)
		go func() {
			all, _, err := w.take(t.Context(), nil)
			assert.NoError(t, err)
			got <- all
		}()
		synctest.Wait()
		require.Empty(t, got)
		q.LookBack(other)
		synctest.Wait()
		require.Empty(t, got)
		q.LookBack(room)
		assert.Equal(t, []news{{}}, <-got)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := w.take(ctx, nil)
		assert.ErrorIs(t, err, context.Canceled)
	})
}
