package watch

import (
	"context"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/past"
)

// milestone is an event that divides the memory's events into those before and those after it.
type milestone struct {
	event id.EventID // empty where there is none
	time  int64      // when it was sent, in Unix milliseconds

	asked bool // whether it is known where the homeserver has stored it, or that it does not tell
	place int64
	known bool
}

func milestoneOf(evt *matrix.Event) milestone { return milestone{event: evt.ID, time: evt.Time} }

// isLater tells whether the homeserver has stored the event after what was there when the watch began, where known is true.
func (w *Watch) isLater(ctx context.Context, evt *matrix.Event) (later, known bool, err error) {
	if w.start.event == "" {
		return true, true, nil
	}
	if !w.start.asked {
		if w.start.place, w.start.known, err = w.Stored(ctx, w.start.event); err != nil {
			return false, false, err
		}
		w.start.asked = true
	}
	if !w.start.known {
		return false, false, nil
	}
	place, known, err := w.Stored(ctx, evt.ID)
	return place > w.start.place, known, err
}

// isOld tells whether an event that the sync has brought was there when the watch began: the sync can be behind.
func (w *Watch) isOld(ctx context.Context, evt *matrix.Event) (old bool, err error) {
	d := w.dicts[*evt.StateKey]
	if d == nil {
		w.caught = true
		return false, nil
	}
	if d.history.Had(evt.ID) {
		w.caught = evt.ID == w.start.event
		return false, nil
	}
	later, known, err := w.isLater(ctx, evt)
	if err != nil {
		return false, err
	}
	if !known { // what is there can be made from it
		return d.history.Order(w.Parsed(evt), nil, nil) == merge.Before, nil
	}
	w.caught = later
	return !later, nil
}

// newestOf are the events that were sent last. They can be several, for two keys can be put within one millisecond.
func newestOf(current map[string]*matrix.Event) (newest []*matrix.Event) {
	for _, evt := range current {
		switch {
		case len(newest) == 0 || evt.Time > newest[0].Time:
			newest = []*matrix.Event{evt}
		case evt.Time == newest[0].Time:
			newest = append(newest, evt)
		}
	}
	return newest
}

// begin learns what is there now, so that only what comes later is a change.
func (w *Watch) begin(ctx context.Context) error {
	current, err := past.Heads(ctx, w.Room)
	if err != nil {
		return err
	}
	// What led to it too, for a slow sync can bring that yet.
	recent, err := w.Page(ctx, "", memory.PageEvents)
	if err != nil {
		return err
	}
	isListed := func(evt *matrix.Event) bool {
		return slices.ContainsFunc(recent.Events, func(e *matrix.Event) bool { return e.ID == evt.ID })
	}
	for _, newest := range newestOf(current) {
		if isListed(newest) {
			continue
		}
		// It is further back, or hidden, or others before it are not listed yet.
		around, err := w.Around(ctx, newest.ID)
		if err != nil {
			return err
		}
		if around.Start != "" {
			w.start = milestoneOf(newest)
			if recent, err = w.Page(ctx, "", memory.PageEvents); err != nil {
				return err
			}
		}
	}
	for _, evt := range current {
		if !isListed(evt) {
			w.add(evt)
		}
	}
	for _, evt := range slices.Backward(recent.Events) {
		if w.Layout.Holds(*evt.StateKey) {
			w.add(evt)
		}
		w.start = milestoneOf(evt)
	}
	w.last = w.start
	return nil
}

// resume tells what has happened since the revision that the watch begins from.
func (w *Watch) resume(ctx context.Context, yield func(Change, error) bool) (left bool, err error) {
	current, err := past.Heads(ctx, w.Room)
	if err != nil {
		return false, err
	}
	around, err := w.Around(ctx, w.From) // which waits until it is listed
	if err != nil {
		return false, err
	}
	if around.Start == "" {
		return false, fault.Of(fault.ErrTooOld, nil, "the homeserver has no event %s in %s", w.From, w.ID)
	}
	w.start = milestone{event: w.From, asked: true}
	w.start.place, w.start.known = around.Place()
	for _, newest := range newestOf(current) {
		if newest.ID == w.From {
			continue
		}
		if _, err := w.Around(ctx, newest.ID); err != nil {
			return false, err
		}
	}
	w.last = w.start
	if left, err = w.catchUp(ctx, reach{}, true, yield); left || err != nil {
		return left, err
	}
	for stateKey, evt := range current {
		if w.dicts[stateKey] != nil {
			continue
		}
		if later, err := w.isFresh(ctx, evt, false, true); err != nil {
			return false, err
		} else if !later {
			w.add(evt)
		}
	}
	return false, nil
}

// reach is how far back a watch has to look where the last event that was told is further back.
type reach struct {
	since int64      // what the homeserver had stored up to there is known; 0 where nothing tells
	until id.EventID // what is listed before this event is told when it is noticed; empty where nobody notices events
}

// catchUpBefore is catchUp, also of account data, before the watch ends with an error, unless that is nil. The caller has heard of an upgrade of the room
// first, so that what was written before the upgrade is listed.
func (w *Watch) catchUpBefore(ctx context.Context, ends error, back reach, yield func(Change, error) bool) (left bool, err error) {
	if left, err = w.catchUp(ctx, back, false, yield); left || err != nil {
		return left, err
	}
	if w.Account != nil { // news of it can have been dropped
		if left, err = w.tellAccount(ctx, w.Account.Version(), yield); left || err != nil {
			return left, err
		}
	}
	return false, ends
}

