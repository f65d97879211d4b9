package roomkv_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults"
)

var (
	leaseKills = flag.Int("lease-kills", 30, "how often TestLeasesOfKilledProcesses kills the holder, half a minute each")
	onceEvents = flag.Int("once-events", 500, "how many events the replicas of TestOnceOfKilledProcesses get")
)

// crowd are processes that do one job, and are replaced when they die.
type crowd struct {
	t         *testing.T
	job       job
	processes []*process
	said      chan said
}

// said is a line of a process. It is empty once the process has ended.
type said struct {
	by   int // in processes
	line string
	at   time.Time
}

func newCrowd(t *testing.T, j job) *crowd {
	return &crowd{t: t, job: j, said: make(chan said, 100_000)} // what is said while another process starts is not kept back
}

// start adds a process, whose job begins with the event from. Every second one follows.
func (c *crowd) start(from int) {
	c.t.Helper()
	by := len(c.processes)
	j := c.job
	j.Name, j.Follow, j.From = fmt.Sprint(by), by%2 == 0, from
	p := start(c.t, j)
	c.processes = append(c.processes, p)
	go func() {
		for line := range p.lines {
			c.said <- said{by, line, time.Now()}
		}
		c.said <- said{by: by}
	}()
	p.begin()
}

func (c *crowd) kill(by int) { require.NoError(c.t, c.processes[by].cmd.Process.Kill()) }

// holding is what the memory has of each holder that has written.
type holding struct {
	Fence  int64
	By     string
	Writes int
}

// lease writes whenever this process has the lease: it adds 1 to a counter, and to what it has written itself.
func (j job) lease(ctx context.Context, store *roomkv.Store, say func(string)) error {
	for {
		lease, err := store.Lease(ctx, "leader", leaseTTL)
		if err != nil {
			say("failed")
			time.Sleep(time.Second)
			continue
		}
		fence, counter := lease.Fence(), 0
		say(fmt.Sprintf("holds %d", fence))
		for lost := false; !lost; {
			err := store.Transact(ctx, func(tx *roomkv.Tx) error {
				if err := tx.Require(lease); err != nil {
					return err
				}
				var holders []holding
				counter = 0
				for key, dest := range map[string]any{"holders": &holders, "counter": &counter} {
					if err := tx.Get(key, dest); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
						return err
					}
				}
				if len(holders) == 0 || holders[len(holders)-1].Fence != fence {
					holders = append(holders, holding{fence, j.Name, 0})
				}
				holders[len(holders)-1].Writes++
				counter++
				return errors.Join(tx.Put("holders", holders), tx.Put("counter", counter))
			})
			switch {
			case err == nil:
				say(fmt.Sprintf("wrote %d %d", fence, counter))
			case errors.Is(err, roomkv.ErrLeaseLost):
				say(fmt.Sprintf("refused %d", fence))
				lost = true
			default: // it may be stored
				say(fmt.Sprintf("doubts %d", fence))
			}
			time.Sleep(rand.N(30 * time.Millisecond))
		}
	}
}

// probe writes into the room now and then until ctx ends, and gives how long each write takes. A busy machine slows down all that is measured.
func probe(ctx context.Context, client *mautrix.Client, room id.RoomID, took func(time.Duration)) {
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		_, _ = client.SendStateEvent(ctx, room, event.Type{Type: "com.example.probe", Class: event.StateEventType}, "", map[string]any{"n": n})
		took(time.Since(began))
		time.Sleep(time.Second)
	}
}

// hearing is what processes have said that want a lease.
type hearing struct {
	*crowd
	fence     int64     // the highest of the holders that have written
	by        int       // its process
	first     time.Time // when it said so for the first time
	held      time.Time // when a process has said last that it has the lease
	ended     int       // processes
	holders   map[int64]int
	fences    map[int]int64 // of each acknowledged write, by what it has made the counter
	writes    map[int64]int // acknowledged ones of each holder
	uncertain map[int64]int // writes of each holder that may be stored and were not acknowledged
	refused   map[int64]bool
	failed    int
}

