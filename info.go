package roomkv

import (
	"context"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// MaxBytes is how large a state event may be, in bytes.
const MaxBytes = wire.MaxEvent

// Info is what is known of a memory; see [Store.Info].
type Info struct {
	Room       id.RoomID // where the memory is: with [WithRoomUpgrades] the room that has replaced the store's
	UpgradedTo id.RoomID // the room that has replaced that one, so that nothing may be written any more; empty where none has
	PerKey     bool      // whether each key has a state event; see [WithPerKeyState]
	Shards     int       // over how many state events keys are spread at most: 1, or as [WithShards] says; 0 with PerKey

	Keys   int // of the whole memory, also for a [Store.Sub]
	Events int // state events that have them
	Bytes  int // about the size of the largest of these, of MaxBytes
	Total  int // about the size of all of these, of Shards times MaxBytes
	More   int // about how many keys of the average size fit beside them until the largest is full, -1 with PerKey

	Encrypted bool  // whether values that are put are encrypted
	Sealed    bool  // whether keys are sealed; see [WithSealedKeys]
	Place     Place // where writes go; see [WithAccountDataFallback]

	Power       int  // the client's power level in the room
	PowerNeeded int  // what it takes to write the memory's state
	PowerKnown  bool // whether the homeserver has told these two

	Retries int // how many requests the stores that come from the same [New] have made again until now
	Merges  int // how many state events these stores have sent that merge what several writers had written

	Following bool          // whether reads are answered from memory; see [Store.Follow]
	Age       time.Duration // how long ago the sync has last told something, while Following
}

// Info returns what is known of the store's memory: how full it is, and what keeps the client from writing. The client's log warns, once, when a memory
// takes 80 % of its state event. Of a [Store.Sub] it is the whole memory.
//
// It takes the requests of [Store.Keys] and up to three more, which ask for the power levels, and whether the room is encrypted and was upgraded.
// What waits for a flush is not counted.
//
// Errors: those of Keys.
func (s *Store) Info(ctx context.Context) (info Info, err error) {
	ctx, op := s.begin(ctx, "Info")
	defer op.end(&err)
	home, err := direct{s}.home(ctx)
	if err != nil {
		return Info{}, err
	}
	h := memory.Handle{Room: home.Room, Memory: s.core.memoryOf(home.Room)}
	size, err := h.Size(ctx)
	if err != nil {
		return Info{}, err
	}
	info = Info{Room: h.ID, PerKey: h.Layout.Alone(), Shards: h.Layout.Events(), Keys: size.Keys, Events: size.Events, Bytes: size.Bytes, Total: size.Total, More: size.More,
		Sealed: h.Secret != nil}
	if info.UpgradedTo, err = home.ReplacedBy(ctx); err != nil {
		return Info{}, err
	}
	if h.Encrypt {
		if info.Encrypted, err = h.IsEncrypted(ctx, false); err != nil {
			return Info{}, err
		}
	}
	info.PowerNeeded, info.Power, info.PowerKnown = h.Levels(ctx, h.Type)
	if s.core.fallback && info.PowerKnown && info.Power < info.PowerNeeded {
		info.Place = InAccountData
	}
	counts := s.core.Meter.Counts()
	info.Retries, info.Merges = counts.Retries, counts.Merges
	if info.Following = h.Follower.Live(h.ID); info.Following {
		info.Age, _ = h.Follower.Age()
	}
	return info, nil
}