// catchUp tells what has happened since the last event that was told. A watch that resumes knows of nothing yet.
func (w *Watch) catchUp(ctx context.Context, back reach, resumes bool, yield func(Change, error) bool) (left bool, err error) {
	events, missed, err := w.listed(ctx, back, resumes)
	if err != nil || len(events) == 0 {
		return false, err
	}
	if resumes {
		w.start.time, w.last.time = events[missed].Time, events[missed].Time
	}
	var fresh []*matrix.Event // the oldest first
	for i, evt := range slices.Backward(events) {
		if !w.Layout.Holds(*evt.StateKey) {
			continue
		}
		isFresh := true
		switch d := w.dicts[*evt.StateKey]; {
		case d != nil && d.history.Has(evt.ID): // which has perhaps been redacted since
		case d != nil && d.history.Had(evt.ID):
			isFresh = false
		default:
			if isFresh, err = w.isFresh(ctx, evt, i < missed, resumes); err != nil {
				return false, err
			}
			if !isFresh && resumes {
				w.add(evt)
			}
			if isFresh && resumes && d == nil {
				if err := w.before(ctx, evt, events); err != nil {
					return false, err
				}
			}
		}
		if isFresh {
			fresh = append(fresh, evt)
		}
	}
	w.last = milestoneOf(events[0])
	for _, evt := range fresh {
		if left, err := w.tell(ctx, evt, yield); left || err != nil {
			return left, err
		}
	}
	return false, nil
}

// listed gives the memory's events, the newest first, back to the last one that was told or as far as it has to, and how many are listed after that. When the
// watch resumes they go back to where it is known what each dict was then.
func (w *Watch) listed(ctx context.Context, back reach, resumes bool) (events []*matrix.Event, missed int, err error) {
	missed = -1
	reached := false // whether they go back as far as they have to
	for page, err := range w.Pages(ctx) {
		if err != nil {
			return nil, 0, err
		}
		if i := slices.IndexFunc(page.Events, func(evt *matrix.Event) bool { return evt.ID == w.last.event }); i >= 0 && missed < 0 {
			missed = len(events) + i
		}
		events = append(events, page.Events...)
		place := matrix.PlaceOf(matrix.Token(page.Next))
		reached = page.Next == "" || 0 < place && place <= back.since ||
			back.until != "" && slices.ContainsFunc(page.Events, func(evt *matrix.Event) bool { return evt.ID == back.until })
		if missed >= 0 && !(resumes && w.lacks(events[:missed], events[missed:])) || missed < 0 && reached {
			break
		}
	}
	if missed >= 0 {
		return events, missed, nil
	}
	missed = slices.IndexFunc(events, func(evt *matrix.Event) bool {
		d := w.dicts[*evt.StateKey]
		return d != nil && d.history.Had(evt.ID)
	})
	switch {
	case missed >= 0:
	case !resumes && (reached || w.last.event == ""):
		missed = len(events)
	default:
		return nil, 0, fault.Of(fault.ErrTooOld, nil, "event %s is not among the latest of %s", w.last.event, w.ID)
	}
	return events, missed, nil
}

// isFresh tells whether an event is to be told that is listed, after the last one that was told or not. It can be listed among events that
// were stored before it, or after it: where it was sent at about the same time it counts which of them was stored first.
func (w *Watch) isFresh(ctx context.Context, evt *matrix.Event, after, resumes bool) (bool, error) {
	late := w.Policy.StoredLate.Milliseconds()
	if after && (!resumes || evt.Time > w.last.time+late) || !after && evt.Time < w.last.time-late {
		return after, nil
	}
	later, known, err := w.isLater(ctx, evt)
	if !known {
		later = after
	}
	return later, err
}

// before learns what was there before an event of a dict of which nothing older is listed: of the names that it has besides, nobody knows otherwise
// that they have not changed.
func (w *Watch) before(ctx context.Context, evt *matrix.Event, listed []*matrix.Event) error {
	if w.Layout.Alone() {
		return nil
	}
	for _, parent := range w.Parsed(evt).Parents {
		if slices.ContainsFunc(listed, func(other *matrix.Event) bool { return other.ID == parent }) {
			continue
		}
		was, err := w.Earlier(ctx, parent)
		switch {
		case err != nil:
			return err
		case was == nil || was.Redacted():
			return fault.Of(fault.ErrTooOld, nil, "the homeserver does not have event %s in %s any more, on which %s builds", parent, w.ID, evt.ID)
		case was.Type == evt.Type && *was.StateKey == *evt.StateKey:
			w.add(was)
		}
	}
	return nil
}

// lacks tells whether some of the missed events are of dicts of which nothing older is known, nor can be asked for.
func (w *Watch) lacks(missed, older []*matrix.Event) bool {
	return slices.ContainsFunc(missed, func(evt *matrix.Event) bool {
		return w.dicts[*evt.StateKey] == nil && w.Layout.Holds(*evt.StateKey) && (w.Layout.Alone() || len(w.Parsed(evt).Parents) == 0) &&
			!slices.ContainsFunc(older, func(o *matrix.Event) bool { return *o.StateKey == *evt.StateKey })
	})
}
