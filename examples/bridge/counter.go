package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
)

// counter counts messages. The memory of each room has a key for each sender.
type counter struct {
	bot       *appservice.IntentAPI
	store     *roomkv.Store // of no room
	processor *appservice.EventProcessor
}

// maxAge is how old a read may be where no event has told that something has changed.
const maxAge = time.Minute

func newCounter(as *appservice.AppService, opts ...roomkv.Option) (*counter, error) {
	store, err := roomkv.New(as.BotClient(), "", opts...)
	if err != nil {
		return nil, err
	}
	c := &counter{bot: as.BotIntent(), store: store, processor: appservice.NewEventProcessor(as)}
	if err := store.FollowEvents(c.processor.On, maxAge); err != nil {
		return nil, err
	}
	c.processor.On(event.StateMember, c.join)
	c.processor.On(event.EventMessage, store.InEventRoom(c.count))
	return c, nil
}

// join follows invitations.
func (c *counter) join(ctx context.Context, evt *event.Event) {
	if evt.GetStateKey() != c.bot.UserID.String() || evt.Content.AsMember().Membership != event.MembershipInvite {
		return
	}
	if err := c.bot.EnsureJoined(ctx, evt.RoomID); err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
	}
}

func (c *counter) count(ctx context.Context, evt *event.Event, room *roomkv.Store) {
	err := roomkv.Update(ctx, room, evt.Sender.String(), func(sent int, _ bool) (int, error) { return sent + 1, nil })
	if err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
	}
}
