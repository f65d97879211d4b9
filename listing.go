package roomkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
)

// timelineLimit is how many of the latest events a listing looks at beside the state, the most that Synapse gives by
// default. They cost something only where a later one has taken their place.
const timelineLimit = 100

// listing is what a listing does, for its errors.
const listing = "list the keys"

// written is shared by all stores, for several may be of one room.
var written commit.Written

// powerRace is how long before or after a change of the power levels, at most, an event was sent at the same time. Synapse's
// sync can show such an event that the state has no more, or never had.
const powerRace = 10 * time.Second

// list returns the current events of the store's type by state key. It is one initial sync that leaves out
// everything else, so that its cost does not grow with the room's members or other state, and one more
// request for each own write that the sync does not show, see [commit.Written], and for each event that the state may
// not have.
func (r roomState) list(ctx context.Context) (map[string]*stateEvent, error) {
	// Before the sync, for what is written after it need not be in its response.
	pending := written.In(r.room, r.eventType.Type)
	var all picker
	powers, err := r.scan(ctx, func() visit {
		all = picker{}
		return all.add
	})
	if err != nil {
		return nil, err
	}
	events, _ := all.take()
	doubtful := map[string]bool{}
	for stateKey, own := range pending {
		if evt := events[stateKey]; evt == nil || evt.ID != own {
			doubtful[stateKey] = true
		}
	}
	for stateKey, evt := range events {
		if slices.ContainsFunc(powers, func(changed int64) bool {
			return max(evt.Time-changed, changed-evt.Time) <= powerRace.Milliseconds()
		}) {
			doubtful[stateKey] = true
		}
	}
	for stateKey := range doubtful {
		evt, err := r.get(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if evt == nil {
			delete(events, stateKey)
		} else {
			events[stateKey] = evt
		}
		if own, ok := pending[stateKey]; ok && (evt == nil || evt.ID != own) {
			written.Forget(commit.Dict{Room: r.room, Type: r.eventType.Type, StateKey: stateKey}, own) // somebody else has written since
		}
	}
	return events, nil
}

// visit is given the events of a listing, one after the other. Its error ends that.
type visit func(evt *stateEvent, late bool) error

// scan visits the current events of the store's type as an initial sync shows them, as they arrive. It begins anew where the answer
// breaks off. Of two events with one state key the later counts: one that is late comes from the timeline, before or after the others.
// It gives the times, in Unix milliseconds, at which the power levels changed among the latest events.
//
// Where the sync leaves out a room that the user is in, scan reads the whole state, members and all: Dendrite's sync learns
// of a room a moment after the user has joined it, and of nothing more once an event has put it out of step.
func (r roomState) scan(ctx context.Context, begin func() visit) (powers []int64, err error) {
	found := false
	err = r.stream(ctx, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "sync"},
		map[string]string{"filter": r.listFilter(), "set_presence": string(event.PresenceOffline)},
	), func(decoder *matrix.Decoder) error {
		found, powers = false, nil
		visit := begin()
		each := func(late bool) func(*matrix.Decoder) error {
			return elements(func(evt *stateEvent) error {
				if r.isOwn(evt) {
					evt.Unsigned.Before = nil
					return visit(evt, late)
				}
				if late && evt.changesPower() {
					powers = append(powers, evt.Time)
				}
				return nil
			})
		}
		room := matrix.Members{r.room.String(): func(decoder *matrix.Decoder) error {
			found = true
			return matrix.Members{
				"state":    matrix.Members{"events": each(false)}.Read,
				"timeline": matrix.Members{"events": each(true)}.Read,
			}.Read(decoder)
		}}
		return matrix.Members{"rooms": matrix.Members{"join": room.Read}.Read}.Read(decoder)
	})
	if found || err != nil {
		return powers, err
	}
	if r.hasLeft(ctx) {
		return nil, r.notJoined(listing, nil)
	}
	return nil, r.scanAll(ctx, begin)
}

