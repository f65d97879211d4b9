package main

import (
	"context"
	"fmt"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// layout is one of the two.
type layout string

const (
	oneEvent layout = "one event"
	perKey   layout = "per key"
)

var layouts = []layout{oneEvent, perKey}

func (l layout) option() roomkv.Option {
	if l == perKey {
		return roomkv.WithPerKeyState()
	}
	return roomkv.WithSingleStateKey("")
}

// bot is a process: a device with a store.
type bot struct {
	store *roomkv.Store
	meter *meter
	fed   *fed
	stop  func()
}

// newBot makes a process of the client's user with a store of the room. If it follows, its first sync is done.
func newBot(ctx context.Context, client *mautrix.Client, layout layout, room id.RoomID, following bool) (*bot, error) {
	b := &bot{meter: metered(client), fed: &fed{first: make(chan struct{})}, stop: func() {}}
	var err error
	if b.store, err = roomkv.New(client, room.String(), layout.option()); err != nil || !following {
		return b, err
	}
	syncer := client.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnSync(b.fed.before)
	if err := b.store.Follow(); err != nil {
		return nil, err
	}
	syncer.OnSync(b.fed.after)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	b.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		_ = b.store.Close(context.WithoutCancel(ctx))
	})
	select {
	case <-b.fed.first:
		return b, nil
	case <-ended:
		return nil, fmt.Errorf("the sync of %s has ended before its first response", client.UserID)
	}
}

// key is a key as bots have them: a score of a member. With its value it is about 40 bytes.
func key(n int) string { return fmt.Sprintf("score/@member%04d:example.org", n) }

func values(keys int) map[string]any {
	all := make(map[string]any, keys)
	for i := range keys {
		all[key(i)] = 1000 + i
	}
	return all
}

// filled makes rooms with as many keys each, on a homeserver that takes no time. It returns a client of the bot's that has seen nothing yet.
func filled(ctx context.Context, layout layout, of size, options fakehs.Options) (client *mautrix.Client, rooms []id.RoomID, err error) {
	server := fakehs.New(options)
	writer, err := server.Register(ctx, "bot")
	if err != nil {
		return nil, nil, err
	}
	for range of.rooms {
		room, err := writer.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
		if err != nil {
			return nil, nil, err
		}
		store, err := roomkv.New(writer, room.RoomID.String(), layout.option())
		if err != nil {
			return nil, nil, err
		}
		if err := store.PutAll(ctx, values(of.keys)); err != nil {
			return nil, nil, err
		}
		rooms = append(rooms, room.RoomID)
	}
	client, err = server.NewDevice(ctx, writer.UserID)
	return client, rooms, err
}
