package replica_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

func snapshot(event id.EventID, time int64, value string, parents ...id.EventID) merge.Event {
	return merge.Event{ID: event, Time: time, Dict: map[string]string{"k": value}, Parents: parents, Marked: true}
}

// loaded is a dict that was read when $2 was current.
func loaded() *replica.Dict {
	d := new(replica.Dict)
	d.Do(func(h *merge.History) { h.Add(snapshot("$2", 2, "2", "$1")) })
	d.Checked(d.Epoch(), time.Now())
	return d
}

func TestOnlyWhatWasReadIsKnown(t *testing.T) {
	d := new(replica.Dict)
	assert.Nil(t, d.View())
	d.Feed(snapshot("$1", 1, "1"))
	d.Look(func(h *merge.History) { assert.Zero(t, h.Len(), "nobody has asked") })
	release := d.Use()
	d.Feed(snapshot("$1", 1, "1"))
	d.Look(func(h *merge.History) { assert.Equal(t, 1, h.Len(), "somebody is about to read") })
	assert.Nil(t, d.View())
	release()
}

func TestFeed(t *testing.T) {
	d := loaded()
	changed := d.Changed()
	d.Feed(snapshot("$3", 3, "3", "$2"))
	assert.NotNil(t, d.View())
	assert.Equal(t, "3", d.View().Names["k"])
	select {
	case <-changed:
	default:
		t.Error("whoever waits is told")
	}
}

// A sync can be behind what was read. What it brings then is no news; where nothing tells whether it is, the dict is read again. Later it
// counts in the order of the sync, whatever the clocks say.
func TestFeedOfThePast(t *testing.T) {
	plain := func(event id.EventID, time int64) merge.Event {
		return merge.Event{ID: event, Time: time, Dict: map[string]string{"k": event.String()}}
	}
	d := loaded()
	d.Feed(plain("$1", 1), snapshot("$2", 2, "2", "$1"), plain("$3", 3))
	assert.Equal(t, "$3", d.View().Names["k"])
	d.Feed(plain("$4", 1))
	assert.Equal(t, "$4", d.View().Names["k"], "whose homeserver's clock was set back")

	d = loaded()
	d.Feed(plain("$0", 1))
	assert.Nil(t, d.View())
}

// What a response brings of the past keeps its order.
func TestFeedOfThePastInOrder(t *testing.T) {
	plain := func(event id.EventID) merge.Event {
		return merge.Event{ID: event, Time: 1, Dict: map[string]string{"k": event.String()}}
	}
	d := loaded()
	d.Feed(plain("$a"), plain("$b"), plain("$c"), snapshot("$2", 2, "2", "$1"))
	d.Look(func(h *merge.History) {
		assert.True(t, h.Descends("$c", "$b"))
		assert.True(t, h.Descends("$b", "$a"))
	})
}

// A response can end before what is known: what it brings is older all the same.
func TestFeedOfThePastAlone(t *testing.T) {
	blind := merge.Event{ID: "$1", Time: 1, Dict: map[string]string{"k": "1"}, Blind: true, Mark: "mark of $1"}
	d := loaded()
	d.Feed(blind)
	assert.Equal(t, "2", d.View().Names["k"])
	d.Look(func(h *merge.History) { assert.True(t, h.Descends("$2", "$1")) })
}

func TestForget(t *testing.T) {
	d := loaded()
	before := d.Epoch()
	d.Forget()
	assert.Nil(t, d.View())
	d.Checked(before, time.Now())
	assert.Nil(t, d.View(), "who began before it was forgotten does not know it all")
	_, known := d.AsOf()
	assert.False(t, known)
}

// A fork whose base is out of sight is not served from.
func TestForkWithoutItsBase(t *testing.T) {
	d := loaded()
	d.Feed(snapshot("$3", 3, "3", "$unknown"))
	assert.Nil(t, d.View())
	d.Feed(snapshot("$4", 4, "4", "$2", "$3"))
	assert.Equal(t, "4", d.View().Names["k"])
}

// A dict that somebody forks for ever does not grow for ever.
func TestEndlessFork(t *testing.T) {
	d := loaded()
	for i := range 2500 {
		d.Feed(snapshot(id.EventID(fmt.Sprint("$fork ", i)), int64(i+3), "x", "$2"))
	}
	d.Look(func(h *merge.History) { assert.LessOrEqual(t, h.Len(), 2000) })
	assert.Nil(t, d.View())
}

