package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"runtime"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// atOnce is a homeserver that takes no time.
var atOnce = fakehs.Options{Seed: 1, Lag: -1, Spread: -1}

// maxReads is how many keys are read where there are more in one room: enough for all that a process knows to be others.
const maxReads = 10_000

// grown is what a process takes that begins with so many rooms.
type grown struct {
	layout layout
	size   size

	first traffic       // the first sync
	fed   time.Duration // what roomkv makes of that
	begin traffic       // the first Get of each room
	reads traffic       // then a Get of every key
	again traffic       // and once more
	heap  float64       // bytes that it keeps then
	list  traffic       // Keys, in the first room
	fails bool          // whether that is too large
}

func (g grown) keys() float64 { return float64(g.size.rooms * g.size.keys) }

// read is how many keys were read.
func (g grown) read() float64 { return float64(g.size.rooms * min(g.size.keys, maxReads)) }

// dicts is of how many state events a process with such rooms reads something.
func (l layout) dicts(of size) float64 {
	if l == oneEvent {
		return float64(of.rooms)
	}
	return float64(of.rooms * of.keys)
}

// measureRooms has a bot follow and read every key.
func measureRooms(ctx context.Context, layout layout, of size) (grown, error) {
	began := time.Now()
	client, rooms, err := filled(ctx, layout, of, atOnce)
	if err != nil {
		return grown{}, err
	}
	built := time.Since(began)
	commit.ThisProcess = new(commit.Process) // a new process knows nothing of what the one has written that made the rooms
	g := grown{layout: layout, size: of}
	b, err := newBot(ctx, client, layout, rooms[0], true)
	if err != nil {
		return grown{}, err
	}
	g.first, _ = b.meter.read()
	g.fed = b.fed.took
	time.Sleep(time.Second) // for what is not believed at once: that there is nothing
	all := min(of.keys, maxReads)
	for _, step := range []struct {
		keys int
		into *traffic
	}{{1, &g.begin}, {all, &g.reads}, {all, &g.again}} {
		if *step.into, err = b.meter.during(func() error { return b.read(ctx, rooms, step.keys) }); err != nil {
			return grown{}, err
		}
	}
	with := heap()
	g.list, err = b.meter.during(func() error {
		_, err := b.store.Keys(ctx)
		if errors.Is(err, roomkv.ErrTooLarge) {
			g.fails, err = true, nil
		}
		return err
	})
	if err != nil {
		return grown{}, err
	}
	b.stop()
	runtime.KeepAlive(b)
	b, client = nil, nil
	g.heap = with - heap()
	runtime.KeepAlive(rooms)
	log.Printf("%s, %d rooms × %d keys: made in %s, measured in %s", layout, of.rooms, of.keys, span(built), span(time.Since(began)-built))
	return g, nil
}

// read gets as many keys of each room, as a handler of the room's events does.
func (b *bot) read(ctx context.Context, rooms []id.RoomID, keys int) error {
	for _, room := range rooms {
		store, err := b.store.WithRoom(ctx, room)
		if err != nil {
			return err
		}
		for i := range keys {
			if _, err := roomkv.Get[int](ctx, store, key(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// written is what a process keeps that does not follow and has put every key once.
type written struct {
	layout layout
	size   size
	heap   float64 // bytes of each state event
}

func measureWritten(ctx context.Context, layout layout, of size) (written, error) {
	w := written{layout: layout, size: of}
	client, rooms, err := filled(ctx, layout, size{of.rooms, 0}, atOnce)
	if err != nil {
		return w, err
	}
	b, err := newBot(ctx, client, layout, rooms[0], false)
	if err != nil {
		return w, err
	}
	for _, room := range rooms {
		store, err := b.store.WithRoom(ctx, room)
		if err != nil {
			return w, err
		}
		if err := store.PutAll(ctx, values(of.keys)); err != nil {
			return w, err
		}
	}
	with := heap()
	runtime.KeepAlive(b)
	b, client = nil, nil
	commit.ThisProcess = new(commit.Process)
	w.heap = (with - heap()) / min(layout.dicts(of), commit.MaxReplicas)
	runtime.KeepAlive(rooms)
	return w, nil
}

// heap is how many bytes are in use. What has a cleanup goes only after that has run.
func heap() float64 {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// measureCapacity finds how many keys one state event holds.
func measureCapacity(ctx context.Context) (int, error) {
	client, rooms, err := filled(ctx, oneEvent, size{1, 0}, atOnce)
	if err != nil {
		return 0, err
	}
	fits, not := 0, 5000
	for fits+1 < not {
		n := (fits + not) / 2
		store, err := roomkv.New(client, rooms[0].String(), roomkv.WithSingleStateKey(fmt.Sprint(n)))
		if err != nil {
			return 0, err
		}
		switch err := store.PutAll(ctx, values(n)); {
		case err == nil:
			fits = n
		case errors.Is(err, roomkv.ErrTooLarge):
			not = n
		default:
			return 0, err
		}
	}
	return fits, nil
}
