package flush

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/policy"
)

const (
	// MostBytes is how much of a process's memory may wait, about, in bytes.
	MostBytes = 16 << 20

	// parallel is how many rooms are written at the same time. As many writes can be refused at once when a homeserver begins to limit them.
	parallel = 4

	// tries is how often a request is made again, so that what cannot be made twice is not given up while a homeserver is down for a while: for about
	// 45 minutes with mautrix's waits.
	tries = 12
)

// Waiting is what waits in all rooms of the stores that come from one New. The exported fields are set before the first use. Methods are safe for
// concurrent use.
type Waiting struct {
	Every      time.Duration // how long edits wait for others
	Background *background.Group
	Memory     func(room id.RoomID) Memory
	Policy     *policy.Policy // nil for the default
	Log        *zerolog.Logger

	slots chan struct{} // holds an element for each room that is written

	mu     sync.Mutex // guards what follows, and what each room has; nobody waits for anything while they hold it
	rooms  map[id.RoomID]*Room
	size   int           // of all that waits, in bytes
	freed  chan struct{} // closed when that gets less; nil where nobody waits for it
	closed bool
	failed error     // why the first of the edits that were given up was, since somebody was last told
	told   time.Time // when the log last said that edits wait for long
}

// New returns what waits in no room yet.
func New(every time.Duration) *Waiting {
	return &Waiting{Every: every, slots: make(chan struct{}, parallel), rooms: map[id.RoomID]*Room{}}
}

// Room is the memory of a room with what waits there.
func (w *Waiting) Room(room id.RoomID) *Room {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rooms[room]
	if r == nil {
		r = &Room{Memory: w.Memory(room), of: w, id: room, updating: make(chan struct{}, 1), waiting: map[string]*edit{}}
		w.rooms[room] = r
	}
	return r
}

// Flush has all that waits sent at once, and waits until that is done. The error is the first of all that could not be sent since the last Flush
// that returned one, or ctx's, where that ends first.
func (w *Waiting) Flush(ctx context.Context) error {
	w.mu.Lock()
	var all [][]*attempt // by room
	for _, r := range w.rooms {
		if attempts := r.hurry(); len(attempts) > 0 {
			all = append(all, attempts)
		}
	}
	w.mu.Unlock()
	var kept error
	for i, attempts := range all {
		err, ended := last(ctx, attempts)
		if ended {
			return fault.Because(ctx.Err(), "%v: what waits in up to %d rooms has not been sent", ctx.Err(), len(all)-i)
		}
		kept = cmp.Or(kept, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := cmp.Or(w.failed, kept)
	w.failed = nil
	return failed
}

// Close is a last Flush: from then on nothing waits, and writes are sent as they come. Background must be closed then. What could not be sent is
// lost.
func (w *Waiting) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.Flush(ctx)
}

// Abandon gives up what still waits.
func (w *Waiting) Abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rooms {
		clear(r.waiting)
		r.sending = nil
		for _, a := range []*attempt{r.current, r.next} {
			a.end(errClosed)
		}
		r.current, r.next = nil, nil
	}
	w.free(w.size)
}

// reserve waits while too much waits.
func (w *Waiting) reserve(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.size >= MostBytes && !w.closed {
		for _, r := range w.rooms {
			r.hurry()
		}
		if w.freed == nil {
			w.freed = make(chan struct{})
		}
		freed := w.freed
		w.mu.Unlock()
		var err error
		select {
		case <-freed:
		case <-ctx.Done():
			err = fault.Because(ctx.Err(), "%v: %d bytes wait to be sent, and no more are kept", ctx.Err(), MostBytes)
		}
		w.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// free notes that so many bytes wait no longer.
func (w *Waiting) free(size int) {
	w.size -= size
	if size > 0 && w.freed != nil {
		close(w.freed)
		w.freed = nil
	}
}

// giveUp notes an edit that is not tried again.
func (w *Waiting) giveUp(room id.RoomID, key string, err error) {
	w.mu.Lock()
	w.failed = cmp.Or(w.failed, err)
	w.mu.Unlock()
	explain(w.Log.Warn(), err).Stringer("room_id", room).Str("key", key).Msg("A write that was kept back has failed, and is dropped")
}

// explain adds an error to a line of the log. The text of a caller's own can have a value in it.
func explain(line *zerolog.Event, err error) *zerolog.Event {
	if fault.Told(err) {
		return line.Err(err)
	}
	return line.Type("error_type", err)
}
