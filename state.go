package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// defaultRetries is how often a request is sent again after a 429 or a gateway error, or when none got
// through, where neither the client nor the context says.
const defaultRetries = 3

// roomState is the state of one room, of one event type: the requests that everything else is made of.
// mautrix's own calls are not used for them, for these log contents and give up on a response in which one
// event's content is not an object.
type roomState struct {
	client    *mautrix.Client
	room      id.RoomID
	eventType event.Type
	pending   *sync.WaitGroup // the writes that have not ended; see settling
}

// unlock gives a dict's lock back when every write has ended, which is later than now where a caller gave up.
func (r roomState) unlock(unlock func()) {
	go func() {
		r.pending.Wait()
		unlock()
	}()
}

// dict names what the state event with the state key holds.
func (r roomState) dict(stateKey string) commit.Dict {
	return commit.Dict{Room: r.room, Type: r.eventType.Type, StateKey: stateKey}
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

// get returns the current event with the state key, or nil where there is none.
func (r roomState) get(ctx context.Context, stateKey string) (*stateEvent, error) {
	what := fmt.Sprintf("read %s state %q", r.eventType.Type, stateKey)
	body, err := r.request(ctx, http.MethodGet, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", r.room, "state", r.eventType.Type, stateKey},
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
	case evt != nil && evt.ID != "" && evt.Type == r.eventType.Type && evt.StateKey != nil && *evt.StateKey == stateKey:
		return evt, nil
	case r.hasLeft(ctx): // Dendrite then gives the room's create event in place of one that is not there
		return nil, r.notJoined(what, nil)
	default:
		return nil, fail(ErrCorrupt, nil, "cannot %s in %s: the homeserver gave something else", what, r.room)
	}
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
		return "", &failure{text: fmt.Sprintf("cannot %s in %s, or perhaps could: the homeserver's answer names no event", what, r.room)}
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
		req.Client = settlingClient(r.client.Client, r.pending)
	}
	return r.client.MakeFullRequest(withRetries(ctx, r.client), req)
}

// withRetries makes requests of the context be retried where nobody has said how often.
func withRetries(ctx context.Context, client *mautrix.Client) context.Context {
	if ctx.Value(mautrix.MaxAttemptsContextKey) == nil && client.DefaultHTTPRetries == 0 {
		return mautrix.WithMaxRetries(ctx, defaultRetries)
	}
	return ctx
}