// Whoever sees one event of a response sees the others.
func TestFeedIsAtOnce(t *testing.T) {
	var response []merge.Event
	for i := range 50 {
		response = append(response, snapshot(id.EventID(fmt.Sprint("$", i)), 1, "1"))
	}
	for range 200 {
		var d replica.Dict
		release := d.Use()
		go d.Feed(response...)
		for seen := 0; seen == 0; {
			d.Look(func(h *merge.History) { seen = h.Len() })
			require.Contains(t, []int{0, len(response)}, seen)
		}
		release()
	}
}

// Whoever writes finds again what it has sent, however much the sync brings meanwhile.
func TestNothingIsPrunedInUse(t *testing.T) {
	d := loaded()
	release := d.Use()
	for i := range 100 {
		d.Feed(snapshot(id.EventID(fmt.Sprint("$", i+3)), int64(i+3), "v", id.EventID(fmt.Sprint("$", i+2))))
	}
	d.Look(func(h *merge.History) { assert.True(t, h.Has("$3")) })
	release()
	d.Feed(snapshot("$103", 103, "v", "$102"))
	d.Look(func(h *merge.History) { assert.False(t, h.Has("$3")) })
}

// What the homeserver has said counts for so long, unless somebody says that there is something newer.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(replica.Dict)
		fresh := func(within time.Duration) bool { return d.Fresh(within) != nil }
		assert.False(t, fresh(time.Hour), "nothing is known")
		d.Do(func(h *merge.History) { h.Add(snapshot("$1", 1, "1")) })
		assert.False(t, fresh(time.Hour), "nobody has asked")
		d.Checked(0, time.Now())
		time.Sleep(time.Second)
		assert.True(t, fresh(time.Second+1))
		assert.False(t, fresh(time.Second))

		d.Shown(0, time.Now())
		d.Shown(0, time.Now().Add(-time.Minute))
		assert.True(t, fresh(1), "a reader was told")
		d.Doubt("$1", time.Now().Add(time.Second))
		assert.True(t, fresh(1), "that is known")
		assert.False(t, d.Doubted())
		d.Doubt("$2", time.Now())
		assert.False(t, fresh(time.Hour))
		assert.True(t, d.Doubted())
		d.Doubt("$3", time.Now().Add(-time.Minute))
		assert.False(t, fresh(time.Hour), "what is said late takes nothing back")

		time.Sleep(time.Second)
		asked := time.Now()
		time.Sleep(time.Second)
		d.Doubt("$4", time.Now())
		d.Shown(0, asked)
		d.Checked(0, asked)
		assert.False(t, fresh(time.Hour), "who asked before that does not know")
		time.Sleep(time.Nanosecond)
		d.Shown(0, time.Now())
		assert.True(t, fresh(time.Hour))

		d.Forget()
		assert.False(t, fresh(time.Hour))
		d.Shown(0, time.Now().Add(time.Hour))
		d.Checked(1, time.Now())
		assert.True(t, fresh(time.Hour))
		time.Sleep(2 * time.Second)
		assert.False(t, fresh(time.Second), "what was shown before it was forgotten")
	})
}

// A reader loads what it was given, unless the dict has changed meanwhile, somebody writes, or something is to be merged.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		current := snapshot("$2", 2, "2", "$1")
		d := new(replica.Dict)
		d.Load(d.Version(), time.Now(), &current)
		assert.Equal(t, id.EventID("$2"), d.View().Event)
		require.NotNil(t, d.Fresh(time.Second))
		epoch, version := d.Epoch(), d.Version()

		d.Load(version, time.Now(), nil)
		assert.Equal(t, &replica.View{}, d.View(), "there is nothing")
		assert.NotEqual(t, epoch, d.Epoch(), "who goes by the history must look again")

		version = d.Version()
		d.Do(func(h *merge.History) { h.Add(snapshot("$3", 3, "3", "$1")) })
		d.Load(version, time.Now(), &current)
		assert.Equal(t, id.EventID("$3"), d.View().Event, "somebody has read it later")

		done := d.Use()
		d.Load(d.Version(), time.Now(), &current)
		assert.Equal(t, id.EventID("$3"), d.View().Event, "somebody writes")
		done()

		d.Do(func(h *merge.History) { h.Add(snapshot("$4", 4, "4", "$1")) })
		d.Load(d.Version(), time.Now(), &current)
		assert.True(t, d.Has("$3"), "it is to be merged")
		assert.False(t, d.Has("$2"))
	})
}
