package memory

import (
	"context"
	"iter"

	"github.com/roomkv/roomkv/internal/matrix"
)

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
