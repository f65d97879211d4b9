package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// envRegistration names the file of a registration that the homeserver of ROOMKV_HOMESERVER has read. The test listens where it says.
const envRegistration = "ROOMKV_APPSERVICE"

// inMemory is an application service of a homeserver in memory, which pushes to it as mode says, and a user of that.
func inMemory(t *testing.T, mode fakehs.Mode) (as *appservice.AppService, push func(ctx context.Context), human *mautrix.Client) {
	t.Helper()
	server := fakehstest.New(t, fakehs.Options{Mode: mode, Seed: 1})
	registration := newRegistration("http://127.0.0.1:1", server.Name())
	as, err := appservice.CreateFull(appservice.CreateOpts{Registration: registration, HomeserverDomain: server.Name(), HomeserverURL: server.URL()})
	require.NoError(t, err)
	as.HTTPClient.Transport = server
	server.AppService(registration.AppToken, as.BotMXID())
	transaction, after := 0, server.Stored()
	push = func(ctx context.Context) {
		server.Push(ctx, after, func(events []json.RawMessage) error {
			body, err := json.Marshal(map[string]any{"events": events})
			if err != nil {
				return err
			}
			transaction++
			again := 1 + transaction%2 // an answer that got lost
			for range again {
				req := httptest.NewRequest(http.MethodPut, fmt.Sprintf("/_matrix/app/v1/transactions/%d", transaction), bytes.NewReader(body))
				req.Header.Set("Authorization", "Bearer "+registration.ServerToken)
				resp := httptest.NewRecorder()
				if as.Router.ServeHTTP(resp, req); resp.Code != http.StatusOK {
					return errors.New(resp.Body.String())
				}
			}
			return nil
		})
	}
	return as, push, fakehstest.Client(t, server)
}

// real is one of the homeserver that ROOMKV_HOMESERVER names.
func real(t *testing.T) (as *appservice.AppService, push func(ctx context.Context), human *mautrix.Client) {
	t.Helper()
	path := os.Getenv(envRegistration)
	if os.Getenv(homeserver.EnvURL) == "" || path == "" {
		t.Skipf("%s and %s name no homeserver that has a registration", homeserver.EnvURL, envRegistration)
	}
	server, err := homeserver.FromEnv(t.Context())
	require.NoError(t, err)
	human, err = server.Register(t.Context(), "human")
	require.NoError(t, err)
	as, err = service(path, server.URL, human.UserID.Homeserver())
	require.NoError(t, err)
	go as.Start()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", as.Host.Address())
		return err == nil && conn.Close() == nil
	}, 10*time.Second, 10*time.Millisecond, "it listens")
	t.Cleanup(as.Stop)
	return as, func(context.Context) {}, human
}

func TestBridge(t *testing.T) {
	modes := map[string]appservice.ExecMode{"in order": appservice.Sync, "handlers at once": appservice.AsyncHandlers, "events at once": appservice.AsyncLoop}
	for name, exec := range modes {
		for _, mode := range fakehs.Modes {
			t.Run(fmt.Sprint(mode, "/", name), func(t *testing.T) {
				t.Parallel()
				as, push, human := inMemory(t, mode)
				bridge(t, as, push, human, exec)
			})
		}
	}
}

// A real homeserver pushes only what it has not pushed before, so that there is one test.
func TestBridgeOnARealHomeserver(t *testing.T) {
	as, push, human := real(t)
	bridge(t, as, push, human, appservice.Sync)
}

