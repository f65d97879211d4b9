// Package rooms joins rooms that the user is invited to, and leaves those in which nobody else is left. What fails is tried again, also after a restart.
package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	atOnce = 8 // requests

	firstWait   = 2 * time.Second
	longestWait = time.Hour
	mostTries   = 30 // about a day

	// refusedTries is how often is tried what the homeserver refuses. A homeserver can know of an invite later than its sync tells of it.
	refusedTries = 5

	// settles is how long to wait after somebody has left, for those who leave together and for those who come back at once.
	settles = 5 * time.Second
)

// Invite is an invite to a room.
type Invite struct {
	Room     id.RoomID
	RoomName string // "" where the invite does not tell
	Inviter  id.UserID
	Direct   bool // whether the room is to be a direct chat
}

// Tasks keeps what is to be done, beyond the end of the process. An [inbox.Inbox] is one.
type Tasks interface {
	SetTask(name string, task json.RawMessage)
	EndTask(name string)
	Tasks() map[string]json.RawMessage
}

// Rooms goes into rooms and out of them. The exported fields are set before the first use.
type Rooms struct {
	Client *mautrix.Client
	Tasks  Tasks

	Accept     func(ctx context.Context, invite Invite) bool // nil for no invite
	LeaveEmpty bool
	Keep       func(ctx context.Context, room id.RoomID) bool // tells which rooms are not left; nil for none
	Log        zerolog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	ends   sync.WaitGroup

	mu     sync.Mutex
	begun  map[string]*task  // by name
	others map[id.RoomID]int // at least so many others were in the room
}

// task is one that goes on. Another one of its name can take its place.
type task struct{ cancel context.CancelFunc }

// Names of tasks.
const (
	join  = "join/"
	leave = "leave/"
)

// Start goes on with what an earlier process has left undone. It ends with [Rooms.Stop].
func (r *Rooms) Start(ctx context.Context) {
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.slots = make(chan struct{}, atOnce)
	r.begun, r.others = map[string]*task{}, map[id.RoomID]int{}
	for name, task := range r.Tasks.Tasks() {
		if room, is := strings.CutPrefix(name, join); is {
			var invite Invite
			if err := json.Unmarshal(task, &invite); err == nil && invite.Room.String() == room {
				r.join(invite)
			}
		} else if room, is := strings.CutPrefix(name, leave); is {
			r.leave(id.RoomID(room))
		}
	}
}

// Stop ends what goes on, and waits for that. It is gone on with at the next start.
func (r *Rooms) Stop() {
	r.cancel()
	r.ends.Wait()
}

// Take takes the invites of a response of the sync. It returns at once.
func (r *Rooms) Take(resp *mautrix.RespSync) {
	for room := range resp.Rooms.Join {
		r.end(join + room.String())
	}
	for room := range resp.Rooms.Leave {
		r.end(join + room.String())
		r.end(leave + room.String())
	}
	if r.Accept == nil {
		return
	}
	for room, invited := range resp.Rooms.Invite {
		invite, ok := r.read(room, invited.BestState())
		if !ok {
			continue
		}
		r.join(invite)
	}
}

// read reads what an invite says.
func (r *Rooms) read(room id.RoomID, state []*event.Event) (invite Invite, ok bool) {
	invite.Room = room
	for _, evt := range state {
		switch evt.Type.Type {
		case event.StateMember.Type:
			if evt.StateKey != nil && *evt.StateKey == r.Client.UserID.String() && evt.Content.Raw["membership"] == "invite" {
				invite.Inviter, ok = evt.Sender, true
				invite.Direct, _ = evt.Content.Raw["is_direct"].(bool)
			}
		case event.StateRoomName.Type:
			invite.RoomName, _ = evt.Content.Raw["name"].(string)
		}
	}
	return invite, ok
}

// join joins the room of an invite, where that is to be accepted.
func (r *Rooms) join(invite Invite) {
	text, err := json.Marshal(invite)
	if err != nil {
		return
	}
	r.begin(join+invite.Room.String(), text, func(ctx context.Context) error {
		if r.Accept == nil || !r.Accept(ctx, invite) {
			return nil
		}
		_, err := r.Client.JoinRoom(single(ctx), invite.Room.String(), &mautrix.ReqJoinRoom{Via: []string{invite.Inviter.Homeserver()}})
		return err
	})
}

