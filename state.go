package roomkv

import (
	"context"
	"iter"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/replica"
)

// roomState is the state of one room, of one event type: the requests that everything else is made of.
// mautrix's own calls are not used for them, for these log contents and give up on a response in which one
// event's content is not an object.
type roomState struct {
	matrix.Room
	core      *core
	eventType event.Type

	dead error // why nothing may be written here, nil where it may

	waitUntil time.Time         // when reads no longer wait for missing keys, zero where each has its own time
	stateOnly bool              // whether writes never go to account data
	done      func(name string) // told of each name that was written where that is one event for each, from several goroutines; may be nil
	keysOnly  bool              // whether values in the media repository are left there, because only the keys are asked for
}

// waitingTogether is for several reads that together wait for missing keys no longer than one does.
func (r roomState) waitingTogether() roomState {
	r.waitUntil = time.Now().Add(r.core.keyWait)
	return r
}

// notWaiting is for reads that do not wait for missing keys.
func (r roomState) notWaiting() roomState {
	r.waitUntil = time.Now()
	return r
}

// address names the dict under the state key.
func (r roomState) address(stateKey string) commit.Dict {
	return commit.Dict{Room: r.ID, Type: r.eventType.Type, StateKey: stateKey}
}

// replica is what this process knows of the dict under the state key, nil where nobody has asked.
func (r roomState) replica(stateKey string) *commit.Replica {
	return r.core.dicts.Find(r.address(stateKey))
}

// dict is what the state event with the state key holds.
func (r roomState) dict(stateKey string) *commit.Replica {
	return r.core.dicts.Get(r.address(stateKey), func() *commit.Replica {
		mode := commit.Mode{Single: r.core.singleWriter, OneName: r.core.layout.oneKey(), Doubt: r.core.fallback, Drop: r.core.redact}
		return commit.NewReplica(place{r, stateKey}, mode)
	})
}

// view reads the dict under the state key; see [commit.Replica.ReadView]. What nobody asks for again is not kept.
func (r roomState) view(ctx context.Context, stateKey string, agree func(view, current map[string]string) bool) (*replica.View, error) {
	live := r.core.follower.Live(r.ID)
	d := r.replica(stateKey)
	if live {
		d = r.dict(stateKey)
	}
	if d != nil {
		return d.ReadView(ctx, live, agree)
	}
	current, err := place{r, stateKey}.Current(ctx)
	if err == nil && current == nil && !r.core.layout.oneKey() {
		return r.dict(stateKey).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// viewOf is what one event says.
func (r roomState) viewOf(evt *matrix.Event, stateKey string) *replica.View {
	read := place{r, stateKey}.snapshot(evt)
	return replica.ViewOf(&read)
}

// in is the state of another room.
func (r roomState) in(room id.RoomID) roomState {
	r.ID, r.dead = room, nil
	return r
}

// get returns the current event of the store's type with the state key, or nil where there is none.
func (r roomState) get(ctx context.Context, stateKey string) (*matrix.Event, error) {
	return r.State(ctx, r.eventType, stateKey)
}

// page gives a page of the memory's events; see [matrix.Room.Back].
func (r roomState) page(ctx context.Context, from string, limit int) (matrix.Page, error) {
	page, err := r.Back(ctx, r.eventType, from, limit)
	r.learn(page)
	return page, err
}

// pages are the memory's latest events, at most so many pages of them, from the latest back to the room's first one; see [matrix.Room.Back].
func (r roomState) pages(ctx context.Context, most int) iter.Seq2[matrix.Page, error] {
	return func(yield func(matrix.Page, error) bool) {
		from := ""
		for range most {
			page, err := r.page(ctx, from, watchPage)
			if !yield(page, err) || err != nil || page.Next == "" {
				return
			}
			from = page.Next
		}
	}
}

// learn notes what a page says of the room, a chance that costs nothing.
func (r roomState) learn(page matrix.Page) {
	if page.Encrypted {
		r.core.encrypted.Set(r.ID, true, false)
	}
	for _, tombstone := range page.Tombstones {
		r.core.upgrades.doubt(r.ID, tombstone)
	}
}

// scan visits the memory's events; see [matrix.Room.Scan].
func (r roomState) scan(ctx context.Context, begin func() matrix.Visit) (powers []int64, err error) {
	return r.Scan(ctx, r.eventType, begin)
}

// scanAll is scan by the whole state; see [matrix.Room.ScanAll].
func (r roomState) scanAll(ctx context.Context, begin func() matrix.Visit) error {
	return r.ScanAll(ctx, r.eventType, begin)
}
