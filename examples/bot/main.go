// Command bot is a Matrix bot to copy. It keeps scores and polls, greets who comes to a room, and reminds people. All that it remembers is in the rooms. Any
// number of replicas of it share the work, each with a folder of its own. BOT_ROOM is a room whose state the bot may change (power level 50):
//
//	ROOMKV_USER=@bot:example.org ROOMKV_PASSWORD=… ROOMKV_DIR=data ROOMKV_INVITES=example.org BOT_ROOM='#bots:example.org' go run -tags goolm .
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session"
)

type bot struct {
	*session.Bot
	reminders *roomkv.Store
	leads     atomic.Bool // whether this replica has the lease
}

type poll struct {
	ID       id.EventID
	Question string
	Options  []string
}

type reminder struct {
	Room id.RoomID
	Text string
}

func main() {
	config, err := session.FromEnv()
	if err == nil {
		err = run(context.Background(), config, os.Getenv("BOT_ROOM"))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, config session.Config, room string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened, err := session.Open(ctx, config)
	if err != nil {
		return err
	}
	defer opened.Close()
	store, err := opened.Store(room, roomkv.WithAccountDataFallback())
	if err != nil {
		return err
	}
	b := &bot{Bot: opened, reminders: store.Sub("reminder/")}
	b.OnMessage(store.InEventRoom(b.onMessage))
	go b.remind(ctx, store)
	return b.Run(ctx)
}

// mine tells whether this replica deals with an event: the first that asks does, or where the bot has no power the one with the lease.
func (b *bot) mine(ctx context.Context, evt *event.Event, room *roomkv.Store) bool {
	first, err := room.Once(ctx, evt.ID, time.Hour)
	if errors.Is(err, roomkv.ErrForbidden) {
		return b.leads.Load()
	}
	return first
}

func (b *bot) onMessage(ctx context.Context, evt *event.Event, room *roomkv.Store) {
	command, text, _ := strings.Cut(evt.Content.AsMessage().Body, " ")
	if !strings.HasPrefix(command, "!") || !b.mine(ctx, evt, room) {
		return
	}
	answer, err := "Done.", error(nil)
	switch command {
	case "!unit": // sets what scores are counted in here
		err = room.Put(ctx, "setting/unit", text)
	case "!score": // gives somebody a point
		unit, _ := roomkv.Get[string](ctx, room, "setting/unit")
		err = roomkv.Update(ctx, room, "score/"+text, func(n int, _ bool) (int, error) {
			answer = fmt.Sprintf("%s: %d %s", text, n+1, unit)
			return n + 1, nil
		})
	case "!poll": // asks "Question? / one / other"
		parts := strings.Split(text, " / ")
		err = room.Put(ctx, "poll", poll{ID: evt.ID, Question: parts[0], Options: parts[1:]})
	case "!vote": // has one vote of each user, the last
		answer, err = vote(ctx, evt.Sender, room, text)
	case "!remind": // as "!remind 10m tea"
		after, what, _ := strings.Cut(text, " ")
		var d time.Duration
		if d, err = time.ParseDuration(after); err == nil {
			err = b.reminders.Put(ctx, fmt.Sprint(time.Now().Add(d).Unix(), "/", evt.ID), reminder{evt.RoomID, what})
		}
	default:
		return
	}
	if err != nil {
		log.Printf("%s in %s: %v", command, evt.RoomID, err)
		answer = "That did not work."
	}
	_, _ = b.Client.SendNotice(ctx, evt.RoomID, answer)
}

func vote(ctx context.Context, user id.UserID, room *roomkv.Store, text string) (string, error) {
	asked, err := roomkv.Get[poll](ctx, room, "poll")
	option, wrong := strconv.Atoi(text)
	if err != nil || wrong != nil || option < 1 || option > len(asked.Options) {
		return "", errors.Join(err, errors.New("no such option"))
	}
	votes := roomkv.MapOf[string](room.Sub("vote/" + asked.ID.String() + "/"))
	err = votes.Put(ctx, user.String(), asked.Options[option-1])
	counts := map[string]int{}
	for vote := range votes.All(ctx) {
		counts[vote.Value]++
	}
	return fmt.Sprint(asked.Question, " ", counts), err
}

// remind sends reminders while this replica has the lease. After a kill another one has it within half a minute, and the last reminder can come twice.
func (b *bot) remind(ctx context.Context, store *roomkv.Store) {
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		lease, err := store.Lease(ctx, "leader", 30*time.Second)
		for b.leads.Store(err == nil); b.leads.Load(); time.Sleep(time.Second) {
			for entry, err := range b.reminders.All(ctx) {
				var due reminder
				if err == nil && entry.Key < fmt.Sprint(time.Now().Unix()) && entry.Decode(&due) == nil {
					if _, err := b.Client.SendNotice(ctx, due.Room, "Reminder: "+due.Text); err == nil {
						_ = b.reminders.Delete(ctx, entry.Key)
					}
				}
			}
			select {
			case <-lease.Done():
				b.leads.Store(false)
			default:
			}
		}
	}
}
