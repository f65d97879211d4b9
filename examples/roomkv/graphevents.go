package main

import (
	"context"
	"slices"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/examples/roomkv/internal/graph"
	"github.com/roomkv/roomkv/internal/matrix"
	internal "github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/past"
	"github.com/roomkv/roomkv/internal/wire"
)

// beyond is how many events are read beyond those that are drawn: what the oldest of these were made from.
const beyond = 20

// eventsOf are the latest events of the memory, the newest first, as they are drawn: with values, as far as the client can read them, or without.
func eventsOf(ctx context.Context, client *mautrix.Client, room id.RoomID, m *memory, limit int, values bool) ([]graph.Event, error) {
	settings := internal.Settings{EventType: m.eventType, Layout: internal.OneDict{Key: m.stateKey}}
	switch {
	case m.perKey:
		settings.Layout = internal.PerKey{}
	case m.shards != 0:
		settings.Layout = internal.Shards{N: m.shards}
	}
	in := internal.NewShared(client, settings, nil).Room(room)
	var listed []*matrix.Event
	for evt, err := range past.AllEvents(ctx, in) {
		if err != nil {
			return nil, err
		}
		if listed = append(listed, evt); len(listed) == limit+beyond {
			break
		}
	}
	byStateKey := map[string]*lineage{}
	for _, evt := range listed {
		of := byStateKey[*evt.StateKey]
		if of == nil {
			of = &lineage{}
			byStateKey[*evt.StateKey] = of
		}
		read := in.Parsed(evt)
		of.events = append(of.events, read)
		of.history.AddOlder(read)
	}
	for _, of := range byStateKey {
		of.findLost()
	}
	events := make([]graph.Event, 0, limit)
	for _, evt := range listed[:min(len(listed), limit)] {
		read := in.Parsed(evt)
		value := func(name, stored string) string {
			if !values {
				return ""
			}
			entry, err := in.Reader().KeysOnly().Entry(ctx, &internal.Record{Name: name, Stored: []byte(stored), Event: evt.ID})
			switch {
			case err != nil:
				return unreadable
			case len(entry.JSON) == 0:
				return "(large)" // in the media repository, and left there
			}
			return string(entry.JSON)
		}
		events = append(events, byStateKey[*evt.StateKey].drawn(read, *evt.StateKey, value))
	}
	return events, ctx.Err()
}

// lineage is the events of one state key.
type lineage struct {
	history merge.History
	events  []merge.Event   // the newest first
	lost    map[change]bool // what a merge has found not to count
}

// change is what an event did to a name, or with an empty name all that it did.
type change struct {
	event id.EventID
	name  string
}

func (l *lineage) findLost() {
	l.lost = map[change]bool{}
	for _, evt := range l.events {
		for event, names := range evt.Yields {
			if len(names) == 0 {
				names = []string{""}
			}
			for _, name := range names {
				l.lost[change{event, name}] = true
			}
		}
	}
}

// drawn is an event as it is drawn. Value reads what is stored under the name of a key that is not sealed.
func (l *lineage) drawn(evt merge.Event, stateKey string, value func(name, stored string) string) graph.Event {
	parents := l.parentsOf(evt.ID)
	d := graph.Event{
		ID: evt.ID.String(), StateKey: stateKey, Sender: evt.Sender.String(), Time: internal.Time(evt.Time).UTC(), Parents: []string{}, Changes: []graph.Change{},
		Guessed: !evt.Marked, Cut: !l.history.Known(evt.ID), Redacted: evt.Redacted, Unreadable: evt.Err != nil,
	}
	if wire.IsSealed(stateKey) {
		d.StateKey = "sealed " + hashOf(stateKey)
	}
	names := map[string]bool{}
	for name := range evt.Dict {
		names[name] = true
	}
	for _, parent := range parents {
		d.Parents = append(d.Parents, parent.ID.String())
		for name := range parent.Dict {
			names[name] = true
		}
	}
	if d.Cut || d.Redacted || d.Unreadable {
		return d
	}
	for name := range names {
		stored, there := evt.Dict[name]
		if len(parents) == 1 && !evt.Blind { // mostly, and then Origin need not search
			if before, had := parents[0].Dict[name]; had == there && before == stored {
				continue
			}
		}
		key, plain := wire.KeyOf(name)
		if !plain && !wire.IsSealed(name) || l.history.Origin(evt.ID, name) != evt.ID {
			continue
		}
		c := graph.Change{Key: key, Sealed: !plain, Removed: !there, Lost: l.lost[change{evt.ID, name}] || l.lost[change{evt.ID, ""}]}
		switch {
		case !plain:
			c.Key = hashOf(name)
		case there:
			c.Value = value(name, stored)
		}
		d.Changes = append(d.Changes, c)
	}
	slices.SortFunc(d.Changes, func(a, b graph.Change) int { return strings.Compare(a.Key, b.Key) })
	return d
}

// parentsOf are the events that the event was made from, the newest first: those before it that lead to none of the others.
func (l *lineage) parentsOf(event id.EventID) (parents []*merge.Event) {
	for i := range l.events {
		if before := &l.events[i]; before.ID != event && l.history.Descends(event, before.ID) {
			parents = append(parents, before)
		}
	}
	return slices.DeleteFunc(slices.Clone(parents), func(p *merge.Event) bool {
		return slices.ContainsFunc(parents, func(other *merge.Event) bool { return other != p && l.history.Descends(other.ID, p.ID) })
	})
}

// hashOf is the hash that a sealed name shows.
func hashOf(name string) string { return name[strings.LastIndex(name, ".")+1:] }

// unreadable is in place of a value.
const unreadable = "(unreadable)"

// addValues looks for the values that the client could not read: the store can have a key backup.
func addValues(ctx context.Context, store *roomkv.Store, events []graph.Event) error {
	wanted := map[string]map[string]*graph.Change{} // by key and event
	for _, evt := range events {
		for i := range evt.Changes {
			if c := &evt.Changes[i]; c.Value == unreadable {
				if wanted[c.Key] == nil {
					wanted[c.Key] = map[string]*graph.Change{}
				}
				wanted[c.Key][evt.ID] = c
			}
		}
	}
	for key, changes := range wanted {
		for entry, err := range store.History(ctx, key) {
			if err != nil && entry.Revision == "" {
				return err
			}
			c := changes[string(entry.Revision)]
			if c == nil {
				continue
			}
			if err == nil {
				c.Value = string(entry.Value)
			}
			if delete(changes, string(entry.Revision)); len(changes) == 0 {
				break
			}
		}
	}
	return nil
}