// bridge has the bot count, and stores of another intent follow what the bot and a user without the bridge write.
func bridge(t *testing.T, as *appservice.AppService, push func(ctx context.Context), human *mautrix.Client, exec appservice.ExecMode) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ghost := as.Intent(id.NewUserID("counter_ghost", as.HomeserverDomain))
	require.NoError(t, as.BotIntent().EnsureRegistered(ctx))
	require.NoError(t, ghost.EnsureRegistered(ctx))

	counter, err := newCounter(as)
	require.NoError(t, err)
	counter.processor.ExecMode = exec
	layouts := map[string][]roomkv.Option{"single": nil, "perkey": {roomkv.WithPerKeyState()}}
	stores, others := map[string]*roomkv.Store{}, map[string]*roomkv.Store{}
	levels := &event.PowerLevelsEventContent{Users: map[id.UserID]int{human.UserID: 100, as.BotMXID(): 50, ghost.UserID: 50}}
	room := hstest.Room(t, human, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{ghost.UserID}, PowerLevelOverride: levels})
	require.NoError(t, ghost.EnsureJoined(ctx, room))
	for layout, opts := range layouts {
		opts = append(opts, roomkv.WithEventType("org.example."+layout))
		stores[layout], err = roomkv.New(ghost.Client, room.String(), opts...)
		require.NoError(t, err)
		require.NoError(t, stores[layout].FollowEvents(counter.processor.On, time.Hour))
		others[layout], err = roomkv.New(human, room.String(), opts...)
		require.NoError(t, err)
	}
	counter.processor.Start(ctx)
	defer counter.processor.Stop()
	pushed := make(chan bool)
	go func() {
		defer close(pushed)
		push(ctx)
	}()
	defer func() {
		cancel()
		<-pushed
	}()
	_, err = human.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: as.BotMXID()})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		members, err := human.JoinedMembers(ctx, room)
		return err == nil && members.Joined[as.BotMXID()].DisplayName != "" || err == nil && len(members.Joined) == 3
	}, 20*time.Second, 20*time.Millisecond, "the bot follows the invitation")

	const said = 5
	for n := range said {
		_, err := human.SendText(ctx, room, fmt.Sprint(n))
		require.NoError(t, err)
	}
	counts, err := roomkv.New(human, room.String())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		got, err := roomkv.Get[int](ctx, counts, human.UserID.String())
		return err == nil && got == said
	}, 20*time.Second, 20*time.Millisecond, "each message counts once")

	for layout, store := range stores {
		t.Run(layout, func(t *testing.T) { intents(ctx, t, store, others[layout]) })
	}
}

// intents does what a store can do with an intent's client, and has it told of what another writes.
func intents(ctx context.Context, t *testing.T, store, other *roomkv.Store) {
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 0, "large": strings.Repeat("x", 60_000)}))
	require.NoError(t, roomkv.Update(ctx, store, "a", func(n int, _ bool) (int, error) { return n + 1, nil }))
	require.NoError(t, store.Create(ctx, "new", 1))
	require.ErrorIs(t, store.Create(ctx, "new", 1), roomkv.ErrExists)
	large, err := roomkv.Get[string](ctx, store, "large")
	require.NoError(t, err)
	assert.Len(t, large, 60_000)
	require.NoError(t, store.Delete(ctx, "large"))
	keys, err := store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "new"}, keys)
	info, err := store.Info(ctx)
	require.NoError(t, err)
	assert.True(t, info.PowerKnown)
	assert.Equal(t, 50, info.Power)
	for _, err := range store.History(ctx, "a") {
		require.NoError(t, err)
	}
	for room, err := range store.Rooms(ctx) {
		require.NoError(t, err)
		assert.NotEmpty(t, room)
	}

	var told []string
	for change, err := range store.Watch(ctx, roomkv.WatchInitial()) {
		require.NoError(t, err, "after %v", told)
		if change.EndOfInitial {
			for n := range 3 {
				require.NoError(t, other.Put(ctx, "a", 10+n))
				require.NoError(t, store.Put(ctx, "b", n))
			}
			require.NoError(t, other.Delete(ctx, "new"))
			continue
		}
		told = append(told, fmt.Sprintf("%s: %s -> %s", change.Key, change.Old, change.New))
		if change.Key == "new" && change.Old != nil {
			break
		}
	}
	assert.Equal(t, []string{"a:  -> 1", "new:  -> 1", "a: 1 -> 10", "b:  -> 0", "a: 10 -> 11", "b: 0 -> 1", "a: 11 -> 12", "b: 1 -> 2", "new: 1 -> "}, told)

	for n := range 3 { // maxAge is an hour
		require.NoError(t, other.Put(ctx, "a", 20+n))
		require.Eventually(t, func() bool {
			got, err := roomkv.Get[int](ctx, store, "a")
			return err == nil && got == 20+n
		}, 20*time.Second, 5*time.Millisecond, "an event tells of it")
	}
}
