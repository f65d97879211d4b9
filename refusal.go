package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/retry"
	"github.com/roomkv/roomkv/internal/wire"
)

// explain turns the error of a request into one that says what to do. It asks the homeserver for what the
// first answer left out, and does without where it gets none. What the request was to do is said in the
// infinitive. The homeserver's own words are left out of the text, for it could repeat a value.
func (r roomState) explain(ctx context.Context, what string, err error) error {
	var interrupted *retry.Interrupted
	var answer mautrix.HTTPError
	switch {
	case fault.Told(err):
		return err
	case errors.Is(err, matrix.ErrAnswer):
		return fault.Of(ErrCorrupt, err, "cannot %s in %s: %v", what, r.room, err)
	case errors.As(err, &interrupted), !errors.As(err, &answer), answer.Response == nil, answer.WrappedError != nil:
		return fault.Because(err, "cannot %s in %s: %s", what, r.room, matrix.Describe(err))
	}
	code := matrix.Describe(err)
	// Dendrite answers a write to a room that it has never heard of with the second.
	if !errors.Is(err, mautrix.MForbidden) && !errors.Is(err, mautrix.MUnsupportedRoomVersion) {
		return fault.Because(err, "cannot %s in %s: the homeserver answered %s", what, r.room, code)
	}

	if r.hasLeft(ctx) {
		return r.notJoined(what, err)
	}
	return fault.Of(ErrForbidden, err, "cannot %s in %s: the homeserver answered %s", what, r.room, code)
}

// explainSend is explain for a request to send an event of that type, which takes power.
func (r roomState) explainSend(ctx context.Context, what string, sends event.Type, err error) error {
	explained := r.explain(ctx, what, err)
	if errors.Is(explained, ErrForbidden) {
		if need, have, known := r.levelsFor(ctx, sends); known && have < need {
			return r.noPowerFor(what, sends, need, have, err)
		}
	}
	return explained
}

// explainRedact is explain for a redaction.
func (r roomState) explainRedact(ctx context.Context, at id.EventID, err error) error {
	explained := r.explain(ctx, fmt.Sprintf("redact event %s", at), err)
	if errors.Is(explained, ErrForbidden) {
		if levels, failed := r.powerLevels(ctx); failed == nil {
			return r.mayNotRedact(at, levels, err)
		}
	}
	return explained
}

func (r roomState) mayNotRedact(at id.EventID, levels *event.PowerLevelsEventContent, cause error) error {
	return fault.Of(ErrForbidden, cause, "cannot redact event %s in %s: that takes power level %d for one's own events and %d for others', and %s has %d",
		at, r.room, levels.GetEventLevel(event.EventRedaction), levels.Redact(), r.client.UserID, levels.GetUserLevel(r.client.UserID))
}

// errRefused is beneath an [ErrForbidden] where it is state that the homeserver has not taken.
var errRefused = commit.ErrRefused

func (r roomState) noPower(what string, need, have int, cause error) error {
	return r.noPowerFor(what, r.eventType, need, have, cause)
}

func (r roomState) noPowerFor(what string, sends event.Type, need, have int, cause error) error {
	kind := "events"
	if sends.IsState() {
		kind = "state"
	}
	return fault.Of(ErrForbidden, cause, "cannot %s in %s: sending %s %s there takes power level %d, and %s has %d",
		what, r.room, sends.Type, kind, need, r.client.UserID, have)
}

// notInState is for what can only be done in the state, to a memory that is in account data.
func (r roomState) notInState(ctx context.Context, what string) error {
	if need, have, known := r.levels(ctx); known && have < need {
		return r.noPower(what, need, have, nil)
	}
	return fault.Of(ErrForbidden, nil, "cannot %s in %s: it has not left account data for the state yet", what, r.room)
}

// levels are the power level that it takes to send the store's state, and the one that the user has, where the homeserver says.
func (r roomState) levels(ctx context.Context) (need, have int, known bool) {
	return r.levelsFor(ctx, r.eventType)
}

