// Package inbox gives what a client's sync brings to handlers, and keeps how far that has gone.
//
// Handlers get the events of a room in order, one after the other. Rooms go on beside each other. Handlers run outside of the sync's goroutine, so that one
// that waits for the sync gets what it waits for.
//
// The sync's token is saved when everything before it was handled, with the IDs of what was handled since. After a restart the homeserver tells again
// what came after the token, and the inbox leaves out what has one of these IDs. So nothing is missed. What was handled and saved is not told again. An
// event whose handler was interrupted by the end of the process is told again.
package inbox

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Config says what an inbox tells and where it keeps how far it has gone.
type Config struct {
	Self      id.UserID // the client's user
	OwnEvents bool      // whether handlers are told of the user's own events
	OldEvents bool      // whether handlers are told of what the first sync brings, and of what was in a room before the user joined it

	Storage Storage
	Log     zerolog.Logger

	// Decrypt decrypts an event that the sync did not bring. It is nil where the client has no keys. Then encrypted events are told as they are.
	Decrypt func(ctx context.Context, evt *event.Event) (*event.Event, error)

	// Page asks for a page of at most limit of the room's events, from a token in a direction, up to the token to unless that is empty.
	Page func(ctx context.Context, room id.RoomID, from, to string, dir mautrix.Direction, limit int) (*mautrix.RespMessages, error)

	Limits Limits
}

// Limits bound what an inbox takes. Each that is 0 has a default.
type Limits struct {
	Rooms int // in how many rooms handlers run at once; 256
	Kept  int // how many events wait or were handled after the saved token, before the sync waits; 10,000
	Gap   int // how many events of one room are asked for at once, where the sync left them out; 10,000

	Order   time.Duration // how long a room's events wait for one whose key is not there; 5 seconds
	Decrypt time.Duration // after how long such an event is told as it is; 30 seconds, for cryptohelper waits 25
	Retry   time.Duration // how long to wait after the first request that failed; a second, and twice as long each time, up to a minute
}

func (l Limits) orDefault() Limits {
	or := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	after := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	or(&l.Rooms, 256)
	or(&l.Kept, 10_000)
	or(&l.Gap, 10_000)
	after(&l.Order, 5*time.Second)
	after(&l.Decrypt, 30*time.Second)
	after(&l.Retry, time.Second)
	return l
}

// Inbox is what the sync has brought and handlers have yet to handle. Methods are safe for concurrent use, but [Inbox.Begin] and [Inbox.End], which the
// goroutine of the sync calls in turns.
type Inbox struct {
	config Config
	limits Limits

	ctx    context.Context // of handlers
	cancel context.CancelFunc
	halt   chan struct{} // closed when nothing more is to begin
	dirty  chan struct{} // has one element where there is something to save
	saved  chan struct{} // closed when nothing is saved any more

	saving sync.Mutex // held while the state is written

	mu       sync.Mutex
	handlers []handler
	tasks    map[string]json.RawMessage

	token   string       // all before it was handled
	again   []id.EventID // handled after the token by an earlier process, until the first batch begins
	recent  []id.EventID // handled last before the token, the latest last
	batches []*batch     // what came after the token, the oldest first
	filling *batch       // the last one, between Begin and End
	known   map[id.EventID]*batch
	kept    int           // how many events wait or were handled after the token
	space   chan struct{} // closed when there is space again, nil where nobody waits for it

	rooms    map[id.RoomID]*room // those in which something waits or is being handled
	ready    []*room             // those whose first event can be handled, in the order of their turns
	working  int                 // how many goroutines handle
	idle     chan struct{}       // closed when none does any more, nil where nobody waits for it
	stopping bool
	awaiting map[id.EventID]*item        // events without their key
	early    map[id.EventID]*event.Event // what was decrypted, or nil, between Begin and End
}

// handler is a handler of events of one type.
type handler struct {
	of     event.Type
	handle mautrix.EventHandler
}

// New makes an inbox that [Inbox.Start] starts.
func New(config Config) *Inbox {
	return &Inbox{
		config: config, limits: config.Limits.orDefault(),
		halt: make(chan struct{}), dirty: make(chan struct{}, 1), saved: make(chan struct{}),
		tasks: map[string]json.RawMessage{}, known: map[id.EventID]*batch{}, rooms: map[id.RoomID]*room{}, awaiting: map[id.EventID]*item{},
	}
}

// Start reads what was saved, and saves what comes. Handlers get the values of ctx, and end with [Inbox.Stop]. Where Start fails nothing has begun. The error
// is that of the storage, or says what is wrong with what is there.
func (i *Inbox) Start(ctx context.Context) error {
	if err := i.load(); err != nil {
		return err
	}
	i.ctx, i.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go i.keepSaved()
	return nil
}

// On registers a handler of events of a type. Of a type without a class all events count that have its name. Events of m.room.encrypted are told where they
// cannot be decrypted.
func (i *Inbox) On(eventType event.Type, handle mautrix.EventHandler) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers = append(i.handlers, handler{eventType, handle})
}

// handlersOf are the handlers of an event. The caller has the lock.
func (i *Inbox) handlersOf(evt *event.Event) (found []mautrix.EventHandler) {
	for _, h := range i.handlers {
		if h.of.Type == evt.Type.Type && (h.of.Class == event.UnknownEventType || h.of.Class == evt.Type.Class) {
			found = append(found, h.handle)
		}
	}
	return found
}

// Since is the token with which the sync begins, "" for a first sync.
func (i *Inbox) Since() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.token
}

// Stop begins nothing more, and waits until handlers have returned. When ctx ends, their contexts end, and they have a second more. Then the state is saved.
// An event whose handler has not returned before its context ended is told again at the next start. The error is that of the storage.
func (i *Inbox) Stop(ctx context.Context) error {
	i.mu.Lock()
	if i.stopping || i.ctx == nil {
		i.mu.Unlock()
		return nil
	}
	i.stopping = true
	close(i.halt)
	for _, it := range i.awaiting {
		it.timer.Stop()
	}
	idle := make(chan struct{})
	if i.idle = idle; i.working == 0 {
		close(idle)
	}
	i.mu.Unlock()

	select {
	case <-idle:
	case <-ctx.Done():
		i.cancel()
		select {
		case <-idle:
		case <-time.After(time.Second):
			i.config.Log.Warn().Msg("Handlers have not ended in time. Their events are told again at the next start.")
		}
	}
	i.cancel()
	<-i.saved
	return i.save()
}
