package roomkv

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/flush"
	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/upgrade"
	"github.com/roomkv/roomkv/internal/watch"
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
	plain    bool           // whether memories are where the store was opened, and in the state alone
	waiting  *flush.Waiting // nil where nothing waits for a flush
}

func newCore(client *mautrix.Client, settings settings) *core {
	if settings.fallback { // else a write would not find out that the homeserver has dropped it
		settings.SingleWriter = false
	}
	c := &core{composition: settings.composition, client: client, plain: !settings.followUpgrades && !settings.fallback && !settings.flushes}
	c.feed.core = c
	c.Shared = memory.NewShared(client, settings.Settings, &c.feed)
	c.feed.memory.Shared, c.feed.watches.Since = c.Shared, c.Follower.Since
	c.Seen = c.upgrades.Seen
	c.upgrades.Follow, c.upgrades.Replaced, c.upgrades.Policy = settings.followUpgrades, c.feed.replaced, c.Policy
	if settings.fallback {
		c.upgrades.Away = func(ctx context.Context, room memory.Room) (bool, error) { return c.accounts.Memory(room).Holds(ctx) }
	}
	if c.observer != nil {
		c.Background.Tell = c.tell
	}
	if settings.flushes {
		c.waiting = flush.New(settings.flushEvery)
		c.waiting.Background, c.waiting.Policy, c.waiting.Log = &c.Background, c.Policy, &client.Log
	}
	return c
}

// begin begins an operation of which the observer is told, where there is one. The room is empty where it is of no one room.
func (c *core) begin(ctx context.Context, kind, room string, keys []string) (context.Context, *running) {
	if c.observer == nil {
		return ctx, nil
	}
	return start(ctx, c.observer, Operation{Kind: kind, Layout: c.Layout.String(), Keys: keys}, func() id.RoomID { return c.knownRoom(room) })
}

// tell is for [background.Group].
func (c *core) tell(ctx context.Context, kind string, room id.RoomID, do func(ctx context.Context) error) (err error) {
	ctx, op := c.begin(ctx, kind, room.String(), nil)
	defer op.end(&err)
	return do(ctx)
}

// roomID is the ID of a room that is given by ID, alias or configured name. An alias is resolved on first use and stays what it was then, also
// when somebody points it elsewhere; a failure is not remembered.
func (c *core) roomID(ctx context.Context, name string) (id.RoomID, error) {
	room, err := c.lookUp(name)
	if err != nil || strings.HasPrefix(room, "!") {
		return id.RoomID(room), err
	}
	if known, ok := c.aliases.Load(room); ok {
		return known.(id.RoomID), nil
	}
	var resolved mautrix.RespAliasResolve
	url := c.client.BuildClientURL("v3", "directory", "room", room)
	err = matrix.Get(ctx, c.Room("").Client, matrix.Request{Method: http.MethodGet, URL: url, Limit: matrix.MaxEvent}, &resolved)
	switch {
	case errors.Is(err, mautrix.MNotFound), errors.Is(err, mautrix.MInvalidParam):
		return "", fault.Of(ErrUnknownRoom, err, "no homeserver knows the alias %s", room)
	case err != nil && !errors.Is(err, matrix.ErrAnswer):
		return "", fault.Because(err, "cannot resolve the alias %s: %s", room, matrix.Describe(err))
	}
	if !strings.HasPrefix(resolved.RoomID.String(), "!") {
		return "", fault.Of(ErrUnknownRoom, nil, "the homeserver names no room ID for the alias %s", room)
	}
	c.aliases.Store(room, resolved.RoomID)
	return resolved.RoomID, nil
}

// knownRoom is roomID as far as it is known without a request: else the alias, or a name that is not configured.
func (c *core) knownRoom(name string) id.RoomID {
	room, err := c.lookUp(name)
	if err != nil {
		return id.RoomID(name)
	}
	if known, ok := c.aliases.Load(room); ok {
		return known.(id.RoomID)
	}
	return id.RoomID(room)
}

// memoryOf is where the room's memory is: in its state, or in account data over that.
func (c *core) memoryOf(room memory.Room) memory.Memory {
	if c.fallback {
		return c.accounts.Memory(room)
	}
	return room.InState()
}

// feed gives memories, watches, upgrades and account data what the client's sync brings. It implements [follow.Sink].
type feed struct {
	core    *core
	memory  memory.Feed
	watches watch.Queues
}

// Missed implements [follow.Sink]: nothing is believed that the sync would have changed.
func (f *feed) Missed(tells func(event.Type) bool) {
	f.core.upgrades.Missed()
	f.core.accounts.Missed()
	f.memory.Missed(tells)
	f.watches.LookBackAll()
}

// Noticed implements [follow.Sink].
func (f *feed) Noticed(evt *event.Event) {
	f.memory.Noticed(evt)
	switch {
	case f.memory.Holds(evt):
		f.watches.Notice(evt.RoomID, watch.Notice{Event: evt.ID, StateKey: *evt.StateKey})
	case evt.Type.Type == event.EventRedaction.Type:
		f.watches.Notice(evt.RoomID, watch.Notice{Event: memory.RedactedBy(evt), Redacted: true})
	case matrix.IsRooms(evt, event.StateTombstone):
		f.core.upgrades.Seen(evt.RoomID, matrix.Page{Tombstones: []id.EventID{evt.ID}})
		f.watches.Notice(evt.RoomID, watch.Notice{})
	}
}

// replaced is for a room of which the store has learned by itself that it was upgraded.
func (f *feed) replaced(room id.RoomID) {
	if f.core.Follower.FollowsEvents() {
		f.watches.Notice(room, watch.Notice{})
		return
	}
	f.watches.LookBack(room)
}

// Left implements [follow.Sink].
func (f *feed) Left(room id.RoomID) { f.memory.Left(room) }

// Skipped implements [follow.Sink].
func (f *feed) Skipped(room id.RoomID) {
	f.memory.Skipped(room)
	f.watches.LookBack(room)
}

// Joined implements [follow.Sink].
func (f *feed) Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom, shows follow.Shows) (own []*matrix.Event) {
	upgraded := f.core.upgrades.Joined(room, joined, shows) // first, for a write that the sync brings is done
	own, redacted := f.memory.Joined(room, joined, shows)
	f.watches.Bring(room, own)
	if f.core.fallback {
		f.core.accounts.Joined(f.core.Room(room), joined)
	}
	if redacted || upgraded { // last, for a watch ends with an upgrade
		f.watches.LookBack(room)
	}
	return own
}