func (h *hearing) hear(s said) {
	var fence int64
	var counter int
	if s.line != "" && s.line != "failed" {
		_, _ = fmt.Sscanf(s.line, "%s %d %d", new(string), &fence, &counter)
		require.Positive(h.t, fence, s.line)
	}
	switch what, _, _ := strings.Cut(s.line, " "); what {
	case "":
		h.ended++
	case "failed":
		h.failed++
	case "holds":
		assert.NotContains(h.t, h.holders, fence, "a fence has one holder")
		h.holders[fence], h.held = s.by, s.at
		h.uncertain[fence]++ // the last write of a process that is killed
	case "wrote":
		assert.NotContains(h.t, h.fences, counter, "writes %d and %d of the holders have made the counter the same", h.fences[counter], fence)
		h.fences[counter] = fence
		h.writes[fence]++
		if fence > h.fence {
			h.fence, h.by, h.first = fence, s.by, s.at
		}
	case "refused":
		h.refused[fence] = true
		h.uncertain[fence]-- // it was not killed in a write
	case "doubts":
		h.uncertain[fence]++
	}
}

// listen hears what is said within a time, or until done.
func (h *hearing) listen(within time.Duration, done func() bool) {
	for over := time.After(within); !done(); {
		select {
		case s := <-h.said:
			h.hear(s)
		case <-over:
			return
		}
	}
}

func never() bool { return false }

// Of five processes that want one lease the holder is killed, 30 times, or suspended until another has the lease. Another one writes soon after that,
// and no write counts of somebody who has lost the lease.
func TestLeasesOfKilledProcesses(t *testing.T) {
	long(t)
	client, j := shared(t)
	j.Do, j.Lossy = "lease", true
	h := &hearing{crowd: newCrowd(t, j), holders: map[int64]int{}, fences: map[int]int64{}, writes: map[int64]int{}, uncertain: map[int64]int{}, refused: map[int64]bool{}}
	for range 5 {
		h.start(0)
	}
	var gone int64   // the fence of the one that was killed
	var at time.Time // when
	var within []time.Duration
	var mu sync.Mutex
	var slow time.Duration // the slowest write of the probe since then
	go probe(t.Context(), twin(t, client), j.Room, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		slow = max(slow, d)
	})
	next := func() {
		h.listen(4*leaseTTL, func() bool { return h.fence > gone })
		mu.Lock()
		defer mu.Unlock()
		require.Greater(t, h.fence, gone, "nobody writes")
		if gone > 0 {
			after := h.first.Sub(at)
			within = append(within, after)
			t.Logf("fence %d: held after %s, written after %s, a write into the room takes %s at most", h.fence, h.held.Sub(at).Round(time.Millisecond), after.Round(time.Millisecond), slow.Round(time.Millisecond))
			assert.Less(t, after, leaseTTL+3*time.Second+5*slow, "until another writes") // to take the lease and to write is some 5 writes, where others try the same
		}
	}
	suspended := map[int64]int{}
	for round := range *leaseKills + (*leaseKills+5)/6 {
		next()
		pause := 3 * time.Second
		if round%4 == 3 {
			pause = leaseTTL / 2 // in which it is renewed
		}
		h.listen(rand.N(pause), never)
		gone, at = h.fence, time.Now()
		mu.Lock()
		slow = 0
		mu.Unlock()
		by := h.by
		if round%7 != 1 {
			h.kill(by)
			h.start(0)
			continue
		}
		require.NoError(t, faults.Stop(h.processes[by].cmd.Process))
		h.start(0)
		next()
		suspended[gone] = by
		require.NoError(t, faults.Resume(h.processes[by].cmd.Process))
		h.listen(10*time.Second, func() bool { return h.refused[gone] })
		assert.True(t, h.refused[gone], "the process that was suspended learns that it has lost the lease")
		h.kill(by)
		gone = 0
	}
	next()
	h.listen(time.Second, never)
	for by := range h.processes {
		_ = h.processes[by].cmd.Process.Kill() // most are dead
	}
	h.listen(time.Minute, func() bool { return h.ended == len(h.processes) })
	require.Len(t, h.processes, h.ended)

	store := open(t, twin(t, client), j.Room)
	holders, err := roomkv.Get[[]holding](t.Context(), store, "holders")
	require.NoError(t, err)
	counter, err := roomkv.Get[int](t.Context(), store, "counter")
	require.NoError(t, err)
	sum, unacknowledged := 0, 0
	for i, holder := range holders {
		if i > 0 {
			assert.Greater(t, holder.Fence, holders[i-1].Fence, "a holder has written after a later one")
		}
		assert.Equal(t, fmt.Sprint(h.holders[holder.Fence]), holder.By, "fence %d", holder.Fence)
		acknowledged := h.writes[holder.Fence]
		assert.GreaterOrEqual(t, holder.Writes, acknowledged, "writes of fence %d", holder.Fence)
		assert.LessOrEqual(t, holder.Writes, acknowledged+h.uncertain[holder.Fence], "writes of fence %d", holder.Fence)
		sum += holder.Writes
		unacknowledged += holder.Writes - acknowledged
	}
	assert.Equal(t, counter, sum)
	last := int64(0)
	for _, n := range slices.Sorted(maps.Keys(h.fences)) {
		assert.GreaterOrEqual(t, h.fences[n], last, "write %d", n)
		last = h.fences[n]
	}
	for fence := range h.writes {
		assert.True(t, slices.ContainsFunc(holders, func(h holding) bool { return h.Fence == fence }), "the writes of fence %d are lost", fence)
	}
	slices.Sort(within)
	t.Logf("another wrote after %s at most, %s in the middle of %d; %d holders, %d suspended; %d writes, %d of them not acknowledged; %d calls of Lease failed",
		within[len(within)-1].Round(time.Millisecond), within[len(within)/2].Round(time.Millisecond), len(within), len(h.holders), len(suspended), counter, unacknowledged, h.failed)
}

