package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// rivals are processes that put keys of their own into one room's memory.
type rivals struct {
	mode      fakehs.Mode
	layout    layout
	processes int
	following bool
	puts      int           // of each
	pause     time.Duration // of each between two of them

	perPut float64 // requests
	took   time.Duration
	lost   int
}

// spread is how long the homeserver takes for a write.
const spread = 5 * time.Millisecond

func measureRivals(ctx context.Context, s sizes) ([]rivals, error) {
	var all []rivals
	for _, pause := range []time.Duration{0, time.Second} {
		for _, processes := range s.processes {
			for _, following := range []bool{false, true} {
				for _, mode := range fakehs.Modes {
					all = append(all, rivals{mode: mode, layout: oneEvent, processes: processes, following: following, puts: s.puts, pause: pause})
				}
			}
		}
	}
	var group sync.WaitGroup
	errs := make([]error, len(all))
	for i := range all {
		one := func() { errs[i] = all[i].measure(ctx) }
		if all[i].pause == 0 {
			one() // alone, for it is about time
		} else {
			group.Go(one)
		}
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (r *rivals) measure(ctx context.Context) error {
	server := fakehs.New(fakehs.Options{Mode: r.mode, Seed: 1, Spread: spread})
	first, err := server.Register(ctx, "bot")
	if err != nil {
		return err
	}
	made, err := first.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
	if err != nil {
		return err
	}
	var bots []*bot
	for i := range r.processes {
		client, err := server.NewDevice(ctx, first.UserID)
		if err != nil {
			return err
		}
		b, err := newBot(ctx, client, r.layout, made.RoomID, r.following)
		if err != nil {
			return err
		}
		defer b.stop()
		if err := b.store.Put(ctx, key(i*r.puts), 0); err != nil {
			return err
		}
		bots = append(bots, b)
	}
	total, took, err := race(ctx, bots, r.puts, r.pause)
	if err != nil {
		return err
	}
	r.perPut, r.took = total.requests/float64(r.puts*len(bots)), took
	log.Printf("%d processes, %s, following %v, pause %s: %s", r.processes, r.mode, r.following, pauseOf(r.pause), span(took))
	r.lost, err = lost(ctx, first, r.layout, made.RoomID, len(bots)*r.puts)
	return err
}

// race has each bot put as many keys of its own, all at once.
func race(ctx context.Context, bots []*bot, puts int, pause time.Duration) (total traffic, took time.Duration, err error) {
	began := time.Now()
	var group sync.WaitGroup
	done, errs := make([]traffic, len(bots)), make([]error, len(bots))
	for i, b := range bots {
		group.Go(func() {
			time.Sleep(pause * time.Duration(i) / time.Duration(len(bots)))
			done[i], errs[i] = b.meter.during(func() error {
				for n := range puts {
					if err := b.store.Put(ctx, key(i*puts+n), 1000+n); err != nil {
						return err
					}
					time.Sleep(pause)
				}
				return nil
			})
		})
	}
	group.Wait()
	for i := range bots {
		if errs[i] != nil {
			return total, 0, errs[i]
		}
		total = total.plus(done[i])
	}
	return total, time.Since(began), nil
}

// lost is how many of the keys a new process does not find.
func lost(ctx context.Context, client *mautrix.Client, layout layout, room id.RoomID, want int) (int, error) {
	b, err := newBot(ctx, client, layout, room, false)
	if err != nil {
		return 0, err
	}
	keys, err := b.store.Keys(ctx)
	if err == nil && len(keys) > want {
		err = fmt.Errorf("%d keys of %d", len(keys), want)
	}
	return want - len(keys), err
}
