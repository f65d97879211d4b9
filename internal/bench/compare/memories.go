package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/lru"
)

// memory is what keeps texts by room and key.
type memory interface {
	fill(ctx context.Context, room id.RoomID, values map[string]string) error
	put(ctx context.Context, room id.RoomID, key, value string) error
	get(ctx context.Context, room id.RoomID, key string) (string, error)
}

// Kinds of memories. The raw call comes first.
const (
	raw       = "raw call"
	modify    = "read-modify-write"
	account   = "account data, LRU cache"
	byDefault = "roomkv"
	following = "roomkv, following"
	inNATS    = "NATS JetStream KV"
)

var kinds = []string{raw, modify, account, byDefault, following, inNATS}

// newMemory opens a memory of a kind. The client is nil where that is not in Matrix, and the connection where it is.
func newMemory(ctx context.Context, kind string, client *mautrix.Client, conn *nats.Conn) (memory, error) {
	switch kind {
	case raw:
		return &overwritten{state{client}, map[id.RoomID]map[string]string{}}, nil
	case modify:
		return state{client}, nil
	case account:
		return &accountData{client: client, cache: lru.Cache[id.RoomID, map[string]string]{Most: 1000}}, nil
	case inNATS:
		js, err := jetstream.New(conn)
		if err != nil {
			return nil, err
		}
		bucket, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "memory"})
		return inBucket{bucket}, err
	}
	return &inStores{client: client, follow: kind == following}, nil
}

var stateType = event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}

// state is the memory in one state event, which each write reads, changes and writes back.
type state struct{ client *mautrix.Client }

func (s state) fill(ctx context.Context, room id.RoomID, values map[string]string) error {
	_, err := s.client.SendStateEvent(ctx, room, stateType, "", values)
	return err
}

func (s state) read(ctx context.Context, room id.RoomID) (values map[string]string, err error) {
	return values, s.client.StateEvent(ctx, room, stateType, "", &values)
}

func (s state) put(ctx context.Context, room id.RoomID, key, value string) error {
	values, err := s.read(ctx, room)
	if err != nil {
		return err
	}
	values[key] = value
	return s.fill(ctx, room, values)
}

func (s state) get(ctx context.Context, room id.RoomID, key string) (string, error) {
	values, err := s.read(ctx, room)
	return values[key], err
}

// overwritten is the same without the read: the process writes what it knows. It is what a write takes at least.
type overwritten struct {
	state
	known map[id.RoomID]map[string]string
}

func (o *overwritten) put(ctx context.Context, room id.RoomID, key, value string) error {
	if o.known[room] == nil {
		var err error
		if o.known[room], err = o.read(ctx, room); err != nil {
			return err
		}
	}
	o.known[room][key] = value
	return o.fill(ctx, room, o.known[room])
}

// accountData is a map in the room's account data, written whole and read from a cache.
type accountData struct {
	client *mautrix.Client
	cache  lru.Cache[id.RoomID, map[string]string]
}

const accountType = "com.example.memory"

func (a *accountData) fill(ctx context.Context, room id.RoomID, values map[string]string) error {
	return a.client.SetRoomAccountData(ctx, room, accountType, values)
}

func (a *accountData) read(ctx context.Context, room id.RoomID) (values map[string]string, err error) {
	if values, ok := a.cache.Get(room); ok {
		return values, nil
	}
	if err = a.client.GetRoomAccountData(ctx, room, accountType, &values); err == nil {
		a.cache.Put(room, values)
	}
	return values, err
}

func (a *accountData) put(ctx context.Context, room id.RoomID, key, value string) error {
	values, err := a.read(ctx, room)
	if err != nil {
		return err
	}
	values = maps.Clone(values)
	values[key] = value
	a.cache.Put(room, values)
	return a.fill(ctx, room, values)
}

func (a *accountData) get(ctx context.Context, room id.RoomID, key string) (string, error) {
	values, err := a.read(ctx, room)
	return values[key], err
}

// inStores is roomkv, with one state event.
type inStores struct {
	client *mautrix.Client
	follow bool
	first  *roomkv.Store
	rooms  map[id.RoomID]*roomkv.Store
}

func (s *inStores) in(ctx context.Context, room id.RoomID) (store *roomkv.Store, err error) {
	if s.first == nil {
		if s.first, err = roomkv.New(s.client, room.String()); err != nil {
			return nil, err
		}
		if s.follow {
			if err := follow(s.first, s.client); err != nil {
				return nil, err
			}
		}
		s.rooms = map[id.RoomID]*roomkv.Store{}
	}
	if s.rooms[room] == nil {
		if s.rooms[room], err = s.first.WithRoom(ctx, room); err != nil {
			return nil, err
		}
	}
	return s.rooms[room], nil
}

// follow returns when the sync has brought something.
func follow(store *roomkv.Store, client *mautrix.Client) error {
	if err := store.Follow(); err != nil {
		return err
	}
	began := make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		begin()
		return true
	})
	failed := make(chan error, 1)
	go func() { failed <- client.Sync() }()
	select {
	case <-began:
		return nil
	case err := <-failed:
		return err
	}
}

func (s *inStores) fill(ctx context.Context, room id.RoomID, values map[string]string) error {
	store, err := s.in(ctx, room)
	if err != nil {
		return err
	}
	all := make(map[string]any, len(values))
	for key, value := range values {
		all[key] = value
	}
	return store.PutAll(ctx, all)
}

func (s *inStores) put(ctx context.Context, room id.RoomID, key, value string) error {
	store, err := s.in(ctx, room)
	if err != nil {
		return err
	}
	return store.Put(ctx, key, value)
}

func (s *inStores) get(ctx context.Context, room id.RoomID, key string) (value string, err error) {
	store, err := s.in(ctx, room)
	if err != nil {
		return "", err
	}
	return value, store.Get(ctx, key, &value)
}

// inBucket is one bucket with the keys of all rooms.
type inBucket struct{ jetstream.KeyValue }

func (b inBucket) fill(ctx context.Context, room id.RoomID, values map[string]string) error {
	for key, value := range values {
		if err := b.put(ctx, room, key, value); err != nil {
			return err
		}
	}
	return nil
}

func (b inBucket) put(ctx context.Context, room id.RoomID, key, value string) error {
	_, err := b.PutString(ctx, room.String()+"."+key, value)
	return err
}

func (b inBucket) get(ctx context.Context, room id.RoomID, key string) (string, error) {
	entry, err := b.Get(ctx, room.String()+"."+key)
	if err != nil {
		return "", err
	}
	return string(entry.Value()), nil
}

// natsServer is a NATS server in this process, which others reach on loopback.
type natsServer struct {
	*server.Server
	dir string
}

func startNATS() (*natsServer, error) {
	dir, err := os.MkdirTemp("", "roomkv-nats-")
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err == nil {
		go s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			err = errors.New("the NATS server does not start")
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &natsServer{s, dir}, nil
}

func (s *natsServer) close() {
	s.Shutdown()
	s.WaitForShutdown()
	_ = os.RemoveAll(s.dir)
}
