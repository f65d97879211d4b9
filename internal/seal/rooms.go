package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/asked"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/policy"
	"github.com/roomkv/roomkv/internal/wire"
)

// Rooms remembers what the homeserver said about rooms' encryption, and what their memories show of it. The zero value is ready,
// and methods are safe for concurrent use.
type Rooms struct {
	Policy *policy.Policy // nil for the default; set before the first use

	mu    sync.Mutex
	rooms map[id.RoomID]*known
}

// known is what is known of one room.
type known struct {
	encrypted bool       // for good: a room cannot be made unencrypted again
	clear     asked.Time // when the homeserver said that it is not encrypted

	// References to encrypted events that stand in the memory of a room which is not known to be encrypted.
	looked  bool                // whether the memory was looked through for them
	unseen  []id.EventID        // that are to be looked at
	refuted map[id.EventID]bool // that proved nothing
}

// in lets f read and change what is known of a room.
func (e *Rooms) in(room id.RoomID, f func(about *known)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rooms == nil {
		e.rooms = map[id.RoomID]*known{}
	}
	if e.rooms[room] == nil {
		e.rooms[room] = &known{refuted: map[id.EventID]bool{}}
	}
	f(e.rooms[room])
}

// get is not known where the homeserver has not been asked for so long, nor while the sync tells of changes.
func (e *Rooms) get(room id.RoomID, live bool, within time.Duration) (encrypted, isKnown bool) {
	e.in(room, func(about *known) {
		encrypted, isKnown = about.encrypted, about.encrypted || about.clear.Counts(live, within)
	})
	return encrypted, isKnown
}

// Set notes what the homeserver answered, and whether the sync was going on when it was asked.
func (e *Rooms) Set(room id.RoomID, encrypted, live bool) {
	e.in(room, func(about *known) {
		if encrypted {
			about.encrypted, about.unseen, about.refuted = true, nil, map[id.EventID]bool{}
		} else {
			about.clear = asked.Now(live)
		}
	})
}

// Shows notes that a sync which goes on shows a room without encryption.
func (e *Rooms) Shows(room id.RoomID) {
	e.in(room, func(about *known) { about.clear = asked.Shown(e.Policy.Or().StoredLate) })
}

// Learn notes the references that stand in a memory, given by name: see [Rooms.IsEncrypted].
func (e *Rooms) Learn(room id.RoomID, names map[string]string) {
	e.in(room, func(about *known) {
		for _, stored := range names {
			if about.encrypted || len(about.unseen) >= maxReferences {
				return
			}
			if !wire.Refers(stored) {
				continue
			}
			for _, event := range wire.References(json.RawMessage(stored)) {
				if isEventID(event) && !about.refuted[event] && len(about.unseen) < maxReferences && !slices.Contains(about.unseen, event) {
					about.unseen = append(about.unseen, event)
				}
			}
		}
	})
}

// isEventID tells whether a homeserver can be asked for an event of that ID.
func isEventID(event id.EventID) bool {
	return strings.HasPrefix(event.String(), "$") && len(event) <= 255
}

// proven tells whether the memory refers to an event that is encrypted, whatever the homeserver says of the room: nobody stores a reference
// in another room. What refers to nothing, or to something else, proves nothing, and is looked at once.
func (e *Rooms) proven(ctx context.Context, room matrix.Room) (encrypted bool, err error) {
	for {
		var event id.EventID
		e.in(room.ID, func(about *known) {
			if encrypted = about.encrypted; len(about.unseen) > 0 {
				event = about.unseen[0]
			}
		})
		if event == "" {
			return encrypted, nil
		}
		if encrypted, err = isEncryptedEvent(ctx, room, event); encrypted || err != nil {
			return encrypted, err
		}
		e.in(room.ID, func(about *known) {
			about.unseen = slices.DeleteFunc(about.unseen, func(other id.EventID) bool { return other == event })
			if len(about.refuted) >= maxRefuted {
				clear(about.refuted)
			}
			about.refuted[event] = true
		})
	}
}

