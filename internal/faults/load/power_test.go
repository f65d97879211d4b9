package load_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults/load"
)

// shownWithin is how long what others wrote may be out of sight after a writer has lost its power.
const shownWithin = 2 * time.Second

// crew is who takes part in a race. One crew races in one room after another.
type crew struct{ admin, b, c, reader *mautrix.Client }

func newCrew(ctx context.Context, server load.Homeserver) (*crew, error) {
	var clients [3]*mautrix.Client
	for i, name := range []string{"admin", "b", "c"} {
		var err error
		if clients[i], err = server.Register(ctx, name); err != nil {
			return nil, err
		}
	}
	reader, err := server.NewDevice(ctx, clients[0].UserID)
	return &crew{clients[0], clients[1], clients[2], reader}, err
}

// race takes b's power away, or b's membership, in the moment in which b writes, and tells what of the acknowledged writes a fresh reader does
// not read, and where a follower reads something else: within a time without anybody writing, and after another has written, who knew the
// memory. What b wrote in that moment may be lost. Per key a fresh reader need not read what a follower does before that. A key that is not there
// reads as 0.
func (c *crew) race(ctx context.Context, perKey, kick bool) (faults []string, err error) {
	levels := func(users ...id.UserID) *event.PowerLevelsEventContent {
		content := &event.PowerLevelsEventContent{Users: map[id.UserID]int{c.admin.UserID: 100}}
		for _, user := range users {
			content.Users[user] = 50
		}
		return content
	}
	made, err := c.admin.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", RoomVersion: "11", Invite: []id.UserID{c.b.UserID, c.c.UserID}, PowerLevelOverride: levels(c.b.UserID, c.c.UserID),
	})
	if err != nil {
		return nil, err
	}
	room := made.RoomID
	stores := map[*mautrix.Client]*roomkv.Store{}
	for _, client := range []*mautrix.Client{c.b, c.c} {
		if _, err := client.JoinRoomByID(ctx, room); err != nil {
			return nil, err
		}
		if stores[client], err = open(client, room, perKey); err != nil {
			return nil, err
		}
	}
	following, stop, err := c.follow(ctx, room, perKey)
	if err != nil {
		return nil, err
	}
	defer stop()
	want := map[string][]int{"of c": {1}, "of b": {2}, "of c, and of b at once": {1, 3}}
	if err := stores[c.c].PutAll(ctx, map[string]any{"of c": 1, "of c, and of b at once": 1}); err != nil {
		return nil, err
	}
	if err := stores[c.b].Put(ctx, "of b", 2); err != nil {
		return nil, err
	}
	for key := range want {
		if err := following.Get(ctx, key, new(int)); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
			return nil, err
		}
	}
	var group sync.WaitGroup
	group.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, shownWithin) // what was dropped it would look for for long
		defer cancel()
		_ = stores[c.b].Put(ctx, "of c, and of b at once", 3)
	})
	group.Go(func() {
		if kick {
			_, err = c.admin.KickUser(ctx, room, &mautrix.ReqKickUser{UserID: c.b.UserID})
		} else {
			_, err = c.admin.SendStateEvent(ctx, room, event.StatePowerLevels, "", levels(c.c.UserID))
		}
	})
	group.Wait()
	if err != nil {
		return nil, err
	}
	written := false // whether somebody has written since
	seen := func() (wrong []string, err error) {
		fresh, err := open(c.reader, room, perKey)
		if err != nil {
			return nil, err
		}
		for key, values := range want {
			got, err := roomkv.Get[int](ctx, fresh, key)
			if err != nil && !errors.Is(err, roomkv.ErrNotFound) {
				return nil, err
			}
			followed, err := roomkv.Get[int](ctx, following, key)
			switch {
			case err != nil && !errors.Is(err, roomkv.ErrNotFound):
				return nil, err
			case perKey && !written && slices.Contains(values, followed): // nobody but who follows looks further than to the state
			case !slices.Contains(values, got):
				wrong = append(wrong, fmt.Sprintf("%q: a fresh reader reads %d", key, got))
			case followed != got:
				wrong = append(wrong, fmt.Sprintf("%q: a follower reads %d where a fresh reader reads %d", key, followed, got))
			}
		}
		slices.Sort(wrong)
		return wrong, nil
	}
	within := func() (wrong []string, err error) {
		for end := time.Now().Add(shownWithin); ; time.Sleep(200 * time.Millisecond) {
			if wrong, err = seen(); len(wrong) == 0 || err != nil || time.Now().After(end) {
				return wrong, err
			}
		}
	}
	hidden, err := within()
	if err != nil {
		return nil, err
	}
	written = true
	if perKey {
		want["of c, and of b at once"] = []int{4}
		err = stores[c.c].Put(ctx, "of c, and of b at once", 4)
	} else {
		err = stores[c.c].Put(ctx, "written again", 4)
	}
	if err != nil {
		return nil, err
	}
	lost, err := within()
	return append(hidden, lost...), err
}

func open(client *mautrix.Client, room id.RoomID, perKey bool) (*roomkv.Store, error) {
	var options []roomkv.Option
	if perKey {
		options = append(options, roomkv.WithPerKeyState())
	}
	return roomkv.New(client, room.String(), options...)
}

// follow is a follower of c's account.
func (c *crew) follow(ctx context.Context, room id.RoomID, perKey bool) (*roomkv.Store, func(), error) {
	client, err := mautrix.NewClient(c.c.HomeserverURL.String(), c.c.UserID, c.c.AccessToken)
	if err != nil {
		return nil, nil, err
	}
	client.Client = c.c.Client
	store, err := open(client, room, perKey)
	if err == nil {
		err = store.Follow()
	}
	if err != nil {
		return nil, nil, err
	}
	first := make(chan struct{})
	once := sync.OnceFunc(func() { close(first) })
	client.Syncer.(*mautrix.DefaultSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		once()
		return true
	})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	<-first
	return store, func() {
		cancel()
		<-ended
	}, nil
}

func TestPowerOrMembershipTaken(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		for _, perKey := range []bool{false, true} {
			for what, kick := range map[string]bool{"power": false, "membership": true} {
				name := fmt.Sprintf("%s taken, single", what)
				if perKey {
					name = fmt.Sprintf("%s taken, per key", what)
				}
				t.Run(name, func(t *testing.T) {
					races(t, on, name, number(4, 50), func(ctx context.Context, crew *crew) ([]string, error) { return crew.race(ctx, perKey, kick) })
				})
			}
		}
	})
}

// races makes so many races, some at a time, and judges them.
func races(t *testing.T, on *ground, name string, n int, race func(context.Context, *crew) (faults []string, err error)) {
	t.Helper()
	const atOnce = 3
	count := newTally(on.name + ", " + name)
	var mu sync.Mutex
	var group sync.WaitGroup
	left := make(chan struct{}, n)
	for range n {
		left <- struct{}{}
	}
	close(left)
	for range min(n, atOnce) {
		crew, err := newCrew(t.Context(), on)
		require.NoError(t, err)
		group.Go(func() {
			for range left {
				faults, err := race(t.Context(), crew)
				mu.Lock()
				count.addRace(faults)
				mu.Unlock()
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	group.Wait()
	count.judge(t)
}

func (c *tally) addRace(faults []string) {
	c.runs++
	if len(faults) > 0 {
		c.bad++
		c.reports = append(c.reports, strings.Join(faults, "\n"))
	}
	for _, fault := range faults {
		c.violations[fault]++
	}
}
