package roomkv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// roomState is the state of one room, of one event type: the requests that everything else is made of.
// mautrix's own calls are not used for them, for these log contents and give up on a response in which one
// event's content is not an object.
type roomState struct {
	core      *core
	client    *mautrix.Client
	room      id.RoomID
	eventType event.Type

	dead error // why nothing may be written here, nil where it may

	waitUntil time.Time         // when reads no longer wait for missing keys, zero where each has its own time
	stateOnly bool              // whether writes never go to account data
	done      func(name string) // told of each name that was written where that is one event for each, from several goroutines; may be nil
	keysOnly  bool              // whether values in the media repository are left there, because only the keys are asked for
}

// waitingTogether is for several reads that together wait for missing keys no longer than one does.
func (r roomState) waitingTogether() roomState {
	r.waitUntil = time.Now().Add(r.core.keyWait)
	return r
}

// notWaiting is for reads that do not wait for missing keys.
func (r roomState) notWaiting() roomState {
	r.waitUntil = time.Now()
	return r
}

// dict is what the state event with the state key holds.
func (r roomState) dict(stateKey string) *commit.Replica {
	return r.core.dicts.get(dictID{r.room, stateKey}, func() *commit.Replica {
		mode := commit.Mode{Single: r.core.singleWriter, OneName: r.core.layout.oneKey(), Doubt: r.core.fallback, Drop: r.core.redact}
		return commit.NewReplica(place{r, stateKey}, mode)
	})
}

// view reads the dict under the state key; see [commit.Replica.ReadView]. What nobody asks for again is not kept.
func (r roomState) view(ctx context.Context, stateKey string, agree func(view, current map[string]string) bool) (*replica.View, error) {
	live := r.core.follower.live(r.room)
	d := r.core.dicts.find(dictID{r.room, stateKey})
	if live {
		d = r.dict(stateKey)
	}
	if d != nil {
		return d.ReadView(ctx, live, agree)
	}
	current, err := place{r, stateKey}.Current(ctx)
	if err == nil && current == nil && !r.core.layout.oneKey() {
		return r.dict(stateKey).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// viewOf is what one event says.
func (r roomState) viewOf(evt *stateEvent, stateKey string) *replica.View {
	read := place{r, stateKey}.snapshot(evt)
	return replica.ViewOf(&read)
}

// stateEvent is a state event as the homeserver gives it, its content unread.
type stateEvent struct {
	ID       id.EventID      `json:"event_id"`
	Sender   id.UserID       `json:"sender"`
	Time     int64           `json:"origin_server_ts"` // Unix milliseconds
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		ReplacesState id.EventID      `json:"replaces_state"`
		Before        json.RawMessage `json:"prev_content"` // what was current before, as it was then where that was redacted since
		Redaction     json.RawMessage `json:"redacted_because"`
	} `json:"unsigned"`

	listed  bool         // whether it comes from a list of events, so that its place among others is known
	read    *merge.Event // what it says, where a [line] has read it
	account *version     // in place of an event: what account data has now
}

// isRooms tells whether the event is one of those of that type that say something of the whole room: the ones with an empty state key.
func (e *stateEvent) isRooms(eventType event.Type) bool {
	return e.Type == eventType.Type && e.StateKey != nil && *e.StateKey == ""
}

// changesPower tells whether the event changes the room's power levels, which a new room gets with its first events.
func (e *stateEvent) changesPower() bool {
	return e != nil && e.isRooms(event.StatePowerLevels) && (e.Unsigned.ReplacesState != "" || len(e.Unsigned.Before) > 0)
}

// redacted tells whether somebody has redacted the event, so that nobody knows what it held.
func (e *stateEvent) redacted() bool {
	return len(e.Unsigned.Redaction) > 0 && string(e.Unsigned.Redaction) != "null" && len(bytes.Trim(e.Content, "{} \t\r\n")) == 0
}

// size is about how long the event is, in bytes.
func (e *stateEvent) size() int {
	return len(e.ID) + len(e.Sender) + len(*e.StateKey) + len(e.Content) + len(e.Unsigned.Before) + len(e.Unsigned.Redaction)
}

// in is the state of another room.
func (r roomState) in(room id.RoomID) roomState {
	r.room, r.dead = room, nil
	return r
}

// get returns the current event with the state key, or nil where there is none.
func (r roomState) get(ctx context.Context, stateKey string) (*stateEvent, error) {
	what := fmt.Sprintf("read %s state %q", r.eventType.Type, stateKey)
	body, err := r.ask(ctx, matrix.Event, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", r.room, "state", r.eventType.Type, stateKey},
		map[string]string{"format": "event"}, // in the specification since v1.16, on servers for years
	))
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
	case evt != nil && evt.ID != "" && evt.Type == r.eventType.Type && evt.StateKey != nil && *evt.StateKey == stateKey:
		return evt, nil
	case r.hasLeft(ctx): // Dendrite then gives the room's create event in place of one that is not there
		return nil, r.notJoined(what, nil)
	default:
		return nil, fault.Of(ErrCorrupt, nil, "cannot %s in %s: the homeserver gave something else", what, r.room)
	}
}

// put makes content the current one of the state key and returns the event that holds it. On Synapse and
// Dendrite a content that already is current creates no event.
func (r roomState) put(ctx context.Context, stateKey string, content json.RawMessage) (event id.EventID, once bool, err error) {
	what := fmt.Sprintf("write state %q", stateKey)
	url := r.client.BuildClientURL("v3", "rooms", r.room, "state", r.eventType.Type, stateKey)
	var sent mautrix.RespSendEvent
	attempts := 0
	err = matrix.Try(ctx, r.client, func(ctx context.Context) error {
		attempts++
		return matrix.Get(ctx, r.client, matrix.Request{Method: http.MethodPut, URL: url, JSON: content}, &sent)
	})
	if isStatus(err, http.StatusRequestEntityTooLarge) { // M_TOO_LARGE, but M_BAD_JSON on Dendrite
		return "", false, r.tooLarge(stateKey, wire.Size(content), err)
	} else if err != nil && !errors.Is(err, matrix.ErrAnswer) {
		if errors.Is(err, mautrix.MForbidden) {
			err = errors.Join(errRefused, err)
		}
		return "", false, r.explainSend(ctx, what, r.eventType, err)
	}
	if err != nil || sent.EventID == "" {
		return "", false, fault.Because(nil, "cannot %s in %s, or perhaps could: the homeserver's answer names no event", what, r.room)
	}
	return sent.EventID, attempts == 1, nil
}

// fits fails with ErrTooLarge where no homeserver can take a content of that many bytes.
func (r roomState) fits(stateKey string, size int) error {
	if size > wire.MaxEvent {
		return r.tooLarge(stateKey, size, nil)
	}
	return nil
}

// ask makes a request for something of at most that many bytes.
func (r roomState) ask(ctx context.Context, limit int64, url string) ([]byte, error) {
	return matrix.Do(ctx, r.client, matrix.Request{Method: http.MethodGet, URL: url, Limit: limit})
}

// untilThere asks again, so many times, for what the homeserver does not find: Dendrite finds an event some milliseconds
// after it has acknowledged it, and under load much later. It waits 10 ms, and each time three times as long.
func untilThere(ctx context.Context, times int, ask func() error) error {
	pause := 10 * time.Millisecond
	for range times {
		err := ask()
		if !isStatus(err, http.StatusNotFound) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
		pause *= 3
	}
	return ask()
}
