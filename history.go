package roomkv

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// rivals is how many events that are listed after one are looked at beside it: writers that have not seen one another are not
// further apart.
const rivals = 20

// History returns every revision of a key, the newest first, as far as the homeserver has it: an [Entry] for each state event
// that changed what is stored under the key, with who sent it and when. Where the key was removed, the entry is Deleted.
//
// In the single-state-key layout an event that changed other keys is no revision of this one, nor is one that merges what
// others have written. Of writes at the same time each is a revision, also one that did not count; the one that counts comes
// first. Writes of one process that shared an event are one revision, the last of them. What an encrypted event holds is not
// compared: a value that was encrypted once more is a revision.
//
// A value that cannot be read comes as an error beside the entry's other fields, and the iteration goes on: [ErrUndecryptable],
// [ErrUntrusted], [ErrCorrupt], and [ErrRedacted] where the event or the encrypted one was redacted. Of a redacted event of the
// single-state-key layout nobody knows what it had changed: it is a revision where the values before and after differ.
// Other errors end the iteration: [ErrInvalidKey], [ErrWrongSecret] and those of requests. A key that never was
// has no revisions, and that is no error. With [WithSealedKeys] what was stored before it was sealed is not among them.
//
// The history is read as the iteration goes on, backwards through the room's events, of which Matrix can ask for those of the
// store's type but not for those of one key. It takes a request to begin and one for each page of at most 100 events, less
// where they are large; Dendrite counts all events of the room, Synapse those of the store's type. An encrypted value
// that this process has not seen takes one more.
func (s *Store) History(ctx context.Context, key string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		state, err := s.state(ctx, key)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for rev, err := range state.revisions(ctx, state.NameOf(key)) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			entry, err := rev.entry(ctx, state.Reader())
			if entry.Key = key; !yield(entry, err) {
				return
			}
		}
	}
}

// past reads back through the room's events of the store's type.
type past struct {
	roomState
	from  string
	limit int
	been  map[string]bool     // where pages began
	given map[id.EventID]bool // the events of the last page
	early []id.EventID        // events that came before their turn
	ended bool                // there is nothing older, or the homeserver does not have it
	whole bool                // there is nothing older
}

// How many events a page asks for at first, and at most.
const (
	firstPage = 20
	maxPage   = 100
	pageBytes = 512 << 10 // about as many bytes a page may have
)

