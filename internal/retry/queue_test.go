package retry_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/retry"
)

// bucket is what an account may send: so many at once, and another one after each pause.
type bucket struct {
	burst   float64
	every   time.Duration
	seconds bool // whether it says in whole seconds how long to wait

	mu      sync.Mutex
	left    float64
	at      time.Time
	sent    []string // rooms
	when    []time.Duration
	refused int
	began   time.Time
}

type tooMany struct{ after time.Duration }

func (tooMany) Error() string { return "too many" }

func judgeLimit(err error) retry.Verdict {
	return retry.Verdict{Again: true, Limited: true, Asked: true, After: err.(tooMany).after, Why: "HTTP 429"}
}

func (b *bucket) send(room string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.began.IsZero() {
		b.began, b.at, b.left = now, now, b.burst
	}
	b.left = min(b.burst, b.left+float64(now.Sub(b.at))/float64(b.every))
	b.at = now
	if b.left < 1-1e-6 {
		b.refused++
		after := time.Duration((1 - b.left) * float64(b.every))
		if b.seconds {
			after = time.Duration(math.Ceil(after.Seconds())) * time.Second
		}
		return tooMany{after}
	}
	b.left--
	b.sent, b.when = append(b.sent, room), append(b.when, now.Sub(b.began))
	return nil
}

var patient = retry.Policy{Attempts: 4, Pause: 4 * time.Second, Longest: 10 * time.Minute}

func write(ctx context.Context, queues *retry.Queues, b *bucket, room string) error {
	turn := queues.Enter("account", room)
	defer turn.Leave()
	policy := patient
	policy.Turn = turn
	return policy.Do(ctx, func() error { time.Sleep(20 * time.Millisecond); return b.send(room) }, judgeLimit)
}

// While an account is limited, each room has its turn, hardly a write is refused, and no time is lost.
func TestRoomsTakeTurns(t *testing.T) {
	for _, seconds := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var queues retry.Queues
			b := &bucket{burst: 10, every: 4700 * time.Millisecond, seconds: seconds}
			const rooms, writes, atOnce = 20, 5, 4
			jobs := make(chan string, rooms*writes)
			for range writes {
				for room := range rooms {
					jobs <- fmt.Sprint("room ", room)
				}
			}
			close(jobs)
			limited := func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.refused > 0
			}
			var all sync.WaitGroup
			for range atOnce { // so many are in flight when the first is refused, and then all others come
				all.Go(func() {
					for !limited() {
						assert.NoError(t, write(t.Context(), &queues, b, <-jobs))
					}
				})
			}
			for !limited() {
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			for room := range jobs {
				all.Go(func() { assert.NoError(t, write(t.Context(), &queues, b, room)) })
			}
			all.Wait()
			require.Len(t, b.sent, rooms*writes)
			took, least := b.when[len(b.when)-1], time.Duration(rooms*writes-10)*b.every
			assert.Less(t, took, least+least/50+2*time.Second)
			assert.Less(t, b.refused, atOnce+12, "of %d", rooms*writes)
			last := map[string]int{}
			for i, room := range b.sent[14 : len(b.sent)-rooms] { // in the end some rooms have nothing more to send
				if before, ok := last[room]; ok {
					assert.Greater(t, i-before, 10, "%s had its turn again before others: %v", room, b.sent)
				}
				last[room] = i
			}
		})
	}
}

// A homeserver that becomes more generous is found out.
func TestTheLimitIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var queues retry.Queues
		b := &bucket{burst: 1, every: 5 * time.Second}
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { assert.NoError(t, write(t.Context(), &queues, b, fmt.Sprint(i))) })
		}
		time.Sleep(30 * time.Second)
		b.mu.Lock()
		b.burst, b.left = 1000, 1000
		b.mu.Unlock()
		began := time.Now()
		all.Wait()
		assert.Less(t, time.Since(began), 4*time.Minute)
	})
}

// Who gives up leaves the turn to the others, and is told what was waited for.
func TestWhoGivesUpLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var queues retry.Queues
		b := &bucket{burst: 1, every: 10 * time.Second}
		require.NoError(t, write(t.Context(), &queues, b, "a"))
		done := make(chan error)
		short, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		go func() { done <- write(t.Context(), &queues, b, "a") }()
		time.Sleep(time.Second)
		go func() { done <- write(short, &queues, b, "b") }()
		go func() { done <- write(t.Context(), &queues, b, "c") }()
		require.NoError(t, <-done)
		err := <-done
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, new(tooMany))
		require.ErrorContains(t, err, "the homeserver asked to wait")
		require.NoError(t, <-done)
		assert.Equal(t, []string{"a", "a", "c"}, b.sent)
		assert.Less(t, b.when[2], 21*time.Second)
	})
}

// Whoever waits ahead of a write has the turn for it, and gives it back where there is nothing to send.
func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var queues retry.Queues
		b := &bucket{burst: 1, every: 10 * time.Second}
		ctx, leave, err := queues.Ahead(t.Context(), "account", "a")
		require.NoError(t, err)
		require.NoError(t, write(ctx, &queues, b, "a"), "nothing is limited")
		leave()
		var all sync.WaitGroup
		for _, room := range []string{"a", "b", "c", "d"} {
			all.Go(func() {
				time.Sleep(time.Duration(room[0]-'a') * 100 * time.Millisecond)
				if room == "a" {
					assert.NoError(t, write(t.Context(), &queues, b, room))
					return
				}
				ctx, leave, err := queues.Ahead(t.Context(), "account", room)
				assert.NoError(t, err)
				defer leave()
				if room != "b" { // which turns out to have nothing to send
					assert.NoError(t, write(ctx, &queues, b, room))
				}
				if room == "c" {
					assert.NoError(t, write(ctx, &queues, b, room), "the second has a turn of its own")
				}
			})
		}
		all.Wait()
		assert.Equal(t, []string{"a", "a", "c", "d", "c"}, b.sent)
		assert.Less(t, b.when[4], 42*time.Second)
	})
}
