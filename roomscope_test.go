package roomkv_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestRoomByAliasAndName(t *testing.T) { // alone: a busy machine makes a store ask more often
	ctx := t.Context()
	client := hstest.Client(t)
	localpart := client.UserID.Localpart()
	room := hstest.Room(t, client, &mautrix.ReqCreateRoom{Preset: "private_chat", RoomAliasName: localpart})
	alias := "#" + localpart + ":" + client.UserID.Homeserver()
	require.NoError(t, open(t, client, room).Put(ctx, "k", 1))

	recorder := hstest.Record(client)
	names := roomkv.WithRooms(map[string]string{"main": alias, "by ID": room.String()})
	for i, name := range []string{alias, "main", "by ID", room.String()} {
		recorder.Reset()
		store, err := roomkv.New(client, name, names)
		require.NoError(t, err)
		assert.Zero(t, recorder.Count(), "New sends nothing")
		for range 3 {
			got, err := roomkv.Get[int](ctx, store, "k")
			require.NoError(t, err, name)
			assert.Equal(t, 1, got)
		}
		resolving := 0
		if i < 2 {
			resolving = 1
		}
		assert.Equal(t, 3+resolving, recorder.Count(), "%s is resolved once", name)
	}

	store, err := roomkv.New(client, "main", names)
	require.NoError(t, err)
	recorder.Reset()
	for _, name := range []id.RoomID{"main", id.RoomID(alias), "by ID", room} {
		scoped, err := store.WithRoom(ctx, name)
		require.NoError(t, err)
		require.NoError(t, scoped.Get(ctx, "k", new(int)), name)
	}
	assert.Equal(t, 4+1, recorder.Count(), "the stores of one New share what they know")
}

func TestUnknownRoom(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	nowhere := "nowhere-" + client.UserID.Localpart()
	alias := "#" + nowhere + ":" + client.UserID.Homeserver()
	lazy, err := roomkv.New(client, alias)
	require.NoError(t, err)
	store := open(t, client, hstest.Room(t, client))
	for what, err := range map[string]error{
		"get":    lazy.Get(ctx, "k", new(int)),
		"put":    lazy.Put(ctx, "k", 1),
		"delete": lazy.Delete(ctx, "k"),
	} {
		require.ErrorIs(t, err, roomkv.ErrUnknownRoom, what)
		require.ErrorIs(t, err, mautrix.MNotFound, what)
		assert.NotErrorIs(t, err, roomkv.ErrNotFound, what)
		assert.ErrorContains(t, err, alias)
	}
	for _, room := range []id.RoomID{"", "main", "#", "!", id.RoomID(alias), "#malformed"} {
		scoped, err := store.WithRoom(ctx, room)
		require.ErrorIs(t, err, roomkv.ErrUnknownRoom, room)
		assert.Nil(t, scoped)
	}

	// A failure is not remembered.
	_, err = client.CreateRoom(ctx, &mautrix.ReqCreateRoom{RoomAliasName: nowhere})
	require.NoError(t, err)
	require.NoError(t, lazy.Put(ctx, "k", 1))
}

func TestWithRoomLeavesTheStoreAlone(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, _ := newStore(t, layout)
		other, err := store.WithRoom(ctx, hstest.Room(t, client))
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "k", "first"))
		require.ErrorIs(t, other.Get(ctx, "k", new(string)), roomkv.ErrNotFound)
		require.NoError(t, other.Put(ctx, "k", "second"))
		assert.Equal(t, map[string]string{"k": `"first"`}, memoryOf(t, store))
		assert.Equal(t, map[string]string{"k": `"second"`}, memoryOf(t, other))
	})
}

func TestInEventRoomScopesEachHandler(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		main, client, _ := newStore(t, layout)
		rooms := []id.RoomID{hstest.Room(t, client), hstest.Room(t, client)}

		// The handlers of both rooms are in the middle of their work at the same time.
		var meet, group sync.WaitGroup
		meet.Add(len(rooms))
		handler := main.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
			meet.Done()
			meet.Wait()
			assert.NoError(t, room.Put(ctx, "room", evt.RoomID))
			inner, ok := roomkv.FromContext(context.WithoutCancel(ctx))
			assert.True(t, ok)
			assert.NoError(t, inner.Put(ctx, "count", 1))
			got, err := roomkv.Get[id.RoomID](ctx, inner, "room")
			assert.NoError(t, err)
			assert.Equal(t, evt.RoomID, got)
			if evt.RoomID == rooms[0] {
				panic("a bug in the bot")
			}
		})
		for _, room := range rooms {
			group.Go(func() {
				defer func() { assert.Equal(t, room == rooms[0], recover() != nil) }()
				handler(ctx, &event.Event{RoomID: room})
			})
		}
		group.Wait()

		for _, room := range rooms {
			scoped, err := main.WithRoom(ctx, room)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"room": fmt.Sprintf("%q", room), "count": `1`}, memoryOf(t, scoped))
		}
		assert.Empty(t, memoryOf(t, main), "the default room's memory is untouched")
		_, ok := roomkv.FromContext(ctx)
		assert.False(t, ok)
	})
}

func TestInEventRoomOutsideOfARoom(t *testing.T) {
	hstest.Parallel(t)
	store, _, _ := newStore(t)
	called := false
	store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
		called = true
		assert.ErrorIs(t, room.Put(ctx, "k", 1), roomkv.ErrUnknownRoom)
	})(t.Context(), &event.Event{Type: event.ToDeviceDummy})
	assert.True(t, called)
}

// The way that a bot uses it: real messages, through the client's sync loop, each room with its own memory.
func TestInEventRoomThroughTheSyncLoop(t *testing.T) {
	hstest.Parallel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	store, bot, _ := newStore(t)
	user := hstest.Client(t)
	var rooms []id.RoomID
	for range 2 {
		room := hstest.Room(t, bot, &mautrix.ReqCreateRoom{Preset: "public_chat"})
		_, err := user.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		rooms = append(rooms, room)
	}

	handled := make(chan struct{}, 10)
	syncer := bot.Syncer.(mautrix.ExtensibleSyncer)
	syncer.OnEventType(event.EventMessage, store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		count, err := roomkv.Get[int](ctx, room, evt.Sender.String())
		if err != nil {
			assert.ErrorIs(t, err, roomkv.ErrNotFound)
		}
		assert.NoError(t, room.Put(ctx, evt.Sender.String(), count+1))
		handled <- struct{}{}
	}))
	var group sync.WaitGroup
	group.Go(func() { _ = bot.SyncWithContext(ctx) })
	for i, room := range []id.RoomID{rooms[0], rooms[1], rooms[0]} {
		_, err := user.SendText(ctx, room, fmt.Sprint("message ", i))
		require.NoError(t, err)
	}
	for range 3 {
		select {
		case <-handled:
		case <-ctx.Done():
			t.Fatal("the messages did not arrive")
		}
	}
	for i, want := range []int{2, 1} {
		room, err := store.WithRoom(ctx, rooms[i])
		require.NoError(t, err)
		got, err := roomkv.Get[int](ctx, room, user.UserID.String())
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	// The last poll is answered, not cancelled: a cancelled one can leave Dendrite's SQLite in a transaction for good.
	bot.StopSync()
	_, err := user.SendText(ctx, rooms[0], "bye")
	require.NoError(t, err)
	group.Wait()
}
