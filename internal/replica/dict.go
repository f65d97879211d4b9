// Package replica holds what this process knows of dicts: copies that reads are served from, fed by what is read,
// what is written, and what the client's sync brings.
package replica

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// kept is how many events a dict's history keeps once they are merged, for writers that began from one of them.
const kept = 24

// most is how many events a history may have. One that gets larger, because nobody merges, is forgotten.
const most = 2000

// Dict is what is known of one dict. The zero value knows nothing. Its methods are safe for concurrent use.
type Dict struct {
	mu      sync.Mutex
	history merge.History
	epoch   int           // how often it was forgotten
	version int           // how often it has changed
	caught  bool          // whether the sync has come up with what was read, so that what it brings is newer
	loaded  bool          // whether the history begins with what was once current
	checked time.Time     // when the homeserver last said that there is nothing newer
	shown   time.Time     // when it last gave a reader what the history holds
	doubted time.Time     // when somebody last said that there is something newer
	users   int           // who reads or writes right now and must not miss what the sync brings
	changed chan struct{} // closed when something changes

	view atomic.Pointer[View] // nil where it must be worked out, or is not known
}

// View is a dict at one moment. It does not change, but for what readers remember with it.
type View struct {
	Names  map[string]string // what is stored, by name
	Event  id.EventID        // the latest event that it holds, empty where there is none
	Sender id.UserID         // of that event
	Time   int64             // of that event, in Unix milliseconds
	Err    error             // why that event could not be read

	mu    sync.RWMutex
	notes map[string]any
}

// Note remembers what was read of the view, for as long as somebody has the view.
func (v *View) Note(key string, what any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.notes == nil {
		v.notes = map[string]any{}
	}
	v.notes[key] = what
}

// Noted is what Note was given last for the key, or nil.
func (v *View) Noted(key string) any {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.notes[key]
}

// ViewOf is what one event says.
func ViewOf(e *merge.Event) *View {
	if e == nil {
		return &View{}
	}
	return &View{Names: e.Dict, Event: e.ID, Sender: e.Sender, Time: e.Time, Err: e.Err}
}

// View is the dict as it is known, or nil where it is not known for certain.
func (d *Dict) View() *View {
	if view := d.view.Load(); view != nil {
		return view
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	view := d.current()
	d.view.Store(view)
	return view
}

// Do lets f read and change the history, and tells everybody who waits.
func (d *Dict) Do(f func(h *merge.History)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.history)
	d.update()
}

// Look lets f read the history.
func (d *Dict) Look(f func(h *merge.History)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.history)
}

// Read is what f reads in the history. Of an event that it gives, Dict, Replaces and Partial can change once f has returned.
func Read[T any](d *Dict, f func(h *merge.History) T) (result T) {
	d.Look(func(h *merge.History) { result = f(h) })
	return result
}

// Has tells whether the event is in the history.
func (d *Dict) Has(event id.EventID) bool {
	return Read(d, func(h *merge.History) bool { return h.Has(event) })
}

// Feed adds events that one response of the sync brought; nobody sees some of them without the others. What nobody has asked for stays unknown.
func (d *Dict) Feed(events ...merge.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.loaded && d.users == 0 {
		return
	}
	var listed []merge.Event // the newest first
	older := 0               // how many of them, the last ones, are older than all that is there
	known := false           // whether one of them is there
	newer := map[id.EventID]bool{}
	for i, e := range events {
		isOlder := false
		switch {
		case d.history.Has(e.ID):
			known = true
			d.caught = d.caught || d.isHead(e.ID)
		case d.history.Had(e.ID): // a sync that brings again what it has brought
			continue
		default:
			switch d.history.Order(e, newer, events[i+1:]) {
			case merge.Before:
				isOlder = true
			case merge.After:
				newer[e.ID], d.caught = true, true
			case merge.Unordered:
				if !d.caught {
					d.forget()
					return
				}
			}
		}
		if listed = slices.Insert(listed, 0, e); isOlder {
			older = len(listed)
		}
	}
	switch {
	case len(listed) == 0:
		return
	case known:
		d.history.AddPage(listed, d.history.Now())
	default:
		d.history.AddPage(listed[:len(listed)-older], d.history.Now())
		d.history.AddOlder(listed[len(listed)-older:]...)
	}
	if d.users == 0 { // who writes must find again what it has sent
		d.history.Prune(kept)
	}
	if d.history.Len() > most {
		d.forget()
	}
	d.update()
}

// Begin is for a dict of which nothing is known, with what a sync has brought of it until that moment: what was current, and what came after
// that, the oldest first. Those that come from a list and were sent after settled, in Unix milliseconds, have no rivals that are not among these.
func (d *Dict) Begin(at time.Time, settled int64, events ...merge.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(events) == 0 {
		d.history.Rooted()
	}
	listed := slices.DeleteFunc(slices.Clone(events), func(e merge.Event) bool { return e.Partial })
	for _, e := range events {
		if e.Partial {
			e.Before = len(listed) > 0
			d.history.Add(e)
		}
	}
	slices.Reverse(listed)
	d.history.AddPage(listed, d.history.Now())
	for _, e := range listed {
		if e.Time > settled {
			d.history.Verify(e.ID)
		}
	}
	d.loaded, d.caught, d.checked = true, true, at
	d.update()
}

