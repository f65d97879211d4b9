package main

import (
	"context"
	"time"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// rest is after how long a writer that does not follow looks anew for what others have written, and whether the room is encrypted by now. It is
// package commit's OwnFresh and a second.
const rest = 61 * time.Second

// settled is after how long the sync has brought what was put.
const settled = 50 * time.Millisecond

// operation is what one Get and one Put take, and what the sync brings for the Put.
type operation struct {
	layout    layout
	keys      int
	following bool

	rested traffic // a Put that comes a minute or more after the last one
	get    traffic // a Get, on average of those between two Puts
	burst  traffic // a Put after a Put
	sync   traffic // what the sync brings for it
}

// subject is a room in which operations are counted.
type subject struct {
	operation
	*bot
}

type subjects struct {
	all    []subject
	warmed time.Time
}

// prepare makes the rooms, and has their bots write there.
func prepare(ctx context.Context, keys []int) (*subjects, error) {
	var s subjects
	for _, layout := range layouts {
		for _, n := range keys {
			for _, following := range []bool{false, true} {
				client, rooms, err := filled(ctx, layout, size{1, n}, fakehs.Options{Seed: 1})
				if err != nil {
					return nil, err
				}
				b, err := newBot(ctx, client, layout, rooms[0], following)
				if err != nil {
					return nil, err
				}
				if err := b.store.Put(ctx, key(0), 1); err != nil {
					return nil, err
				}
				if _, err := roomkv.Get[int](ctx, b.store, key(0)); err != nil {
					return nil, err
				}
				s.all = append(s.all, subject{operation{layout: layout, keys: n, following: following}, b})
			}
		}
	}
	s.warmed = time.Now()
	return &s, nil
}

// measure counts. If they rest, it waits until the bots have not written for a minute.
func (s *subjects) measure(ctx context.Context, rests bool) ([]operation, error) {
	if rests {
		time.Sleep(time.Until(s.warmed.Add(rest)))
	}
	var all []operation
	for _, one := range s.all {
		done, err := one.measure(ctx)
		if err != nil {
			return nil, err
		}
		one.stop()
		all = append(all, done)
	}
	return all, nil
}

// measure has the bot put a key after a rest, then get it as often as on such a day, then put it several times in a burst.
func (s *subject) measure(ctx context.Context) (o operation, err error) {
	const burst = 10
	o = s.operation
	n := 1
	put := func() error {
		n++
		return s.store.Put(ctx, key(0), n)
	}
	if o.rested, err = s.meter.during(put); err != nil {
		return o, err
	}
	time.Sleep(settled)
	o.get, err = s.meter.during(func() error {
		for range reads / writes {
			if _, err := roomkv.Get[int](ctx, s.store, key(0)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return o, err
	}
	syncs, _ := s.meter.read()
	o.burst, err = s.meter.during(func() error {
		for range burst {
			if err := put(); err != nil {
				return err
			}
			time.Sleep(settled) // so that the sync brings each by itself
		}
		return nil
	})
	synced, _ := s.meter.read()
	o.get, o.burst, o.sync = o.get.times(1./(reads/writes)), o.burst.times(1./burst), synced.minus(syncs).times(1./burst)
	return o, err
}