// eventEvery is how often an event comes that replicas are to deal with once. All get it at the same time.
const eventEvery = 200 * time.Millisecond

// once deals with the events from j.From on, each with a line before and one after the call.
func (j job) once(ctx context.Context, store *roomkv.Store, say func(string)) {
	for n := j.From; n < j.Times; n++ {
		time.Sleep(time.Until(j.Since.Add(time.Duration(n)*eventEvery + rand.N(10*time.Millisecond))))
		say(fmt.Sprintf("asks %d", n))
		mine, err := store.Once(ctx, id.EventID(fmt.Sprintf("$event%d", n)), time.Hour)
		switch {
		case err != nil:
			say(fmt.Sprintf("failed %d", n))
		case mine:
			say(fmt.Sprintf("done %d", n))
		default:
			say(fmt.Sprintf("left %d", n))
		}
	}
}

// Of four replicas that get the same events each is killed now and then, and begins again a few events earlier. No event is dealt with twice, and each
// is dealt with where nobody was killed in a call for it.
func TestOnceOfKilledProcesses(t *testing.T) {
	long(t)
	for _, layout := range []string{"shards", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			_, j := shared(t)
			j.Do, j.Lossy, j.Layout, j.Times = "once", true, layout, *onceEvents
			onceOfKilled(t, newCrowd(t, j))
		})
	}
}

func onceOfKilled(t *testing.T, c *crowd) {
	const replicas = 4
	type replica struct {
		event            int  // the last that it has asked for
		asking           bool // without an answer
		killed, hasEnded bool
		deals            int
	}
	states := map[int]*replica{}
	begin := func(from int) {
		states[len(c.processes)] = &replica{event: from}
		c.start(from)
	}
	c.job.Since = time.Now().Add(3 * time.Second) // when they have started
	for range replicas {
		begin(0)
	}
	done, failed, killedIn := map[int]int{}, map[int]int{}, map[int]bool{}
	kills := 0
	began := time.Now()
	for live := replicas; live > 0; {
		s := <-c.said
		r := states[s.by]
		var what string
		var event int
		_, _ = fmt.Sscanf(s.line, "%s %d", &what, &event)
		switch what {
		case "asks":
			r.event, r.asking = event, true
			continue
		case "requests":
			r.hasEnded = true
			continue
		case "":
			if r.asking {
				killedIn[r.event] = true
			}
			if r.killed && !r.hasEnded {
				begin(max(0, r.event-rand.IntN(5)))
				continue
			}
			require.True(t, r.hasEnded, "a worker has failed")
			live--
			continue
		case "done":
			done[event]++
			r.deals++
		case "failed":
			failed[event]++
		}
		r.asking = false
		if rand.IntN(60) == 0 && !r.killed {
			time.Sleep(rand.N(2 * eventEvery)) // so that some are killed in a call
			r.killed = true
			c.kill(s.by)
			kills++
		}
	}
	lost := 0
	for event := range c.job.Times {
		assert.LessOrEqual(t, done[event], 1, "event %d is dealt with twice", event)
		if done[event] == 0 {
			lost++
			assert.True(t, killedIn[event] || failed[event] > 0, "nobody deals with event %d", event)
		}
	}
	var deals []int
	for _, by := range slices.SortedFunc(maps.Keys(states), cmp.Compare[int]) {
		deals = append(deals, states[by].deals)
	}
	t.Logf("%s: %d kills, during calls for %d events; %d calls failed; %d events are dealt with, %d by nobody; by process %v",
		time.Since(began).Round(time.Second), kills, len(killedIn), len(failed), len(done), lost, deals)
}
