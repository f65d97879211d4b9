package roomkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// timelineLimit is how many of the latest events a listing looks at beside the state, the most that Synapse gives by
// default. They cost something only where a later one has taken their place.
const timelineLimit = 100

// listing is what a listing does, for its errors.
const listing = "list the keys"

// written is shared by all stores, for several may be of one room.
var written commit.Written

// list returns the current events of the store's type by state key. It is one initial sync that leaves out
// everything else, so that its cost does not grow with the room's members or other state, and one more
// request for each own write that the sync does not show; see [commit.Written].
func (r roomState) list(ctx context.Context) (map[string]*stateEvent, error) {
	// Before the sync, for what is written after it need not be in its response.
	pending := written.In(r.room, r.eventType.Type)
	events, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	for stateKey, own := range pending {
		if evt := events[stateKey]; evt != nil && evt.ID == own {
			continue
		}
		evt, err := r.get(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if evt == nil {
			delete(events, stateKey)
		} else {
			events[stateKey] = evt
		}
		if evt == nil || evt.ID != own {
			written.Forget(commit.Dict{Room: r.room, Type: r.eventType.Type, StateKey: stateKey}, own) // somebody else has written since
		}
	}
	return events, nil
}

// current returns the current events of the store's type by state key, as an initial sync shows them. Where that
// leaves out a room that the user is in, it reads the whole state, members and all: Dendrite's sync learns of
// a room a moment after the user has joined it, and of nothing more once an event has put it out of step.
func (r roomState) current(ctx context.Context) (map[string]*stateEvent, error) {
	events, found, err := r.sync(ctx)
	if found || err != nil {
		return events, err
	}
	if r.hasLeft(ctx) {
		return nil, r.notJoined(listing, nil)
	}
	body, err := r.request(ctx, http.MethodGet, r.client.BuildClientURL("v3", "rooms", r.room, "state"), nil)
	if err != nil {
		return nil, r.explain(ctx, listing, err)
	}
	var state []*stateEvent
	if json.Unmarshal(body, &state) != nil {
		return nil, fail(ErrCorrupt, nil, "cannot %s in %s: the homeserver's answer is not a list of events", listing, r.room)
	}
	return r.byStateKey(state), nil
}

// sync is one initial sync. It has not found the room where the response leaves it out.
func (r roomState) sync(ctx context.Context) (current map[string]*stateEvent, found bool, err error) {
	body, err := r.request(ctx, http.MethodGet, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "sync"},
		map[string]string{"filter": r.listFilter(), "set_presence": string(event.PresenceOffline)},
	), nil)
	if err != nil {
		return nil, false, r.explain(ctx, listing, err)
	}
	type events struct {
		Events []*stateEvent `json:"events"`
	}
	var sync struct {
		Rooms struct {
			Join map[id.RoomID]*struct {
				State    events `json:"state"`
				Timeline events `json:"timeline"`
			} `json:"join"`
		} `json:"rooms"`
	}
	if err := json.Unmarshal(body, &sync); err != nil {
		return nil, false, fail(ErrCorrupt, nil, "cannot %s in %s: the homeserver's answer is not a sync response", listing, r.room)
	}
	room := sync.Rooms.Join[r.room]
	if room == nil {
		return nil, false, nil
	}
	return r.byStateKey(slices.Concat(room.State.Events, room.Timeline.Events)), true, nil
}

// byStateKey picks the events of the store's type. Of two with one state key it takes the later.
func (r roomState) byStateKey(events []*stateEvent) map[string]*stateEvent {
	picked := make(map[string]*stateEvent, len(events))
	for _, evt := range events {
		if evt != nil && evt.Type == r.eventType.Type && evt.StateKey != nil {
			picked[*evt.StateKey] = evt
		}
	}
	return picked
}

// listFilter is written out, for mautrix's Filter omits empty lists, and an absent list matches everything.
//
// Every room has a create event, without which Synapse would leave out a room that has no memory yet.
//
// The timeline is there for Synapse: "state" is what was current before the timeline's first event, and
// without a timeline after the room's latest event, which leaves out what was sent at the same time as that.
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
			"timeline":     part{"types": []string{r.eventType.Type}, "limit": timelineLimit},
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
		if evt != nil && recordOf(r.viewOf(evt, stateKey), name) != nil {
			there = append(there, name)
		}
	}
	return there, nil
}
