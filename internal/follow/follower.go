// Package follow listens to a client's sync: it passes on what that brings, and tells whether the sync can be believed. It knows no memory.
package follow

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/lru"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/policy"
)

const (
	// maxBrought is how many events are remembered that the sync brought last.
	maxBrought = 5000

	// maxWait is how many responses of the sync may lack an event that the homeserver lists. Each but the first was asked for when that was
	// listed already. One that they all lack the sync leaves out.
	maxWait = 3
)

// Sink takes what the sync brings. Its methods are called by the goroutine of the sync, one after the other.
type Sink interface {
	// Missed tells that a whole response can be missing, with events of any room, and whether the next one begins anew and tells of all rooms
	// that have state of a type.
	Missed(tells func(event.Type) bool)

	// Left tells that the user is not in the room any more.
	Left(room id.RoomID)

	// Skipped tells that events of the room can be missing. What is known of the room is as old as if nobody followed.
	Skipped(room id.RoomID)

	// Joined takes what a response has of a room in which the user is. It returns those events of the timeline that are the store's.
	Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom, shows Shows) []*matrix.Event

	// Noticed tells that there is an event in a room, by the word of somebody else than a sync; see [Follower.StartEvents]. It is called by any number of
	// goroutines at once.
	Noticed(evt *event.Event)
}

// Shows tells of a response whether it has all of a room's state of the type: what it does not have is then not there.
type Shows func(event.Type) bool

// IsSettled tells whether a response shows a room's state as it is. Synapse shows that before the timeline and that after it, as the branches of the
// first event and the last have it. What stands on another branch was sent at the same time as the last event. It is listed where the timeline
// reaches back to well before that. The state after the timeline that MSC4222 has is that of all branches.
func IsSettled(joined *mautrix.SyncJoinedRoom, policy *policy.Policy) bool {
	events := joined.Timeline.Events
	if joined.StateAfter != nil || len(events) == 0 {
		return joined.StateAfter != nil
	}
	first, last := events[0], events[len(events)-1]
	return matrix.IsRooms(first, event.StateCreate) || last.Timestamp-first.Timestamp > 2*policy.Or().StoredLate.Milliseconds()
}

// Follower follows one client's sync. The exported fields are set before the first use. Methods are safe for concurrent use.
type Follower struct {
	Client    *mautrix.Client
	EventType event.Type // the store's
	Sink      Sink
	Policy    *policy.Policy // nil for the default

	from    atomic.Int32 // what it follows
	stopped atomic.Bool
	maxAge  time.Duration                      // set before from
	filter  atomic.Pointer[mautrix.RoomFilter] // the sync's, nil without one

	since    atomic.Int64 // where the homeserver had stored the last event before those of the last response, 0 where nothing tells
	response atomic.Int64 // when the last response came, in Unix nanoseconds
	ended    atomic.Pointer[<-chan struct{}]

	starting sync.Mutex // held by Start and StartEvents

	mu      sync.RWMutex
	next    string                          // the token of the response that must come now, if none is missed; empty where the last named none
	waiting map[id.RoomID]awaited           // what the sync must bring before it is believed again
	brought lru.Cache[id.EventID, struct{}] // what it has brought of late
}

// awaited is an event that the sync must bring.
type awaited struct {
	event     id.EventID
	responses int // that have come without it
}

// What a follower follows.
const (
	followsNothing int32 = iota
	followsSync
	followsEvents
)

// Start registers with the client's syncer, once. It fails with [fault.ErrInvalidOption] where the syncer takes no handlers, where its
// filter keeps the store's events back, after StartEvents, or after Stop.
func (f *Follower) Start() error {
	f.starting.Lock()
	defer f.starting.Unlock()
	switch {
	case f.stopped.Load():
		return errClosed()
	case f.from.Load() == followsEvents:
		return fault.Of(fault.ErrInvalidOption, nil, "cannot follow a sync: the store follows events")
	}
	syncer, ok := f.Client.Syncer.(mautrix.ExtensibleSyncer)
	if !ok {
		return fault.Of(fault.ErrInvalidOption, nil, "cannot follow: the client's Syncer is a %T, which takes no handlers; FollowEvents needs no Syncer", f.Client.Syncer)
	}
	if filter := f.Client.Syncer.GetFilterJSON(f.Client.UserID); filter != nil && filter.Room != nil {
		if !passes(filter.Room.Timeline, f.EventType) {
			return fault.Of(fault.ErrInvalidOption, nil, "cannot follow: the filter of the client's Syncer leaves %s events out of the timeline", f.EventType.Type)
		}
		f.filter.Store(filter.Room)
	}
	if f.from.Swap(followsSync) == followsNothing {
		syncer.OnSync(f.onSync)
	}
	return nil
}

func errClosed() error {
	return fault.Of(fault.ErrInvalidOption, nil, "cannot follow: the store was closed")
}

// passes tells whether a sync's filter lets events of the type through. In the filter an asterisk stands for any text (Client-Server API,
// filtering).
func passes(filter *mautrix.FilterPart, eventType event.Type) bool {
	if filter == nil {
		return true
	}
	is := func(t event.Type) bool {
		if !strings.Contains(t.Type, "*") {
			return t.Type == eventType.Type
		}
		like := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Type), `\*`, ".*") + "$"
		return regexp.MustCompile(like).MatchString(eventType.Type)
	}
	return (len(filter.Types) == 0 || slices.ContainsFunc(filter.Types, is)) && !slices.ContainsFunc(filter.NotTypes, is)
}

