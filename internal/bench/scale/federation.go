package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
)

// sides are two bots in one room, each on a homeserver of its own.
type sides struct {
	clients [2]*mautrix.Client
	room    id.RoomID
}

// replicated is what two homeservers did with one layout.
type replicated struct {
	layout    layout
	following bool

	put      time.Duration   // the median of Puts on A
	readable []time.Duration // how much later B has each, in order
	puts     int             // then, of each side at once
	perPut   float64         // requests
	events   int             // of the memory, for these
	took     time.Duration   // until all Puts had returned
	settled  time.Duration   // and how much later each side had all keys
	lost     int
}

// patience is how long each side may take to have all keys.
const patience = 30 * time.Second

func federation(ctx context.Context, s sizes) (text string, err error) {
	pair, err := homeserver.StartPair(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	var all []replicated
	for _, layout := range layouts {
		for _, following := range []bool{false, true} {
			r := replicated{layout: layout, following: following, puts: s.federated}
			if err := r.measure(ctx, pair); err != nil {
				return "", err
			}
			all = append(all, r)
		}
	}
	return federationTables(all), nil
}

// join makes a room with a bot on each homeserver.
func join(ctx context.Context, pair *homeserver.Pair) (s sides, err error) {
	for i, server := range []*homeserver.Server{pair.A, pair.B} {
		if s.clients[i], err = server.Register(ctx, "bot"); err != nil {
			return s, err
		}
	}
	made, err := s.clients[0].CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "trusted_private_chat", Invite: []id.UserID{s.clients[1].UserID}})
	if err != nil {
		return s, err
	}
	s.room = made.RoomID
	return s, until(func() (bool, error) { // the invitation arrives
		_, err := s.clients[1].JoinRoomByID(ctx, s.room)
		return err == nil, nil
	})
}

// until waits for something to be so.
func until(so func() (bool, error)) error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		if yes, err := so(); yes || err != nil {
			return err
		}
	}
	return fmt.Errorf("not within %s", patience)
}

func (r *replicated) measure(ctx context.Context, pair *homeserver.Pair) error {
	s, err := join(ctx, pair)
	if err != nil {
		return err
	}
	var bots []*bot
	for i, client := range s.clients {
		b, err := newBot(ctx, client, r.layout, s.room, r.following)
		if err != nil {
			return err
		}
		defer b.stop()
		if err := b.store.Put(ctx, key(i*r.puts), 0); err != nil {
			return err
		}
		bots = append(bots, b)
	}
	if _, err := r.converge(ctx, bots, 2); err != nil {
		return err
	}
	if err := r.delays(ctx, bots); err != nil {
		return err
	}
	before, err := r.stored(ctx, s)
	if err != nil {
		return err
	}
	total, took, err := race(ctx, bots, r.puts, 0)
	if err != nil {
		return err
	}
	r.perPut, r.took = total.requests/float64(2*r.puts), took
	if r.settled, err = r.converge(ctx, bots, 2*r.puts); err != nil {
		return err
	}
	after, err := r.stored(ctx, s)
	r.events = after - before
	return err
}

// delays measures how much later than on A what was put there is readable on B.
func (r *replicated) delays(ctx context.Context, bots []*bot) error {
	var puts []time.Duration
	for n := range 20 {
		want := 1 + n
		began := time.Now()
		if err := bots[0].store.Put(ctx, key(0), want); err != nil {
			return err
		}
		puts = append(puts, time.Since(began))
		began = time.Now()
		err := until(func() (bool, error) {
			got, err := roomkv.Get[int](ctx, bots[1].store, key(0))
			return got == want, err
		})
		if err != nil {
			return err
		}
		r.readable = append(r.readable, time.Since(began))
	}
	slices.Sort(puts)
	slices.Sort(r.readable)
	r.put = puts[len(puts)/2]
	return nil
}

// converge waits until both sides have so many keys. What is then not there counts as lost.
func (r *replicated) converge(ctx context.Context, bots []*bot, want int) (time.Duration, error) {
	began := time.Now()
	for {
		least := want
		for _, b := range bots {
			keys, err := b.store.Keys(ctx)
			if err != nil {
				return 0, err
			}
			least = min(least, len(keys))
		}
		r.lost = want - least
		if took := time.Since(began); r.lost == 0 || took > patience {
			return took, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stored is how many events of the memory A lists.
func (r *replicated) stored(ctx context.Context, s sides) (int, error) {
	var from string
	found := map[id.EventID]bool{}
	for {
		filter := &mautrix.FilterPart{Limit: 100}
		page, err := s.clients[0].Messages(ctx, s.room, from, "", mautrix.DirectionBackward, filter, 100)
		if err != nil {
			return 0, err
		}
		for _, evt := range page.Chunk {
			if evt.Type.Type == roomkv.DefaultEventType {
				found[evt.ID] = true
			}
		}
		if page.End == "" || len(page.Chunk) == 0 {
			return len(found), nil
		}
		from = page.End
	}
}
