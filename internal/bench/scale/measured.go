package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// measured is what was measured on the homeserver in memory, and the sizes that the page answers for.
type measured struct {
	answered    []size
	rooms, deep []grown
	written     []written
	operations  []operation
	rivals      []rivals
	capacity    int // how many keys one state event holds
}

func (m measured) tables() string {
	t := new(table)
	m.days(t)
	m.shares(t)
	m.limits(t)
	m.sizes(t)
	m.requests(t)
	m.together(t)
	return t.String()
}

// sizes is what was measured of rooms and of keys.
func (m measured) sizes(t *table) {
	t.head("**Measured: rooms**, following. A bot begins and reads every key twice. It keeps then, in live heap:",
		"rooms × keys", "layout", "first sync, a room", "in roomkv, a room", "first `Get` of a room", "`Get` again", "keeps, a room", "a state event")
	for _, g := range m.rooms {
		n := float64(g.size.rooms)
		t.row(g.size, g.layout, bytesOf(g.first.down/n), span(time.Duration(float64(g.fed)/n)),
			count(g.begin.requests/n), count(g.again.requests/g.read()), bytesOf(g.heap/n), bytesOf(g.heap/min(g.layout.dicts(g.size), commit.MaxReplicas)))
	}
	t.head(fmt.Sprintf("**Measured: keys of one room**, an event for each, following. It reads up to %s keys. "+
		"Where a bot does not follow it keeps of a state event that it has written %s.", count(maxReads), m.kept()),
		"keys", "first sync", "in roomkv", "first `Get` of a key", "`Get` again", "keeps", "`Keys` brings")
	for _, g := range m.deep {
		list := bytesOf(g.list.down)
		if g.fails {
			list = "`ErrTooLarge`"
		}
		t.row(count(g.keys()), bytesOf(g.first.down), span(g.fed), count((g.begin.requests+g.reads.requests)/g.read()),
			count(g.again.requests/g.read()), bytesOf(g.heap), list)
	}
}

// kept is what a bot keeps that does not follow, in words.
func (m measured) kept() string {
	var texts []string
	for _, w := range m.written {
		if w.layout == oneEvent {
			texts = append(texts, fmt.Sprintf("%s with %d keys", bytesOf(w.heap), w.size.keys))
		}
	}
	return strings.Join(texts, ", ") + fmt.Sprintf(", %s with one", bytesOf(m.keptOf(perKey, m.rooms[0].size.keys)))
}

// keptOf is what it keeps of one.
func (m measured) keptOf(layout layout, keys int) float64 {
	for _, w := range m.written {
		if w.layout == layout && w.size.keys == keys {
			return w.heap
		}
	}
	return 0
}

// requests is what was measured of operations.
func (m measured) requests(t *table) {
	t.head("**Measured: operations.** Requests, and the bytes of their bodies. A rested `Put` comes a minute or more after the last one.",
		"keys", "layout", "follows", "`Get`", "down", "`Put`", "up", "down", "rested `Put`", "up", "down", "the sync brings for it")
	for _, o := range m.operations {
		brings := ""
		if o.following {
			brings = bytesOf(o.sync.down)
		}
		t.row(count(float64(o.keys)), o.layout, yes(o.following), count(o.get.requests), bytesOf(o.get.down),
			count(o.burst.requests), bytesOf(o.burst.up), bytesOf(o.burst.down),
			count(o.rested.requests), bytesOf(o.rested.up), bytesOf(o.rested.down), brings)
	}
}

// together is what was measured of processes that write one memory.
func (m measured) together(t *table) {
	t.head("**Measured: processes that write one room's memory** at once, one state event, keys of their own; "+
		fmt.Sprintf("the homeserver takes %s for a write. It orders writes as Dendrite does, or forks as Synapse does.", spread),
		"processes", "follow", "pause", "requests a `Put`", "with forks", "`Put`s a second in all", "with forks", "lost")
	for i, ordered := range m.rivals {
		if ordered.mode != fakehs.Linear {
			continue
		}
		forks := m.rivals[i+1]
		t.row(ordered.processes, yes(ordered.following), pauseOf(ordered.pause), count(ordered.perPut), count(forks.perPut),
			ordered.rate(), forks.rate(), ordered.lost+forks.lost)
	}
}

func pauseOf(pause time.Duration) string {
	if pause == 0 {
		return "none"
	}
	return span(pause)
}

func (r rivals) rate() string { return count(float64(r.puts*r.processes) / r.took.Seconds()) }

func federationTables(all []replicated) string {
	t := new(table)
	t.head(fmt.Sprintf("A bot on each of two Dendrites, in one room; then %d `Put`s of each at once, without a pause.", all[0].puts),
		"layout", "follow", "`Put` on A, median", "then readable on B after, median", "at most", "both at once: requests a `Put`", "events for "+count(float64(2*all[0].puts)),
		"`Put`s a second in all", "both have all after", "lost")
	for _, r := range all {
		t.row(r.layout, yes(r.following), span(r.put), span(r.readable[len(r.readable)/2]), span(r.readable[len(r.readable)-1]),
			count(r.perPut), r.events, count(float64(2*r.puts)/r.took.Seconds()), span(r.settled), r.lost)
	}
	return t.String()
}