func (d *Dict) isHead(event id.EventID) bool {
	return slices.ContainsFunc(d.history.Heads(), func(head *merge.Event) bool { return head.ID == event })
}

// Use makes the dict take what the sync brings until release is called, also where it is not known yet.
func (d *Dict) Use() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.users--
	}
}

// Epoch changes whenever the dict is forgotten: what the history holds then need not reach back to what it held before. A sync that has
// skipped events forgets it at any moment, so that who goes by the history compares the epoch after every request.
func (d *Dict) Epoch() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch
}

// Checked notes that the history holds what was the dict's latest event at that time, unless it was forgotten since the
// epoch.
func (d *Dict) Checked(epoch int, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch != epoch {
		return
	}
	d.loaded, d.checked = true, at
	d.history.Prune(kept)
	d.update()
}

// AsOf is when the history was last known to hold the latest event. It is not known where it never was.
func (d *Dict) AsOf() (moment time.Time, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checked, d.loaded
}

// Version changes with every change.
func (d *Dict) Version() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// Load makes an event all that is known, or nothing where it is nil, for a reader to whom the homeserver gave that as the current one when it was asked at
// that time. It does nothing where the dict has changed since the version, where somebody writes, or where there are rivals to be merged.
func (d *Dict) Load(version int, at time.Time, current *merge.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version != version || d.users > 0 || d.loaded && len(d.history.Heads()) > 1 {
		return
	}
	d.forget()
	if current == nil {
		d.history.Rooted()
	} else {
		d.history.Add(*current)
	}
	d.loaded, d.checked = true, at
	d.update()
}

// Shown notes that a reader who asked at that time was given what the history holds, unless it was forgotten since the epoch.
func (d *Dict) Shown(epoch int, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == epoch && at.After(d.shown) {
		d.shown = at
	}
}

// Doubt is for somebody who says at that time that there is an event. It changes nothing where the event is known.
func (d *Dict) Doubt(event id.EventID, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.history.Had(event) && at.After(d.doubted) {
		d.doubted = at
	}
}

// Doubted tells whether somebody has said that there is something newer since the homeserver said that there is not.
func (d *Dict) Doubted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubted.After(d.checked)
}

// Fresh is the dict where the homeserver has said within that time what it holds, and nobody has said otherwise since. Else it is nil.
func (d *Dict) Fresh(within time.Duration) *View {
	d.mu.Lock()
	last := d.checked
	if d.shown.After(last) {
		last = d.shown
	}
	fresh := d.loaded && time.Since(last) < within && last.After(d.doubted)
	d.mu.Unlock()
	if !fresh {
		return nil
	}
	return d.View()
}

// Forget makes the dict unknown, for when events can have been missed.
func (d *Dict) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
}

func (d *Dict) forget() {
	d.history, d.loaded, d.caught = merge.History{}, false, false
	d.epoch++
	d.update()
}

// Relation is how an event that the homeserver gives as the current one belongs to what is known.
type Relation int

const (
	Unknown Relation = iota // nothing tells
	Newer                   // its writer had seen all that is known
	Known                   // it is in the history now
	Older                   // what is known was made from it
)

// Compare tells how an event that the homeserver gives as the current one belongs to what is known. It is added unless nothing tells.
func (d *Dict) Compare(current *merge.Event) Relation {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.history.Has(current.ID):
		if d.history.Add(*current) { // it has been redacted since
			d.update()
		}
		if !d.isHead(current.ID) {
			return Older
		}
		return Known
	case current.Marked && !slices.ContainsFunc(d.history.Heads(), func(head *merge.Event) bool { return !slices.Contains(current.Parents, head.ID) }):
		d.history.Add(*current) // who has read it reads nothing older from then on
		d.update()
		return Newer
	case !d.history.Continues(*current):
		return Unknown
	}
	d.history.Add(*current)
	d.update()
	return Known
}

// Changed is closed at the next change.
func (d *Dict) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

func (d *Dict) update() {
	d.version++
	d.view.Store(nil)
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// current is nil where the history is not known to be whole, or where nobody has asked yet which of several rivals was stored first.
func (d *Dict) current() *View {
	if !d.loaded || len(d.history.Missing()) > 0 || len(d.history.Unplaced("")) > 0 {
		return nil
	}
	heads := d.history.Heads()
	if len(heads) == 0 {
		return &View{}
	}
	view := ViewOf(heads[len(heads)-1])
	view.Names = d.history.Merge().Dict
	return view
}
