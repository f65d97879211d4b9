package rooms_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/rooms"
)

// tasks keeps tasks in memory.
type tasks struct {
	mu  sync.Mutex
	all map[string]json.RawMessage
}

func (k *tasks) SetTask(name string, task json.RawMessage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all[name] = task
}

func (k *tasks) EndTask(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.all, name)
}

func (k *tasks) Tasks() map[string]json.RawMessage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.all)
}

// An invite that comes while the task of an earlier one of the same room ends is asked about, and kept until then.
func TestInviteAsAnEarlierOneEnds(t *testing.T) {
	t.Parallel()
	const room, self = id.RoomID("!room:example.org"), id.UserID("@bot:example.org")
	client, err := mautrix.NewClient("http://127.0.0.1:1", self, "")
	require.NoError(t, err)
	client.Client = &http.Client{}
	kept := &tasks{all: map[string]json.RawMessage{}}
	asked := make(chan string, 10)
	r := &rooms.Rooms{Client: client, Tasks: kept, Log: zerolog.Nop()}
	r.Accept = func(_ context.Context, invite rooms.Invite) bool {
		var is rooms.Invite
		if err := json.Unmarshal(kept.Tasks()["join/"+room.String()], &is); err != nil || is.RoomName != invite.RoomName {
			asked <- "not kept: " + invite.RoomName
			return false
		}
		asked <- invite.RoomName
		for end := time.Now().Add(time.Duration(rand.IntN(10_000)) * time.Nanosecond); time.Now().Before(end); { // as the next one is taken
		}
		return false
	}
	r.Start(t.Context())
	defer r.Stop()
	invite := func(name string) {
		key := self.String()
		state := []*event.Event{
			{Type: event.StateMember, Sender: "@someone:example.org", StateKey: &key, Content: event.Content{Raw: map[string]any{"membership": "invite"}}},
			{Type: event.StateRoomName, Content: event.Content{Raw: map[string]any{"name": name}}},
		}
		r.Take(&mautrix.RespSync{Rooms: mautrix.RespSyncRooms{Invite: map[id.RoomID]*mautrix.SyncInvitedRoom{room: {State: mautrix.SyncEventsList{Events: state}}}}})
	}
	for n, end := 0, time.Now().Add(time.Second); n < 20_000 && time.Now().Before(end); n++ {
		name := fmt.Sprint(n)
		invite(name)
		select {
		case is := <-asked:
			require.Equal(t, name, is)
		case <-time.After(time.Minute):
			t.Fatalf("nobody was asked about invite %s", name)
		}
	}
}
