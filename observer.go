package roomkv

import (
	"cmp"
	"context"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/meter"
)

// Observer is told of each operation of the stores that come from one [New]; see [WithObserver]. Its methods are called concurrently, and an operation
// waits for them: they must not block, nor use the stores. If one of them panics, so does the store's method that was called. A panic in the background ends
// the program.
type Observer interface {
	// Start is called when an operation begins. It returns the context for the rest of the operation: ctx, or one made from it. The requests have that
	// context too, so that the client's HTTP transport can find a span in it, for example.
	Start(ctx context.Context, op Operation) context.Context

	// End is called once for each Start, when the operation has ended, with the context that Start has returned.
	End(ctx context.Context, op Operation, outcome Outcome)
}

// Operation is what an [Observer] is told of. It never has a value.
type Operation struct {
	// Kind is the name of the method or function: "Get", "PutAll", "Update", "Snapshot.Entry". What the stores do in the background has a kind in lower
	// case. "send" sends what has waited for a flush. "renew" renews a [Lease]. "repair" looks for what nobody else has merged, and merges it. "move" moves a
	// memory from account data into the state.
	Kind string

	// Room is the ID of the store's room, or an alias that is not resolved yet. It is empty for Rooms, Flush and Close.
	Room   id.RoomID
	Layout string   // "single", "per-key" with [WithPerKeyState], or "shards" with [WithShards]
	Keys   []string // the keys that the call names, with the prefix of a [Store.Sub]; nil without [WithObservedKeys]
}

// Outcome is what an [Operation] has taken, and what kind of error it had.
type Outcome struct {
	Duration time.Duration // until the method has returned, or the loop has ended
	Requests int           // all of them, also those that repeat another
	Retries  int           // how many of them repeat another
	Sent     int64         // bytes of the bodies of requests
	Received int64         // bytes of the bodies of answers, as far as they were read
	Merges   int           // state events that merge what several writers have written

	// Error is empty where there was none. Else it is the name of an error of this package, such as "ErrNotFound"; "context.Canceled" or
	// "context.DeadlineExceeded"; a status such as "HTTP 502"; "no answer"; "panic"; or "other", for example if the function given to [Update] returned
	// an error. An operation that is a loop has the last error that the loop was given.
	Error string
}

// running is an operation that goes on. A nil one is of a store that nobody observes.
type running struct {
	observer Observer
	ctx      context.Context // as Start has given it
	op       Operation
	room     func() id.RoomID // by now
	began    time.Time
	meter    meter.Meter
	last     error // of an iteration
}

// start begins an operation.
func start(ctx context.Context, observer Observer, op Operation, room func() id.RoomID) (context.Context, *running) {
	op.Room = room()
	r := &running{observer: observer, op: op, room: room, began: time.Now()}
	r.ctx = cmp.Or(observer.Start(ctx, op), ctx)
	return r.meter.In(r.ctx), r
}

// end ends the operation with an error, or with the last one that was noted where err is nil. It is deferred.
func (r *running) end(err *error) {
	if r == nil {
		return
	}
	panicked := recover()
	class := matrix.Class(*cmp.Or(err, &r.last))
	if panicked != nil {
		class = "panic"
	}
	r.op.Room = r.room()
	took := r.meter.Close()
	r.observer.End(r.ctx, r.op, Outcome{Duration: time.Since(r.began), Requests: took.Requests, Retries: took.Retries, Sent: took.Sent,
		Received: took.Received, Merges: took.Merges, Error: class})
	if panicked != nil {
		panic(panicked)
	}
}

// noting is a yield that notes the last error for the operation.
func noting[T any](r *running, yield func(T, error) bool) func(T, error) bool {
	if r == nil {
		return yield
	}
	return func(value T, err error) bool {
		r.last = cmp.Or(err, r.last)
		return yield(value, err)
	}
}
