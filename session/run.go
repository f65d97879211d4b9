package session

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session/internal/inbox"
	"github.com/roomkv/roomkv/session/internal/rooms"
	"github.com/roomkv/roomkv/session/internal/run"
	"github.com/roomkv/roomkv/session/internal/syncing"
)

// OnMessage has handle called with each message, as [Bot.OnEvent] does. Left out are notices (m.notice), for a bot that answers those of another bot would
// never end, and edits (m.replace), for a command would be done again.
func (b *Bot) OnMessage(handle mautrix.EventHandler) {
	b.OnEvent(event.EventMessage, func(ctx context.Context, evt *event.Event) {
		if message := evt.Content.AsMessage(); message.MsgType != event.MsgNotice && message.RelatesTo.GetReplaceID() == "" {
			handle(ctx, evt)
		}
	})
}

// OnEvent has handle called with each event of the type in the timelines of the bot's rooms: a room's events in order, one after the other, and those of
// different rooms at the same time. A handler may take as long as it needs, but not wait for a later event of its room. It
// gets events decrypted. Under m.room.encrypted it gets those whose key has not come within 30 seconds. A room's other events wait 5 seconds for a key.
//
// With [Config.Dir], what came while the bot was not running is told at the next start, up to 10,000 events of a room, and nothing is told twice, but for
// an event whose handler was interrupted by the end of the process; [roomkv.Store.Once] is for those that must not be done twice. A handler
// that panics has handled its event. For what is in no timeline, such as receipts, use the Syncer of [Bot.Client].
func (b *Bot) OnEvent(eventType event.Type, handle mautrix.EventHandler) {
	b.inbox.On(eventType, handle)
}

// Run syncs and has handlers called, until ctx ends or the process gets SIGTERM or SIGINT. It then lets handlers end, sends what [roomkv.WithFlushEvery] holds,
// and closes the bot's stores, in up to 9 seconds. It returns nil where all that was done; a second signal ends the process at once.
//
// The network and the homeserver may fail: Run tries again after 1 to 75 seconds, or after as long as the homeserver says. It returns an error for
// what a person must mend: [ErrSignedOut], [ErrHomeserver] where the homeserver refuses to sync, [ErrInUse] where another process runs with
// [Config.Dir], and [ErrDamaged] where that does not have how far the bot has read. It can be called once, and is [ErrClosed] else.
func (b *Bot) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.isClosed() || b.ran != nil {
		b.mu.Unlock()
		return fail(ErrClosed, "Run can be called once, before Close")
	}
	ran := make(chan struct{})
	b.ran = ran
	b.mu.Unlock()
	defer close(ran)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-b.closed:
			cancel(nil)
		case <-b.keeper.Ended():
			cancel(b.keeper.Err())
		case <-ran:
		}
	}()
	unlock, err := b.lockInbox(ctx)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), ErrSignedOut):
		return context.Cause(ctx)
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer unlock()
	b.noteUndecryptable()
	runner := run.Runner{
		Client: b.Client, Inbox: b.inbox, Rooms: b.rooms, Presence: b.config.Presence, Timeout: b.config.Timeout, Log: b.Client.Log,
		Errors: run.Errors{SignedOut: ErrSignedOut, Homeserver: ErrHomeserver}, Signals: b.signals, Close: b.closeStores,
	}
	return runner.Run(ctx)
}

// lockWait is how long Run waits for the process before it to end.
const lockWait = 10 * time.Second

// lockInbox keeps another process from running with the same folder: each would tell only what the other has not.
func (b *Bot) lockInbox(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = b.files.Lock(ctx, "inbox.lock")
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fail(ErrInUse, "another process runs with Dir %s: give each replica a Dir of its own", b.files.Path())
	}
	return unlock, err
}

// receive makes what Run needs. The client has its Syncer, and no Crypto yet.
func (b *Bot) receive() {
	config := inbox.Config{
		Self: b.Client.UserID, OwnEvents: b.config.OwnMessages, OldEvents: b.config.OldMessages, Storage: b.files, Log: b.Client.Log,
		Page: func(ctx context.Context, room id.RoomID, from, to string, dir mautrix.Direction, limit int) (*mautrix.RespMessages, error) {
			return syncing.Page(ctx, b.Client, room, from, to, dir, limit)
		},
	}
	if !b.config.NoEncryption {
		config.Decrypt = func(ctx context.Context, evt *event.Event) (*event.Event, error) {
			return b.Client.Crypto.Decrypt(ctx, evt)
		}
	}
	b.inbox = inbox.New(config)
	b.Client.Syncer.(*mautrix.DefaultSyncer).OnEvent(b.inbox.Take)
	b.rooms = &rooms.Rooms{Client: b.Client, Tasks: b.inbox, LeaveEmpty: b.config.LeaveEmpty, Keep: b.keeps, Log: b.Client.Log}
	if !b.config.Invites.none() {
		b.rooms.Accept = b.config.Invites.accepts
	}
	if b.config.LeaveEmpty {
		b.inbox.On(event.StateMember, b.rooms.Left)
	}
	b.signals = run.Signals
}

// noteUndecryptable lets the inbox know what mautrix cannot decrypt. Without that the inbox would wait longer.
func (b *Bot) noteUndecryptable() {
	helper, ok := b.Client.Crypto.(*cryptohelper.CryptoHelper)
	if !ok {
		return
	}
	before := helper.DecryptErrorCallback
	helper.DecryptErrorCallback = func(evt *event.Event, err error) {
		b.inbox.Undecryptable(evt, err)
		before(evt, err)
	}
}

// keeps tells whether a room is that of a store, which the bot does not leave.
func (b *Bot) keeps(ctx context.Context, room id.RoomID) bool {
	for _, store := range b.storesNow() {
		info, err := store.Info(ctx)
		if errors.Is(err, roomkv.ErrNoRoom) || errors.Is(err, roomkv.ErrNotJoined) { // then it is not this room, in which the bot is
			continue
		}
		if err != nil || info.Room == room {
			return true
		}
	}
	return false
}

// closeStores sends what stores have yet to send, and closes them.
func (b *Bot) closeStores(ctx context.Context) error {
	var failed []error
	for _, store := range b.storesNow() {
		failed = append(failed, store.Close(ctx))
	}
	return errors.Join(failed...)
}