// passesAll tells whether a sync's filter lets all events of the type through, whoever sent them to whichever room.
func passesAll(filter *mautrix.FilterPart, eventType event.Type) bool {
	return filter == nil || passes(filter, eventType) && len(filter.Senders)+len(filter.NotSenders)+len(filter.Rooms)+len(filter.NotRooms) == 0 && filter.ContainsURL == nil
}

// tells tells whether the sync tells of all changes of the state of that type.
func (f *Follower) tells(eventType event.Type) bool {
	filter := f.filter.Load()
	return filter == nil || passesAll(filter.Timeline, eventType) && passesAll(filter.State, eventType)
}

// Live tells whether the sync brings what happens in the room, and nothing is known to be missing.
func (f *Follower) Live(room id.RoomID) bool {
	if !f.Going() {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, waits := f.waiting[room]
	return !waits
}

// Going tells whether the sync goes on.
func (f *Follower) Going() bool {
	if !f.Started() || time.Since(time.Unix(0, f.response.Load())) > f.Policy.Or().SyncSilence {
		return false
	}
	if ended := f.ended.Load(); ended != nil {
		select {
		case <-*ended:
			return false
		default:
		}
	}
	return true
}

// Age is how long ago the sync has last told something. It is not known where it never has.
func (f *Follower) Age() (age time.Duration, known bool) {
	last := f.response.Load()
	return time.Since(time.Unix(0, last)), last != 0
}

// Feeds tells whether the sync brings what is sent in ctx while the caller waits for it. It brings nothing to a caller in one of its own
// handlers, for it goes on only when the handlers of its last response have returned.
func (f *Follower) Feeds(ctx context.Context, room id.RoomID) bool {
	return ctx.Value(mautrix.SyncTokenContextKey) == nil && f.Live(room)
}

// Behind notes that the sync has yet to bring an event that the homeserver lists. Until then [Follower.Live] is false for the room.
func (f *Follower) Behind(room id.RoomID, event id.EventID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = map[id.RoomID]awaited{}
	}
	if _, brought := f.brought.Get(event); !brought {
		f.waiting[room] = awaited{event: event}
	}
}

// onSync is a [mautrix.SyncHandler].
func (f *Follower) onSync(ctx context.Context, resp *mautrix.RespSync, since string) bool {
	if !f.Started() {
		return true
	}
	ended := ctx.Done()
	f.ended.Store(&ended)
	f.since.Store(matrix.PlaceOf(since))
	tells := func(eventType event.Type) bool { return since == "" && f.tells(eventType) }
	if f.misses(since, resp.NextBatch) {
		f.missed(tells)
	}
	for room := range resp.Rooms.Leave {
		f.Sink.Left(room)
		f.skip(room)
	}
	for room, joined := range resp.Rooms.Join {
		if joined.Timeline.Limited || f.rejoins(joined.Timeline.Events) {
			f.skip(room)
		}
		shows := func(eventType event.Type) bool { return tells(eventType) && IsSettled(joined, f.Policy) }
		f.came(room, f.Sink.Joined(room, joined, shows))
	}
	f.stopWaiting()
	f.response.Store(time.Now().UnixNano())
	return true
}

// misses tells whether a response that begins at since is not the one after the last that came. It may be the first, or a handler before
// this one may have kept one back.
func (f *Follower) misses(since, next string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	misses := since == "" || f.response.Load() == 0 || f.next != "" && since != f.next
	f.next = next
	return misses
}

// stopWaiting ends the waiting for what the sync leaves out.
func (f *Follower) stopWaiting() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for room, wait := range f.waiting {
		if wait.responses++; wait.responses < maxWait {
			f.waiting[room] = wait
		} else {
			delete(f.waiting, room)
		}
	}
}

// rejoins tells whether the user's own membership is among the events.
func (f *Follower) rejoins(events []*event.Event) bool {
	return slices.ContainsFunc(events, func(evt *event.Event) bool {
		return evt.Type.Type == event.StateMember.Type && evt.StateKey != nil && *evt.StateKey == f.Client.UserID.String()
	})
}

// TellsUpgrades tells whether the sync would tell of it if the room were upgraded.
func (f *Follower) TellsUpgrades(room id.RoomID) bool {
	return f.tells(event.StateTombstone) && f.Live(room)
}

// TellsEncryption tells whether the sync would tell of it if the room became encrypted.
func (f *Follower) TellsEncryption(room id.RoomID) bool {
	return f.tells(event.StateEncryption) && f.Live(room)
}

// Started tells whether Start or StartEvents has succeeded and nobody has called Stop.
func (f *Follower) Started() bool { return f.from.Load() != followsNothing && !f.stopped.Load() }

// Stop makes the follower do nothing more. A syncer has no way to take a handler back.
func (f *Follower) Stop() { f.stopped.Store(true) }

// Since is where the homeserver had stored the last event before those of the last response, 0 where nothing tells.
func (f *Follower) Since() int64 { return f.since.Load() }

// missed is for when a whole response can have been missed: nothing is believed that the sync would have changed.
func (f *Follower) missed(tells func(event.Type) bool) {
	f.Sink.Missed(tells)
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.waiting)
}

// skip is for when events of a room can have been missed.
func (f *Follower) skip(room id.RoomID) {
	f.Sink.Skipped(room)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, room)
}

// came notes which events the sync has brought.
func (f *Follower) came(room id.RoomID, events []*matrix.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, evt := range events {
		if f.waiting[room].event == evt.ID {
			delete(f.waiting, room)
		}
		f.brought.Keep(evt.ID, struct{}{}, 1, maxBrought)
	}
}
