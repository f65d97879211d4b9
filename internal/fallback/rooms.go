package fallback

import (
	"context"
	"slices"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// Rooms has one memory of each room, for all stores that come from one New. The zero value is ready, and methods are safe for concurrent use.
type Rooms struct {
	dicts sync.Map // id.RoomID → *accountDict
}

// Memory is the room's.
func (r *Rooms) Memory(room memory.Room) *Memory {
	known, ok := r.dicts.Load(room.ID)
	if !ok {
		known, _ = r.dicts.LoadOrStore(room.ID, newAccountDict(room))
	}
	return &Memory{room.InState(), known.(*accountDict)}
}

// Missed is for a sync of which responses were missed.
func (r *Rooms) Missed() {
	r.dicts.Range(func(_, d any) bool {
		d.(*accountDict).account.forget()
		return true
	})
}

// Joined takes what the sync has of a room: account data that another process may have changed, and power levels.
func (r *Rooms) Joined(room memory.Room, joined *mautrix.SyncJoinedRoom) {
	m := r.Memory(room)
	for _, evt := range joined.AccountData.Events {
		if evt.Type.Type == TypeOf(room) {
			content, _ := wire.ParseAccount(evt.Content.VeryRaw) // what is no dict is none that was saved
			m.account.heard(content)
		}
	}
	levels := func(evt *event.Event) bool { return matrix.IsRooms(evt, event.StatePowerLevels) }
	if slices.ContainsFunc(slices.Concat(joined.Timeline.Events, joined.State.Events), levels) {
		room.Background.Go(context.Background(), m.powerChanged)
	}
}
