package commit

import (
	"context"
	"sync"

	"maunium.net/go/mautrix/id"
)

// Dict names a dict. Room IDs are unique across homeservers, so that clients of several accounts or servers
// in one process meet at the same lock.
type Dict struct {
	Room     id.RoomID
	Type     string
	StateKey string
}

// held has a lock for each dict that somebody holds or waits for, and no other, so that it stays small in a
// process that lives for years.
var (
	mu   sync.Mutex
	held = map[Dict]*lock{}
)

type lock struct {
	turn chan struct{} // holds one element while nobody has the lock
	refs int           // holders and waiters, guarded by mu
}

// Lock waits until the caller alone may write to dict, or until ctx ends, and then returns its error.
func Lock(ctx context.Context, dict Dict) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	mu.Lock()
	l := held[dict]
	if l == nil {
		l = &lock{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		held[dict] = l
	}
	l.refs++
	mu.Unlock()

	select {
	case <-l.turn:
		return func() {
			l.turn <- struct{}{}
			release(dict, l)
		}, nil
	case <-ctx.Done():
		release(dict, l)
		return nil, ctx.Err()
	}
}

func release(dict Dict, l *lock) {
	mu.Lock()
	defer mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(held, dict)
	}
}
