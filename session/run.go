package session

import (
	"context"
	"errors"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/inbox"
	"github.com/roomkv/roomkv/session/internal/rooms"
	"github.com/roomkv/roomkv/session/internal/run"
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
// different rooms at the same time. A handler may take as long as it needs. It gets events decrypted. Under m.room.encrypted it gets those whose key
// has not come within 30 seconds. A room's other events wait 5 seconds for a key.
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
// what a person must mend: [ErrSignedOut], and [ErrHomeserver] where the homeserver refuses to sync. It can be called once, and is [ErrClosed] else.
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-b.closed:
			cancel()
		case <-ran:
		}
	}()
	runner := run.Runner{
		Client: b.Client, Inbox: b.inbox, Rooms: b.rooms, Presence: b.config.Presence, Timeout: b.config.Timeout, Log: b.Client.Log,
		Errors: run.Errors{SignedOut: ErrSignedOut, Homeserver: ErrHomeserver}, Signals: b.signals, Close: b.closeStores,
	}
	return runner.Run(ctx)
}

// receive makes what Run needs. The client has its Syncer, and no Crypto yet.
func (b *Bot) receive() (err error) {
	config := inbox.Config{
		Self: b.Client.UserID, OwnEvents: b.config.OwnMessages, OldEvents: b.config.OldMessages, Storage: b.files, Log: b.Client.Log,
		Page: func(ctx context.Context, room id.RoomID, from, to string) (*mautrix.RespMessages, error) {
			return b.Client.Messages(ctx, room, from, to, mautrix.DirectionBackward, nil, 100)
		},
	}
	if !b.config.NoEncryption {
		config.Decrypt = func(ctx context.Context, evt *event.Event) (*event.Event, error) {
			return b.Client.Crypto.Decrypt(ctx, evt)
		}
	}
	if b.inbox, err = inbox.Open(config); err != nil {
		return fail(ErrInvalidConfig, "Dir: %w", err)
	}
	b.Client.Syncer.(*mautrix.DefaultSyncer).OnEvent(b.inbox.Take)
	b.rooms = &rooms.Rooms{Client: b.Client, Tasks: b.inbox, LeaveEmpty: b.config.LeaveEmpty, Keep: b.keeps, Log: b.Client.Log}
	if !b.config.Invites.none() {
		b.rooms.Accept = b.config.Invites.accepts
	}
	if b.config.LeaveEmpty {
		b.inbox.On(event.StateMember, b.rooms.Left)
	}
	b.signals = run.Signals
	return nil
}

// keeps tells whether a room is that of a store, which the bot does not leave.
func (b *Bot) keeps(ctx context.Context, room id.RoomID) bool {
	for _, store := range b.storesNow() {
		if info, err := store.Info(ctx); err != nil || info.Room == room {
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
