package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// State returns the current event of the type with the state key, or nil where there is none.
func (r Room) State(ctx context.Context, eventType event.Type, stateKey string) (*Event, error) {
	what := fmt.Sprintf("read %s state %q", eventType.Type, stateKey)
	body, err := r.Ask(ctx, MaxEvent, r.Client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", r.ID, "state", eventType.Type, stateKey},
		map[string]string{"format": "event"}, // in the specification since v1.16, on servers for years
	))
	if errors.Is(err, mautrix.MNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, r.Explain(ctx, what, err)
	}
	var evt Event
	read := json.Unmarshal(body, &evt) == nil
	switch {
	case read && evt.ID != "" && evt.Type == eventType.Type && evt.StateKey != nil && *evt.StateKey == stateKey:
		return &evt, nil
	case r.HasLeft(ctx): // Dendrite then gives the room's create event in place of one that is not there
		return nil, r.NotJoined(what, nil)
	default:
		return nil, fault.Of(fault.ErrCorrupt, nil, "cannot %s in %s: the homeserver gave something else", what, r.ID)
	}
}

// PutState makes content the current one of the state key and returns the event that holds it. Once tells that the request was made a
// single time. On Synapse and Dendrite a content that already is current creates no event.
func (r Room) PutState(ctx context.Context, eventType event.Type, stateKey string, content json.RawMessage) (sent id.EventID, once bool, err error) {
	what := fmt.Sprintf("write state %q", stateKey)
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "state", eventType.Type, stateKey)
	var answer mautrix.RespSendEvent
	attempts := 0
	err = r.TryWrite(ctx, func(ctx context.Context) error {
		attempts++
		return Get(ctx, r.Client, Request{Method: http.MethodPut, URL: url, JSON: content}, &answer)
	})
	if IsStatus(err, http.StatusRequestEntityTooLarge) { // M_TOO_LARGE, but M_BAD_JSON on Dendrite
		return "", false, r.TooLarge(stateKey, wire.Size(content), err)
	} else if err != nil && !errors.Is(err, ErrAnswer) {
		if errors.Is(err, mautrix.MForbidden) {
			err = errors.Join(fault.ErrRefused, err)
		}
		return "", false, r.ExplainSend(ctx, what, eventType, err)
	}
	if err != nil || answer.EventID == "" {
		return "", false, fault.Because(nil, "cannot %s in %s, or perhaps could: the homeserver's answer names no event", what, r.ID)
	}
	return answer.EventID, attempts == 1, nil
}

// Earlier asks for a state event that need not be current any more. It is nil where the homeserver does not give it.
func (r Room) Earlier(ctx context.Context, at id.EventID) (evt *Event, err error) {
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "event", at)
	err = untilThere(ctx, lookAgain, func() error {
		return Get(ctx, r.Client, Request{Method: http.MethodGet, URL: url, Limit: MaxEvent}, &evt)
	})
	switch {
	case IsStatus(err, http.StatusNotFound), IsStatus(err, http.StatusForbidden):
		return nil, nil
	case err != nil:
		return nil, r.Explain(ctx, "read an earlier event", err)
	case evt == nil || evt.ID != at || evt.StateKey == nil:
		return nil, nil
	}
	return evt, nil
}

// Fits fails with [fault.ErrTooLarge] where no homeserver can take a content of that many bytes.
func (r Room) Fits(stateKey string, size int) error {
	if size > wire.MaxEvent {
		return r.TooLarge(stateKey, size, nil)
	}
	return nil
}

// Ask makes a request for something of at most that many bytes.
func (r Room) Ask(ctx context.Context, limit int64, url string) ([]byte, error) {
	return Do(ctx, r.Client, Request{Method: http.MethodGet, URL: url, Limit: limit})
}

// untilThere asks again, for so long, for what the homeserver does not find.
func untilThere(ctx context.Context, within time.Duration, ask func() error) error {
	for pause := firstLook; ; pause *= laterFactor {
		err := ask()
		if pause = min(pause, within); pause <= 0 || !IsStatus(err, http.StatusNotFound) {
			return err
		}
		within -= pause
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// Redact redacts an event. A second redaction changes nothing.
func (r Room) Redact(ctx context.Context, event id.EventID) error {
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "redact", event, r.Client.TxnID())
	return r.TryWrite(ctx, func(ctx context.Context) error {
		return Get(ctx, r.Client, Request{Method: http.MethodPut, URL: url}, &mautrix.RespSendEvent{})
	})
}

// GetEvent asks for an event, and again for one that is not there, for so long or [lookAgain].
func (r Room) GetEvent(ctx context.Context, at id.EventID, within time.Duration) (evt *event.Event, err error) {
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "event", at)
	err = untilThere(ctx, max(within, lookAgain), func() error {
		return Get(ctx, r.Client, Request{Method: http.MethodGet, URL: url, Limit: MaxEvent}, &evt)
	})
	return evt, err
}
