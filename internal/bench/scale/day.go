package main

import (
	"fmt"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/commit"
)

// A day's work in each room, spread evenly over the day, the room's keys, and the processes that share the room.
const (
	writes = 100
	reads  = 1000
)

// idleSyncs are the syncs of a day in which nothing happens: mautrix has the homeserver answer after 30 seconds.
const idleSyncs = 24 * 60 * 2

// ratedWrites is what Synapse's default rc_message lets an account write in a day: 0.2 a second.
const ratedWrites = 24 * 60 * 60 / 5

// listed is how much of a listing roomkv holds, and eventCost what it counts for an event beside its bytes: both are package matrix's.
const (
	listed    = 32 << 20
	eventCost = 512
)

// day is what one process takes in a day, computed.
type day struct {
	other    traffic // without the sync
	syncs    traffic // with one first sync
	keeps    float64 // bytes of heap
	history  float64 // bytes of state events that the homeserver stores
	computed bool    // whether fewer rooms were measured
}

func (d day) down() float64 { return d.other.down + d.syncs.down }

// dayOf computes the day of a process that has these rooms for itself.
func (m measured) dayOf(layout layout, of size, following bool) day {
	rooms, dicts := float64(of.rooms), layout.dicts(of)
	o, asks := m.operation(layout, of.keys, following), m.operation(layout, of.keys, false).get
	d := day{other: o.rested.times(rooms * writes), history: rooms * writes * o.burst.up}
	if !following {
		d.other = d.other.plus(asks.times(rooms * reads))
		d.keeps, d.computed = m.keptOf(layout, of.keys)*min(dicts, commit.MaxReplicas), true
		return d
	}
	g := m.largest(layout, of)
	factor := rooms / float64(g.size.rooms)
	d.computed = factor != 1
	d.keeps = g.heap * min(dicts, commit.MaxReplicas) / min(layout.dicts(g.size), commit.MaxReplicas)
	d.syncs = g.first.times(factor).plus(o.sync.times(rooms * writes))
	d.syncs.requests += idleSyncs
	d.other = d.other.plus(o.get.times(rooms * reads))
	if unknown := 1 - commit.MaxReplicas/dicts; unknown > 0 {
		d.other = d.other.plus(asks.times(rooms * reads * unknown * m.missed(layout)))
	}
	return d
}

// missed is how many requests a Get takes of a state event that the process knew once, or, where so many were not measured, has never known.
func (m measured) missed(layout layout) (requests float64) {
	for _, g := range append(m.rooms, m.deep...) {
		if g.layout != layout {
			continue
		}
		if read := layout.dicts(size{g.size.rooms, min(g.size.keys, maxReads)}); read > commit.MaxReplicas {
			return g.again.requests / read
		}
		requests = g.begin.requests / float64(g.size.rooms)
	}
	return requests
}

// operation is what was measured at that number of keys.
func (m measured) operation(layout layout, keys int, following bool) (found operation) {
	for _, o := range m.operations {
		if o.layout == layout && o.keys == keys && o.following == following {
			found = o
		}
	}
	return found
}

// largest is the largest size that was measured with as many keys a room and no more rooms. Where all have more rooms it is the smallest.
func (m measured) largest(layout layout, of size) (found grown) {
	for _, g := range m.rooms {
		if g.layout != layout || g.size.keys != of.keys {
			continue
		}
		if fits := g.size.rooms <= of.rooms; found.size.rooms == 0 || fits == (g.size.rooms > found.size.rooms) {
			found = g
		}
	}
	return found
}

func (m measured) days(t *table) {
	t.head("**A day of one process.** Of two figures the first is of a bot that follows, the second of one that does not. * was computed from fewer rooms.",
		"rooms × keys", "layout", "keys", "requests", "syncs, at most", "down", "up", "first sync", "keeps", "history grows")
	for _, of := range m.answered {
		for _, layout := range layouts {
			follows, asks := m.dayOf(layout, of, true), m.dayOf(layout, of, false)
			g, star := m.largest(layout, of), ""
			if follows.computed {
				star = "*"
			}
			t.row(of, layout, count(float64(of.rooms*of.keys)), both(count(follows.other.requests), count(asks.other.requests)),
				count(follows.syncs.requests), both(bytesOf(follows.down()), bytesOf(asks.down())), bytesOf(follows.other.up),
				bytesOf(g.first.down*float64(of.rooms)/float64(g.size.rooms))+star,
				both(bytesOf(follows.keeps)+star, bytesOf(asks.keeps)+"*"), bytesOf(follows.history))
		}
	}
}

