package roomkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// defaultRetries is how often a request is sent again after a 429 or a gateway error, or when none got
// through, where neither the client nor the context says.
const defaultRetries = 3

// siblings is how many of the latest events a listing brings beside the state, which may hold them already.
// Synapse lets a new event follow 10 that were sent at the same time.
const siblings = 10

// written is shared by all stores, for several may be of one room.
var written commit.Written

// roomState is the state of one room, of the store's event type: the requests that everything else is made
// of. mautrix's own calls are not used for them, for these log contents and give up on a response in which
// one event's content is not an object.
type roomState struct {
	*core
	room id.RoomID
}

// stateEvent is a state event as the homeserver gives it, its content unread.
type stateEvent struct {
	ID       id.EventID      `json:"event_id"`
	Sender   id.UserID       `json:"sender"`
	Time     int64           `json:"origin_server_ts"` // Unix milliseconds
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

func (e *stateEvent) timestamp() time.Time { return time.UnixMilli(e.Time) }

// get returns the current event of the store's type with the state key, or nil where there is none.
func (r roomState) get(ctx context.Context, stateKey string) (*stateEvent, error) {
	return r.getOf(ctx, r.eventType, stateKey)
}

func (r roomState) getOf(ctx context.Context, eventType event.Type, stateKey string) (*stateEvent, error) {
	what := fmt.Sprintf("read %s state %q", eventType.Type, stateKey)
	body, err := r.request(ctx, http.MethodGet, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", r.room, "state", eventType.Type, stateKey},
		map[string]string{"format": "event"}, // in the specification since v1.16, on servers for years
	), nil)
	if errors.Is(err, mautrix.MNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, r.explain(ctx, what, err)
	}
	var evt *stateEvent
	if json.Unmarshal(body, &evt) != nil {
		evt = nil
	}
	switch {
	case evt != nil && evt.ID != "" && evt.Type == eventType.Type && evt.StateKey != nil && *evt.StateKey == stateKey:
		return evt, nil
	case r.hasLeft(ctx): // Dendrite then gives the room's create event in place of one that is not there
		return nil, r.notJoined(what, nil)
	default:
		return nil, fail(ErrCorrupt, nil, "cannot %s in %s: the homeserver gave something else", what, r.room)
	}
}

// list returns the current events of the store's type by state key. It is one initial sync that leaves out
// everything else, so that its cost does not grow with the room's members or other state, and one more
// request for each own write that the sync does not show; see [commit.Written].
func (r roomState) list(ctx context.Context) (map[string]*stateEvent, error) {
	// Before the sync, for what is written after it need not be in its response.
	unseen := written.Unseen(r.room, r.eventType.Type)
	events, err := r.sync(ctx)
	if err != nil {
		return nil, err
	}
	for stateKey, own := range unseen {
		dict := commit.Dict{Room: r.room, Type: r.eventType.Type, StateKey: stateKey}
		if evt := events[stateKey]; evt != nil && evt.ID == own {
			written.Seen(dict, own)
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
			written.Seen(dict, own) // somebody else has written since
		}
	}
	return events, nil
}

// sync returns the events of the store's type that an initial sync shows, by state key. Dendrite's sync learns of a
// room a moment after the user has joined it, and is asked again until then.
func (r roomState) sync(ctx context.Context) (map[string]*stateEvent, error) {
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		events, found, err := r.syncOnce(ctx)
		if found || err != nil {
			return events, err
		}
		if r.hasLeft(ctx) {
			return nil, r.notJoined(listing, nil)
		}
		if wait > 2*time.Second {
			return nil, &failure{text: fmt.Sprintf("cannot %s in %s: the homeserver's sync leaves the room out", listing, r.room)}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

const listing = "list the keys"

func (r roomState) syncOnce(ctx context.Context) (current map[string]*stateEvent, found bool, err error) {
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
	current = make(map[string]*stateEvent, len(room.State.Events))
	for _, evt := range slices.Concat(room.State.Events, room.Timeline.Events) {
		if evt != nil && evt.Type == r.eventType.Type && evt.StateKey != nil {
			current[*evt.StateKey] = evt
		}
	}
	return current, true, nil
}

// listFilter is written out, for mautrix's Filter leaves empty lists away, and an absent list matches everything.
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
			"timeline":     part{"types": []string{r.eventType.Type}, "limit": siblings},
			"ephemeral":    none,
			"account_data": none,
		},
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(filter)
}