// begin gives the latest events, the newest first. What is current and was sent after them all is one of them: Dendrite lists
// an event some milliseconds after it has acknowledged it.
func (p *past) begin(ctx context.Context, current ...*matrix.Event) (events []*matrix.Event, err error) {
	const firstPause = 10 * time.Millisecond
	for pause := firstPause; ; pause *= 2 {
		p.from, p.limit, p.ended, p.whole = "", firstPage, false, false
		p.been, p.given = map[string]bool{}, map[id.EventID]bool{}
		events = nil
		for len(events) == 0 && !p.ended {
			if events, err = p.turn(ctx); err != nil {
				return nil, err
			}
		}
		late := slices.DeleteFunc(slices.Clone(current), func(evt *matrix.Event) bool {
			return p.given[evt.ID] || len(events) > 0 && evt.Time <= events[0].Time
		})
		if pause > firstPause { // mostly it is listed by now, and nobody has to be asked
			if late, err = p.unlisted(ctx, late, events); err != nil {
				return nil, err
			}
			current = late
		}
		if len(late) == 0 {
			return events, nil
		}
		if pause > 200*time.Millisecond {
			slices.SortFunc(late, func(a, b *matrix.Event) int { return cmp.Compare(b.Time, a.Time) })
			for _, evt := range late {
				evt.Listed = true
				p.early = append(p.early, evt.ID)
			}
			return slices.Concat(late, events), nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unlisted leaves those of the late events that the homeserver has not stored before the latest one that it lists. The others are
// on a later page: the clock of the homeserver that sent them is ahead.
func (p *past) unlisted(ctx context.Context, late, events []*matrix.Event) ([]*matrix.Event, error) {
	if len(late) == 0 || len(events) == 0 {
		return late, nil
	}
	latest, known, err := p.Stored(ctx, events[0].ID)
	if err != nil || !known {
		return late, err
	}
	var unlisted []*matrix.Event
	for _, evt := range late {
		at, known, err := p.Stored(ctx, evt.ID)
		if err != nil {
			return nil, err
		}
		if !known || at > latest {
			unlisted = append(unlisted, evt)
		}
	}
	return unlisted, nil
}

// turn gives the next page. It can be empty and not the last.
func (p *past) turn(ctx context.Context) ([]*matrix.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	page, err := p.Page(ctx, p.from, p.limit)
	if err != nil {
		return nil, err
	}
	p.been[matrix.Token(p.from)] = true
	p.from, p.ended, p.whole = matrix.LetGo(page.Next), p.been[matrix.Token(page.Next)], page.First
	events := slices.DeleteFunc(page.Events, func(evt *matrix.Event) bool { return p.given[evt.ID] || slices.Contains(p.early, evt.ID) })
	clear(p.given)
	size := 0
	for _, evt := range events {
		p.given[evt.ID] = true
		size += len(evt.Content) + len(evt.Unsigned.Before)
	}
	p.limit = maxPage
	if size > 0 {
		p.limit = max(3, min(maxPage, pageBytes*len(events)/size))
	}
	return events, nil
}

// revision is a record of one event, or what became of it.
type revision struct {
	memory.Record
	deleted bool
	evt     *pastEvent
}

func (r *revision) entry(ctx context.Context, reader memory.Reader) (Entry, error) {
	read := memory.Entry{Record: r.Record}
	var err error
	if !r.deleted {
		read, err = reader.Entry(ctx, &r.Record)
	}
	entry := entryOf(read)
	entry.Deleted = r.deleted
	return entry, err
}

// revisions are the events that changed what is stored under the name, the newest first.
func (r roomState) revisions(ctx context.Context, name string) iter.Seq2[*revision, error] {
	return func(yield func(*revision, error) bool) {
		stateKey := r.core.Layout.StateKey(name)
		current, err := r.Get(ctx, stateKey)
		if err != nil || current == nil {
			if err != nil {
				yield(nil, err)
			}
			return
		}
		if dict, err := r.core.Layout.Parse(stateKey, current.Content); err == nil && r.core.Layout.Atomic() {
			if err := r.CheckNames(dict.Names()); err != nil {
				yield(nil, err)
				return
			}
		}
		back := past{roomState: r}
		line := line{Place: memory.Place{Room: r.Room, StateKey: stateKey}, name: name}
		events, err := back.begin(ctx, current)
		for ; err == nil; events, err = back.turn(ctx) {
			for _, evt := range events {
				if *evt.StateKey == stateKey {
					line.events = append(line.events, r.readPast(evt))
				}
			}
			for _, rev := range line.judge(back.ended) {
				if !yield(rev, nil) {
					return
				}
			}
			if back.ended {
				return
			}
		}
		yield(nil, err)
	}
}

// line finds the revisions of one name among the events of its dict.
type line struct {
	memory.Place
	name   string
	events []*pastEvent // those that are not judged yet, the newest first
	newer  *string      // what the last event that was judged and not redacted has, nil before that
}

// absent stands for what an event has that lacks the name; no JSON is empty.
const absent = ""

// mostRivals bounds how many events wait for their parents to be found.
const mostRivals = 500

// pastEvent is an event and what it says.
type pastEvent struct {
	*matrix.Event
	read merge.Event
}

// readPast reads an event, once for all lines that it is in.
func (r roomState) readPast(evt *matrix.Event) *pastEvent {
	return &pastEvent{evt, r.Parsed(evt)}
}

// judge gives the revisions among the events of which it can be told by now, the newest first, and forgets these.
func (l *line) judge(ended bool) []*revision {
	var h merge.History
	has := make([]string, len(l.events)) // what each has under the name
	older := absent
	unread := 0 // from there on nothing says what was before those that were redacted
	for i, evt := range slices.Backward(l.events) {
		read := evt.read
		if !evt.Redacted() && read.Err == nil {
			older = absent
			if stored, ok := read.Dict[l.name]; ok {
				older = stored
			}
			unread = max(unread, i+1)
		}
		has[i] = older
	}
	for i, evt := range l.events {
		read := evt.read
		read.Err, read.Redacted = nil, false
		if read.Dict = map[string]string{}; has[i] != absent {
			read.Dict[l.name] = has[i]
		}
		h.AddOlder(read)
	}
	n := len(l.events)
	if !ended {
		n = min(max(0, n-rivals), unread)
		if i := slices.IndexFunc(l.events[:n], func(evt *pastEvent) bool { return !h.Known(evt.ID) }); i >= 0 && len(l.events) < mostRivals {
			n = i
		}
		n = l.whole(&h, n)
	}
	var found []*revision
	for i, evt := range l.events[:n] {
		if rev := l.at(&h, i, has); rev != nil {
			found = append(found, rev)
		}
		if !evt.Redacted() {
			l.newer = &has[i]
		}
	}
	for i := 1; i < len(found); i++ {
		for j := i; j > 0 && counts(&h, found[j].evt, found[j-1].evt); j-- {
			found[j-1], found[j] = found[j], found[j-1]
		}
	}
	l.events = slices.Clone(l.events[n:])
	return found
}

// whole is how many of the first n events can be judged without parting rivals: all of them descend from what comes next.
func (l *line) whole(h *merge.History, n int) int {
	for most := n; n > max(0, most-rivals); n-- {
		if !slices.ContainsFunc(l.events[max(0, n-rivals):n], func(evt *pastEvent) bool { return !h.Descends(evt.ID, l.events[n].ID) }) {
			return n
		}
	}
	return n
}

// at is nil where the event is no revision of the name.
func (l *line) at(h *merge.History, i int, has []string) *revision {
	evt := l.events[i]
	rev := &revision{Record: memory.Record{Name: l.name, Event: evt.ID, Sender: evt.Sender, Time: time.UnixMilli(evt.Time)}, evt: evt}
	read := evt.read
	switch {
	case evt.Redacted():
		if l.Layout.Atomic() && l.newer != nil && *l.newer == has[i] {
			return nil
		}
		rev.Err = fault.Of(ErrRedacted, nil, "event %s in %s", evt.ID, l.ID)
	case read.Err != nil:
		rev.Err = read.Err
	case h.Origin(evt.ID, l.name) != evt.ID:
		return nil
	default:
		rev.deleted = has[i] == absent
		rev.Stored = []byte(has[i])
	}
	return rev
}

// counts tells whether a counts rather than b, which the homeserver lists as the later one, where neither has seen the other.
func counts(h *merge.History, a, b *pastEvent) bool {
	if h.Descends(a.ID, b.ID) || h.Descends(b.ID, a.ID) {
		return false
	}
	first, second := a.read, b.read
	if first.Conditional || second.Conditional {
		return !first.Conditional || second.Conditional
	}
	return cmp.Or(cmp.Compare(first.Time, second.Time), cmp.Compare(first.ID, second.ID)) > 0
}

// visible leaves the names that stand for keys which a store with these settings sees.
func (r roomState) visible(names map[string]string) map[string]string {
	names = maps.Clone(names)
	maps.DeleteFunc(names, func(name, _ string) bool {
		_, plain := wire.KeyOf(name)
		return plain && r.core.Secret != nil || !plain && !wire.IsSealed(name)
	})
	return names
}