// scanAll is scan by the whole state, members and all: a sync can be behind, and on Synapse shows the state of one branch of
// the room's history.
func (r roomState) scanAll(ctx context.Context, begin func() visit) error {
	return r.stream(ctx, r.client.BuildClientURL("v3", "rooms", r.room, "state"), func(decoder *matrix.Decoder) error {
		visit := begin()
		return elements(func(evt *stateEvent) error {
			if !r.isOwn(evt) {
				return nil
			}
			evt.Unsigned.Before = nil
			return visit(evt, false)
		})(decoder)
	})
}

// elements reads an array of events.
func elements(each func(*stateEvent) error) func(*matrix.Decoder) error {
	return matrix.Elements(func(decoder *matrix.Decoder) error {
		var evt *stateEvent
		if err := decoder.Decode(&evt); err != nil {
			return err
		}
		return each(evt)
	})
}

// isOwn tells whether the event is a state event of the store's type.
func (r roomState) isOwn(evt *stateEvent) bool {
	return evt != nil && evt.Type == r.eventType.Type && evt.StateKey != nil
}

// all returns the current events of the store's type by state key, by scanAll.
func (r roomState) all(ctx context.Context) (map[string]*stateEvent, error) {
	var all picker
	err := r.scanAll(ctx, func() visit {
		all = picker{}
		return all.add
	})
	events, _ := all.take()
	return events, err
}

// stream makes a request whose answer is read while it arrives, and anew where it breaks off.
func (r roomState) stream(ctx context.Context, url string, read func(*matrix.Decoder) error) error {
	_, err := matrix.Do(ctx, r.client, matrix.Request{Method: http.MethodGet, URL: url, Limit: matrix.Whole, Read: matrix.Decoded(read)})
	switch {
	case errors.Is(err, errListed):
		return fault.Of(ErrTooLarge, nil, "the memory in %s is larger than the %d bytes that are read at once; Export and Copy read it part by part", r.room, maxListed)
	case err != nil:
		return r.explain(ctx, listing, err)
	}
	return nil
}

// listFilter is written out, for mautrix's Filter omits empty lists, and an absent list matches everything.
//
// Every room has a create event, without which Synapse would leave out a room that has no memory yet.
//
// The timeline is there for Synapse: "state" is what was current before the timeline's first event, and
// without a timeline after the room's latest event, which leaves out what was sent at the same time as that. But the timeline
// also has what a change of the power levels at the same time has kept out of the state, so it shows these too.
//
// Nothing can match account_data.not_types. The random name in it makes each filter another one, because Synapse
// answers the same initial sync of a device from a cache for two minutes (sync_response_cache_duration),
// without what was written since.
func (r roomState) listFilter() string {
	type part map[string]any
	none := part{"types": []string{}}
	filter, err := json.Marshal(part{
		"presence":     none,
		"account_data": part{"types": []string{}, "not_types": []string{"roomkv." + rand.Text()}},
		"room": part{
			"rooms":        []id.RoomID{r.room},
			"state":        part{"types": []string{r.eventType.Type, event.StateCreate.Type}},
			"timeline":     part{"types": []string{r.eventType.Type, event.StatePowerLevels.Type}, "limit": timelineLimit},
			"ephemeral":    none,
			"account_data": none,
		},
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(filter)
}

// existing are those of the names that are there. Several are read in one listing; what that does not show is asked for
// by itself, for another client can have written it only just now.
func (r roomState) existing(ctx context.Context, names []string) ([]string, error) {
	var events map[string]*stateEvent
	if len(names) > 1 {
		var err error
		if events, err = r.list(ctx); err != nil {
			return nil, err
		}
	}
	var there []string
	for _, name := range names {
		stateKey := r.core.layout.stateKey(name)
		evt := events[stateKey]
		if evt == nil || recordOf(r.viewOf(evt, stateKey), name) == nil {
			var err error
			if evt, err = r.get(ctx, stateKey); err != nil {
				return nil, err
			}
		}
		if evt != nil && recordOf(r.viewOf(evt, stateKey), name) != nil || r.knows(stateKey, name) {
			there = append(there, name)
		}
	}
	return there, nil
}

// knows tells whether this process knows of something under the name, which a rival can hide in the state.
func (r roomState) knows(stateKey, name string) bool {
	d := r.core.dicts.find(dictID{r.room, stateKey})
	if d == nil {
		return false
	}
	view := d.View()
	return view != nil && recordOf(view, name) != nil
}
