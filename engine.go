package roomkv

import (
	"context"
	"sync"
	"unicode/utf8"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/upgrade"
)

// core is what all stores that come from one New share: the parts of a memory, put together as the options say.
type core struct {
	composition
	*memory.Shared
	client   *mautrix.Client
	aliases  sync.Map // alias → id.RoomID
	accounts fallback.Rooms
	upgrades upgrade.Rooms
	feed     feed
	plain    bool // whether memories are where the store was opened, and in the state alone
}

func newCore(client *mautrix.Client, settings settings) *core {
	if settings.fallback { // else a write would not find out that the homeserver has dropped it
		settings.SingleWriter, settings.Doubt = false, true
	}
	c := &core{composition: settings.composition, client: client, plain: !settings.followUpgrades && !settings.fallback}
	c.feed.core = c
	c.Shared = memory.NewShared(client, settings.Settings, &c.feed)
	c.feed.memory.Shared, c.feed.watches.Since = c.Shared, c.Follower.Since
	c.Seen = c.upgrades.Seen
	c.upgrades.Follow, c.upgrades.Replaced = settings.followUpgrades, c.feed.watches.LookBack
	if settings.fallback {
		c.upgrades.Away = func(ctx context.Context, room memory.Room) (bool, error) { return c.accounts.Memory(room).Holds(ctx) }
	}
	return c
}

// memoryOf is where the room's memory is: in its state, or in account data over that.
func (c *core) memoryOf(room memory.Room) memory.Memory {
	if c.fallback {
		return c.accounts.Memory(room)
	}
	return room.InState()
}

// open finds the store's room.
func (s *Store) open(ctx context.Context) (*memory.Room, error) {
	if opened := s.opened.Load(); opened != nil {
		return opened, nil
	}
	id, err := s.roomID(ctx)
	if err != nil {
		return nil, err
	}
	room := s.core.Room(id)
	s.opened.Store(&room)
	return &room, nil
}

// home finds the room where the store's memory is by now, for work on keys, once these are known to be valid.
func (s *Store) home(ctx context.Context, keys ...string) (home upgrade.Home, err error) {
	for _, key := range keys {
		if !utf8.ValidString(key) {
			return home, fault.Of(ErrInvalidKey, nil, "%q is not valid UTF-8", key)
		}
	}
	if err := ctx.Err(); err != nil {
		return home, err
	}
	room, err := s.open(ctx)
	if err != nil {
		return home, err
	}
	if home = s.core.upgrades.Of(*room); s.core.followUpgrades {
		home, err = home.Find(ctx)
	}
	if err == nil && len(keys) > 0 {
		err = home.CheckRoom(ctx, false)
	}
	return home, err
}

// handle is the store's memory; see [Store.home].
func (s *Store) handle(ctx context.Context, keys ...string) (memory.Handle, error) {
	home, err := s.home(ctx, keys...)
	if err != nil {
		return memory.Handle{}, err
	}
	return memory.Handle{Room: home.Room, Memory: home.Guard(s.core.memoryOf(home.Room))}, nil
}

// write does what changes the memory, and does it again in the room's replacement where the room was upgraded meanwhile.
func (s *Store) write(ctx context.Context, keys []string, do func(memory.Handle) error) error {
	return s.core.upgrades.Retry(func() error {
		h, err := s.handle(ctx, keys...)
		if err == nil {
			err = do(h)
		}
		return err
	})
}
