package memory

import (
	"context"
	"iter"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// Room is a room with a store's settings: the requests for its memory, and what this process knows of its dicts.
type Room struct {
	matrix.Room
	*Shared
}

// InState is the memory in the room's state.
func (r Room) InState() Memory {
	if dict, ok := r.Layout.(OneDict); ok {
		return inDict{r, dict.Key}
	}
	return inEvents{r}
}

// Of is another room with the same settings.
func (r Room) Of(room id.RoomID) Room { return r.Shared.Room(room) }

// Address names the dict under the state key.
func (r Room) Address(stateKey string) commit.Dict {
	return commit.Dict{Room: r.ID, Type: r.Type.Type, StateKey: stateKey}
}

// Replica is what this process knows of the dict under the state key, nil where nobody has asked.
func (r Room) Replica(stateKey string) *commit.Replica { return r.Dicts.Find(r.Address(stateKey)) }

// Dict is Replica, or a new one where nobody has asked.
func (r Room) Dict(stateKey string) *commit.Replica {
	return r.Dicts.Get(r.Address(stateKey), func() *commit.Replica {
		mode := commit.Mode{Single: r.SingleWriter, OneName: !r.Layout.Atomic(), Doubt: r.Doubt, Drop: r.RedactOld}
		return commit.NewReplica(Place{r, stateKey}, mode)
	})
}

// View reads the dict under the state key; see [commit.Replica.ReadView]. What nobody asks for again is not kept.
func (r Room) View(ctx context.Context, stateKey string, agree func(view, current map[string]string) bool) (*replica.View, error) {
	live := r.Follower.Live(r.ID)
	d := r.Replica(stateKey)
	if live {
		d = r.Dict(stateKey)
	}
	if d != nil {
		return d.ReadView(ctx, live, agree)
	}
	current, err := Place{r, stateKey}.Current(ctx)
	if err == nil && current == nil && r.Layout.Atomic() {
		return r.Dict(stateKey).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// Afresh is the dict under the state key as the homeserver has it now.
func (r Room) Afresh(ctx context.Context, stateKey string) (*replica.View, error) {
	for {
		d := r.Dict(stateKey)
		if err := d.Read(ctx, true); err != nil {
			return nil, err
		}
		if view := d.View(); view != nil { // else the sync has skipped events meanwhile
			return view, view.Err
		}
	}
}

// ViewOf is what one event says.
func (r Room) ViewOf(evt *matrix.Event) *replica.View {
	read := r.Parsed(evt)
	return replica.ViewOf(&read)
}

// Parsed is the event as package merge takes it.
func (r Room) Parsed(evt *matrix.Event) merge.Event { return Place{r, *evt.StateKey}.parsed(evt) }

// Get returns the current event of the store's type with the state key, or nil where there is none.
func (r Room) Get(ctx context.Context, stateKey string) (*matrix.Event, error) {
	return r.State(ctx, r.Type, stateKey)
}

// Page gives a page of the memory's events; see [matrix.Room.Back].
func (r Room) Page(ctx context.Context, from string, limit int) (matrix.Page, error) {
	page, err := r.Back(ctx, r.Type, from, limit)
	r.learn(page)
	return page, err
}

// How many events a page of [Room.Pages] has, and how many pages are read at most where a memory is looked through.
const (
	PageEvents = 50
	MostPages  = 20
)

// Pages are the memory's latest events, from the latest back to the room's first one, at most [MostPages] pages of them.
func (r Room) Pages(ctx context.Context) iter.Seq2[matrix.Page, error] {
	return func(yield func(matrix.Page, error) bool) {
		from := ""
		for range MostPages {
			page, err := r.Page(ctx, from, PageEvents)
			if !yield(page, err) || err != nil || page.Next == "" {
				return
			}
			from = page.Next
		}
	}
}

// learn notes what a page says of the room, a chance that costs nothing.
func (r Room) learn(page matrix.Page) {
	if page.Encrypted {
		r.Encrypted.Set(r.ID, true, false)
	}
	if r.Seen != nil {
		r.Seen(r.ID, page)
	}
}

// find is [Memory.Find] in the dict under the state key.
func (r Room) find(ctx context.Context, stateKey, name string, afresh bool) (*Record, error) {
	var view *replica.View
	var err error
	if afresh {
		d := r.Dict(stateKey)
		if err = d.Read(ctx, true); err == nil {
			view = d.View()
		}
	}
	if view == nil && err == nil {
		view, err = r.View(ctx, stateKey, func(view, current map[string]string) bool {
			a, inView := view[name]
			b, isCurrent := current[name]
			return inView == isCurrent && a == b
		})
	}
	if err == nil && view.Err == nil {
		err = r.CheckNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return RecordOf(view, name), nil
}
