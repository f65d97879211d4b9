package memory

import (
	"context"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/meter"
	"github.com/roomkv/roomkv/internal/seal"
)

// Shared is what all stores that come from one New share. [NewShared] makes one. It is safe for concurrent use.
type Shared struct {
	Settings
	Type     event.Type
	Follower follow.Follower

	// Background is what goes on without anybody who waits for it.
	Background background.Group

	// Meter counts what is merged, and what is tried again.
	Meter meter.Meter

	// Seen gets each page of the memory's events that is read. It is set before the first use, and may be nil.
	Seen func(room id.RoomID, page matrix.Page)

	client    matrix.Client
	Encrypted seal.Rooms
	Megolm    seal.Megolm
	full      sync.Map // commit.Address → true, where the log was told that the dict is nearly full
	ensured   sync.Map // id.RoomID → ensured
	looked    sync.Map // id.RoomID → true, where shards were looked at before the first write; see [inShards]
	media     media.Keeper
	clock     *matrix.Clock
	drops     drops
	brought   brought
	Dicts     commit.Replicas
}

// NewShared returns what rooms of the client share. Sink is told what the client's sync brings once the follower is started.
func NewShared(client *mautrix.Client, settings Settings, sink follow.Sink) *Shared {
	settings.Policy = settings.Policy.Or()
	s := &Shared{Settings: settings, Type: event.Type{Type: settings.EventType, Class: event.StateEventType}}
	s.client = matrix.Client{Client: client, Meter: &s.Meter}
	s.clock = matrix.NewClock(s.client, settings.Policy.ClockFor)
	s.media.MaxValue, s.media.Policy, s.Encrypted.Policy, s.Follower.Policy = settings.MaxValue, settings.Policy, settings.Policy, settings.Policy
	s.Megolm = seal.Megolm{
		Type: settings.EventType, Backup: settings.Backup, KeyWait: settings.KeyWait, MinTrust: settings.MinTrust,
		Policy: settings.Policy, Live: s.Follower.Live,
		Encrypted: func(room id.RoomID) { s.Encrypted.Set(room, true, false) },
	}
	s.Follower.Client, s.Follower.EventType, s.Follower.Sink = client, s.Type, sink
	return s
}

// Now is the homeserver's time, in Unix milliseconds. It implements [commit.Room] for whatever embeds a room.
func (s *Shared) Now(ctx context.Context) (int64, error) { return s.clock.Now(ctx) }

// Between gives bounds of the homeserver's time, in Unix milliseconds.
func (s *Shared) Between(ctx context.Context) (first, last int64, err error) {
	return s.clock.Between(ctx)
}

// Room is the room with that ID.
func (s *Shared) Room(room id.RoomID) Room {
	return Room{Room: matrix.Room{Client: s.client, ID: room}, Shared: s}
}

// Room is a room with a store's settings: the requests for its memory, and what this process knows of its dicts.
type Room struct {
	matrix.Room
	*Shared
}

// Of is another room with the same settings.
func (r Room) Of(room id.RoomID) Room { return r.Shared.Room(room) }

// Address names the dict under the state key.
func (r Room) Address(stateKey string) commit.Address {
	return commit.Address{Room: r.ID, Type: r.Type.Type, StateKey: stateKey}
}

// Replica is what this process knows of the dict under the state key, nil where nobody has asked.
func (r Room) Replica(stateKey string) *commit.Replica { return r.Dicts.Find(r.Address(stateKey)) }