// put makes content the current one of the state key and returns the event that holds it. On Synapse and
// Dendrite a content that already is current creates no event.
func (r roomState) put(ctx context.Context, stateKey string, content json.RawMessage) (id.EventID, error) {
	what := fmt.Sprintf("write state %q", stateKey)
	body, err := r.request(ctx, http.MethodPut,
		r.client.BuildClientURL("v3", "rooms", r.room, "state", r.eventType.Type, stateKey), content)
	if isStatus(err, http.StatusRequestEntityTooLarge) { // M_TOO_LARGE, but M_BAD_JSON on Dendrite
		return "", r.tooLarge(stateKey, content, err)
	} else if err != nil {
		return "", r.explain(ctx, what, err)
	}
	var sent mautrix.RespSendEvent
	if err := json.Unmarshal(body, &sent); err != nil || sent.EventID == "" {
		return "", &failure{text: fmt.Sprintf("cannot tell whether it could %s in %s: the homeserver's answer names no event", what, r.room)}
	}
	return sent.EventID, nil
}

// fits fails with ErrTooLarge where no homeserver can take the content, before anything is sent. Above that,
// signatures and references to other events take some 700 bytes more, and the homeserver decides.
func (r roomState) fits(stateKey string, content json.RawMessage) error {
	if wire.Size(content) > wire.MaxEvent {
		return r.tooLarge(stateKey, content, nil)
	}
	return nil
}

func (r roomState) request(ctx context.Context, method, url string, content json.RawMessage) ([]byte, error) {
	req := mautrix.FullRequest{Method: method, URL: url, SensitiveContent: true}
	if content != nil {
		req.RequestJSON = content
	}
	if ctx.Value(mautrix.MaxAttemptsContextKey) == nil && r.client.DefaultHTTPRetries == 0 {
		req.MaxAttempts = 1 + defaultRetries
	}
	return r.client.MakeFullRequest(ctx, req)
}

// explain turns the error of a request into one that says what to do. It asks the homeserver for what the
// first answer left out, and does without where it gets none. What the request was to do is said in the
// infinitive. The homeserver's own words are left out of the text, for it could repeat a value.
func (r roomState) explain(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	var answer mautrix.HTTPError
	if !errors.As(err, &answer) || answer.Response == nil || answer.WrappedError != nil {
		return &failure{text: fmt.Sprintf("cannot %s in %s: %v", what, r.room, err), causes: []error{err}}
	}
	code := fmt.Sprintf("HTTP %d", answer.Response.StatusCode)
	if answer.RespError != nil {
		code = fmt.Sprintf("%s (%s)", answer.RespError.ErrCode, code)
	}
	// Dendrite answers a write to a room that it has never heard of with the second.
	if !errors.Is(err, mautrix.MForbidden) && !errors.Is(err, mautrix.MUnsupportedRoomVersion) {
		return &failure{text: fmt.Sprintf("cannot %s in %s: the homeserver answered %s", what, r.room, code), causes: []error{err}}
	}

	if r.hasLeft(ctx) {
		return r.notJoined(what, err)
	}
	var levels event.PowerLevelsEventContent
	if r.client.StateEvent(ctx, r.room, event.StatePowerLevels, "", &levels) == nil {
		need, have := levels.GetEventLevel(r.eventType), levels.GetUserLevel(r.client.UserID)
		if have < need {
			return fail(ErrForbidden, err, "cannot %s in %s: sending %s state there takes power level %d, and %s has %d",
				what, r.room, r.eventType.Type, need, r.client.UserID, have)
		}
	}
	return fail(ErrForbidden, err, "cannot %s in %s: the homeserver answered %s", what, r.room, code)
}

// hasLeft tells whether the user is certainly not in the room.
func (r roomState) hasLeft(ctx context.Context) bool {
	joined, err := r.client.JoinedRooms(ctx)
	return err == nil && joined != nil && !slices.Contains(joined.JoinedRooms, r.room)
}

func (r roomState) notJoined(what string, cause error) error {
	return fail(ErrNotJoined, cause, "cannot %s in %s: %s is not in that room, or there is none of that ID; join it first",
		what, r.room, r.client.UserID)
}

func (r roomState) tooLarge(stateKey string, content json.RawMessage, cause error) error {
	return fail(ErrTooLarge, cause, "the content of state %q in %s would be %d bytes, and a whole Matrix event, with its addresses and signatures, may have %d; %s",
		stateKey, r.room, wire.Size(content), wire.MaxEvent, r.layout.advice())
}

func isStatus(err error, status int) bool {
	var answer mautrix.HTTPError
	return errors.As(err, &answer) && answer.IsStatus(status)
}