// isEncryptedEvent tells whether the room has the event, and it is encrypted.
func isEncryptedEvent(ctx context.Context, r matrix.Room, at id.EventID) (bool, error) {
	var evt *event.Event
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "event", at)
	err := matrix.Get(ctx, r.Client, matrix.Request{Method: http.MethodGet, URL: url, Limit: matrix.MaxEvent}, &evt)
	switch status := matrix.Status(err); {
	case status/100 == 4 && status != http.StatusUnauthorized && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests,
		errors.Is(err, matrix.ErrAnswer): // the room has no such event
		return false, nil
	case err != nil:
		return false, r.Explain(ctx, fmt.Sprintf("read event %s", at), err)
	}
	return evt != nil && evt.ID == at && (evt.RoomID == "" || evt.RoomID == r.ID) && evt.Type.Type == event.EventEncrypted.Type && evt.StateKey == nil, nil
}

// Doubt forgets of all rooms that they are not encrypted. It is for a sync of which responses were missed: that has not told of all changes.
func (e *Rooms) Doubt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, about := range e.rooms {
		about.clear = asked.Time{}
	}
}

// DoubtIn is Doubt of one room.
func (e *Rooms) DoubtIn(room id.RoomID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if about := e.rooms[room]; about != nil {
		about.clear = asked.Time{}
	}
}

// Question is what is asked about a room's encryption.
type Question struct {
	Again bool // whether it is for the sake of a write that has asked before
	Live  bool // whether the sync tells of changes

	// Look looks through the memory for references, and calls Learn. It is nil where each write has read what it changes.
	Look func(ctx context.Context) error
}

// look looks through the memory, once for each room. A client without a Crypto is not meant for encrypted rooms, and saves the request.
func (e *Rooms) look(ctx context.Context, room matrix.Room, look func(ctx context.Context) error) error {
	looked := false
	e.in(room.ID, func(about *known) { looked = about.looked })
	if looked || room.Client.Crypto == nil || look == nil {
		return nil
	}
	err := look(ctx)
	if matrix.IsStatus(err, http.StatusNotFound) { // it hides the memory, or is no whole homeserver
		err = nil
	}
	e.in(room.ID, func(about *known) { about.looked = about.looked || err == nil })
	return err
}

// IsEncrypted asks the homeserver, and again if the answer was no and no sync tells of changes: after a while where the client
// could not encrypt anyway, and else each time but for the same write's sake. Sooner than that, the client's state store can know that
// the room became encrypted; what that store does not know it calls unencrypted, so its no counts for nothing. What the memory shows
// counts more than the homeserver's no.
func (e *Rooms) IsEncrypted(ctx context.Context, room matrix.Room, about Question) (bool, error) {
	within := e.Policy.Or().AnswerFor
	if room.Client.Crypto != nil && !about.Again {
		within = 0
	}
	encrypted, known := e.get(room.ID, about.Live, within)
	if !encrypted && room.Client.StateStore != nil {
		// An error here leaves it to the homeserver.
		synced, err := room.Client.StateStore.IsEncrypted(ctx, room.ID)
		encrypted = err == nil && synced
	}
	if !encrypted && known {
		if proven, err := e.proven(ctx, room); err != nil || !proven {
			return false, err
		}
		encrypted = true
	}
	if !encrypted {
		// One of those who want to know asks, and the others hear its answer.
		began := time.Now()
		unlock, err := commit.Lock(ctx, commit.Address{Room: room.ID, Type: event.StateEncryption.Type})
		if err != nil {
			return false, err
		}
		defer unlock()
		if encrypted, known = e.get(room.ID, about.Live, time.Since(began)); known {
			return encrypted, nil
		}
		evt, err := room.State(ctx, event.StateEncryption, "")
		if err != nil {
			return false, err
		}
		if encrypted = evt != nil; !encrypted {
			if err := e.look(ctx, room, about.Look); err != nil {
				return false, err
			}
			if encrypted, err = e.proven(ctx, room); err != nil {
				return false, err
			}
		}
	}
	e.Set(room.ID, encrypted, about.Live)
	return encrypted, nil
}