func (r roomState) levelsFor(ctx context.Context, sends event.Type) (need, have int, known bool) {
	levels, err := r.powerLevels(ctx)
	if err != nil {
		return 0, 0, false
	}
	if need, have = levels.GetEventLevel(sends), levels.GetUserLevel(r.client.UserID); have >= need {
		return need, have, true
	}
	if levels.CreateEvent, err = r.createEvent(ctx); err != nil {
		return need, have, false
	}
	return need, levels.GetUserLevel(r.client.UserID), true
}

// createEvent is the room's first event. Since room version 12 its creators have all power, and the levels do not say so.
func (r roomState) createEvent(ctx context.Context) (*event.Event, error) {
	r.eventType = event.StateCreate
	found, err := r.get(ctx, "")
	if err != nil {
		return nil, err
	}
	create := &event.Event{Type: event.StateCreate, RoomID: r.room}
	if found == nil || json.Unmarshal(found.Content, &create.Content) != nil || create.Content.ParseRaw(create.Type) != nil {
		return nil, fault.Of(ErrCorrupt, nil, "%s has no event that tells who made it", r.room)
	}
	create.ID, create.Sender, create.StateKey = found.ID, found.Sender, found.StateKey
	return create, nil
}

// powerLevels asks for the room's power levels.
func (r roomState) powerLevels(ctx context.Context) (*event.PowerLevelsEventContent, error) {
	body, err := r.ask(ctx, matrix.Event, r.client.BuildClientURL("v3", "rooms", r.room, "state", event.StatePowerLevels.Type, ""))
	if err != nil {
		return nil, err
	}
	return levelsOf(body)
}

// levelsOf reads power levels. Up to room version 9 any of them can be a string, which mautrix does not read.
func levelsOf(body json.RawMessage) (*event.PowerLevelsEventContent, error) {
	var content any
	if err := json.Unmarshal(body, &content); err != nil {
		return nil, err
	}
	body, err := json.Marshal(numbers(content))
	if err != nil {
		return nil, err
	}
	var levels event.PowerLevelsEventContent
	return &levels, json.Unmarshal(body, &levels)
}

// numbers replaces the strings in a JSON value that are integers.
func numbers(value any) any {
	switch value := value.(type) {
	case string:
		if number, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil {
			return number
		}
	case map[string]any:
		for name, inner := range value {
			value[name] = numbers(inner)
		}
	}
	return value
}

// mayWrite tells whether the user has the power to write the memory into the state, or whether it is not known.
func (r roomState) mayWrite(ctx context.Context) bool {
	need, have, known := r.levels(ctx)
	return !known || have >= need
}

func (r roomState) notJoined(what string, cause error) error {
	return fault.Of(ErrNotJoined, cause, "cannot %s in %s: %s is not in that room, or there is none of that ID; join it first",
		what, r.room, r.client.UserID)
}

func (r roomState) tooLarge(stateKey string, size int, cause error) error {
	return fault.Of(ErrTooLarge, cause, "the content of state %q in %s would be %d bytes, and a whole Matrix event, with its addresses and signatures, may have %d",
		stateKey, r.room, size, wire.MaxEvent)
}

func isStatus(err error, status int) bool {
	var answer mautrix.HTTPError
	return errors.As(err, &answer) && answer.IsStatus(status)
}

// refusesContent tells whether the homeserver has refused what was sent for what is in it, and not for who sent it or where to. It is not
// sure that nothing was stored where it failed over that: Synapse answers HTTP 500 to some contents.
func refusesContent(err error) (refused, sure bool) {
	var answer mautrix.HTTPError
	switch {
	case errors.Is(err, ErrTooLarge):
		return true, !matrix.InDoubt(err)
	case !errors.As(err, &answer) || answer.Response == nil, errors.Is(err, ErrForbidden), errors.Is(err, ErrNotJoined):
		return false, false
	}
	switch status := answer.Response.StatusCode; status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false, false
	case http.StatusInternalServerError:
		return true, false
	default:
		return status >= 400 && status < 500, !matrix.InDoubt(err)
	}
}