func both(follows, asks string) string { return follows + " / " + asks }

func (s size) String() string { return fmt.Sprintf("%s × %d", count(float64(s.rooms)), s.keys) }

// shares is what several processes take.
func (m measured) shares(t *table) {
	t.head("**Several processes**, following, one state event (computed): rooms of its own for each, or all rooms shared by all. The writes in all are the same.",
		"rooms × keys", "processes", "own rooms: requests in all", "each keeps", "down in all", "shared rooms: requests in all", "each keeps", "down in all")
	for _, of := range m.answered {
		if of.keys != m.answered[0].keys {
			continue
		}
		shared := m.dayOf(oneEvent, of, true)
		for _, n := range []int{1, 4, 16} {
			part := size{max(1, of.rooms/n), of.keys}
			own, parts := m.dayOf(oneEvent, part, true), float64(of.rooms)/float64(part.rooms)
			t.row(of, n, count(parts*own.other.requests), bytesOf(own.keeps), bytesOf(parts*own.down()),
				count(shared.other.requests), bytesOf(shared.keeps), bytesOf(shared.other.down+float64(n)*shared.syncs.down))
		}
	}
}

// limits are what breaks first, and where.
func (m measured) limits(t *table) {
	var largest grown
	for _, g := range m.rooms {
		if g.layout == oneEvent && g.size.rooms >= largest.size.rooms {
			largest = g
		}
	}
	deepest := m.deep[len(m.deep)-1]
	long := m.operation(oneEvent, 1000, true).burst
	perRoom, perEvent := largest.first.down/float64(largest.size.rooms), deepest.first.down/deepest.keys()
	response := float64(mautrix.DefaultResponseSizeLimit)
	t.head("**What breaks first**, from small bots to large ones.", "limit", "reached at", "then", "knob")
	t.row("Synapse's default `rc_message`: 12 writes a minute for an account",
		fmt.Sprintf("%d rooms of %d writes a day, half as many if encrypted (computed)", ratedWrites/writes, writes),
		"each further write waits 5 s", "`override_ratelimit` for the bot's account; `WithFlushEvery`; `PutAll`; an account for each partition of the rooms")
	t.row("64 KiB of a state event", count(float64(m.capacity))+" keys in a room (measured)", "`ErrTooLarge`",
		"`WithShards`; an event for each key; fewer keys in more rooms")
	t.row("the homeserver's disk", fmt.Sprintf("%s for each `Put` at 1,000 keys (measured), %s a day and room", bytesOf(long.up), bytesOf(long.up*writes)),
		"it fills up: homeservers keep old state", "an event for each key; fewer keys in more rooms")
	t.row(fmt.Sprintf("%s state events that a process knows (`commit.MaxReplicas`)", count(commit.MaxReplicas)),
		"as many rooms, rooms times *n* with `WithShards(n)`, or keys with an event for each", fmt.Sprintf("a `Get` of another takes %s requests, %s with an event for each key (measured)",
			count(m.missed(oneEvent)), count(m.missed(perKey))), "one state event a room; rooms as partitions")
	t.row("32 MiB that `Keys` and `All` hold", fmt.Sprintf("about %s keys in a room with an event for each (computed; measured: %s)",
		count(listed/(perEvent+eventCost)), m.listings()), "`ErrTooLarge`; all else goes on", "fewer keys in more rooms")
	t.row(fmt.Sprintf("%d MiB of one response (`mautrix.DefaultResponseSizeLimit`)", mautrix.DefaultResponseSizeLimit>>20),
		fmt.Sprintf("%s rooms of %d keys, or %s keys with an event for each (computed)", count(response/perRoom), largest.size.keys, count(response/perEvent)),
		"the first sync fails, and with it the bot", "a `SyncStore` that keeps its token; rooms as partitions; mautrix's limit")
}

func (m measured) listings() string {
	text := ""
	for i, g := range m.deep {
		if i > 0 {
			text += ", "
		}
		text += count(g.keys()) + " work"
		if g.fails {
			text += " not"
		}
	}
	return text
}