// Left is a handler of m.room.member events.
func (r *Rooms) Left(_ context.Context, evt *event.Event) {
	membership, _ := evt.Content.Raw["membership"].(string)
	if !r.LeaveEmpty || membership != "leave" && membership != "ban" || evt.GetStateKey() == r.Client.UserID.String() {
		return
	}
	r.mu.Lock()
	others := r.others[evt.RoomID] - 1
	r.others[evt.RoomID] = max(0, others)
	r.mu.Unlock()
	if others > 0 {
		return
	}
	r.leave(evt.RoomID)
}

// leave leaves a room after a while, where nobody else is in it and nobody is invited.
func (r *Rooms) leave(room id.RoomID) {
	r.begin(leave+room.String(), json.RawMessage("{}"), func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settles):
		}
		members, err := r.Client.Members(single(ctx), room, mautrix.ReqMembers{NotMembership: event.MembershipLeave})
		if err != nil {
			return err
		}
		others := 0
		for _, member := range members.Chunk {
			in, _ := member.Content.Raw["membership"].(string)
			if member.GetStateKey() != r.Client.UserID.String() && (in == "join" || in == "invite") {
				others++
			}
		}
		r.mu.Lock()
		r.others[room] = others
		r.mu.Unlock()
		if others > 0 || r.Keep != nil && r.Keep(ctx, room) {
			return nil
		}
		_, err = r.Client.LeaveRoom(single(ctx), room)
		return err
	})
}

// begin keeps a task and does it in the background, until it is done or was tried too often. One of that name that goes on ends, and does not end this one.
func (r *Rooms) begin(name string, kept json.RawMessage, do func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(r.ctx)
	own := &task{cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.begun[name]; before != nil {
		before.cancel()
	}
	r.begun[name] = own
	r.Tasks.SetTask(name, kept)
	r.ends.Go(func() {
		defer cancel()
		r.try(ctx, name, do)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.begun[name] == own && ctx.Err() == nil {
			r.forget(name)
		}
	})
}

// end ends a task that there is no need for any more.
func (r *Rooms) end(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if going := r.begun[name]; going != nil {
		going.cancel()
	}
	r.forget(name)
}

// forget has the next start not do a task. The caller has the lock.
func (r *Rooms) forget(name string) {
	delete(r.begun, name)
	r.Tasks.EndTask(name)
}

// single has a request sent once, for try sends it again.
func single(ctx context.Context) context.Context { return mautrix.WithMaxRetries(ctx, 0) }

// try does a task until it succeeds.
func (r *Rooms) try(ctx context.Context, name string, do func(ctx context.Context) error) {
	refused := 0
	for tries := range mostTries {
		err := r.once(ctx, do)
		if err == nil || ctx.Err() != nil {
			return
		}
		if isRefused(err) {
			refused++
		}
		if refused == refusedTries || tries == mostTries-1 {
			r.Log.Warn().Str("task", name).Int("tries", tries+1).Int("status", statusOf(err)).Msg("Given up")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(firstWait<<tries, longestWait)):
		}
	}
}

var errPanicked = errors.New("panicked")

// once does a task when it is its turn. A panic is an error: of Accept, or of mautrix for an answer that is null. The log does not have with which value.
func (r *Rooms) once(ctx context.Context, do func(ctx context.Context) error) (err error) {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.slots <- struct{}{}:
	}
	defer func() {
		<-r.slots
		if panicked := recover(); panicked != nil {
			r.Log.Error().Str("panic", fmt.Sprintf("%T", panicked)).Str("stack", string(debug.Stack())).Msg("A task of a room has panicked")
			err = errPanicked
		}
	}()
	return do(ctx)
}

func statusOf(err error) int {
	var failed mautrix.HTTPError
	if errors.As(err, &failed) && failed.Response != nil {
		return failed.Response.StatusCode
	}
	return 0
}

// isRefused tells whether the homeserver has refused, and did not just fail.
func isRefused(err error) bool {
	status := statusOf(err)
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
}
