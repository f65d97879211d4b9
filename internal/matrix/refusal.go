package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/retry"
	"github.com/roomkv/roomkv/internal/wire"
)

// Explain turns the error of a request into one that says what to do; nil stays nil. It asks the homeserver for what the
// first answer left out, and does without where it gets none. What the request was to do is said in the
// infinitive. The homeserver's own words are left out of the text, for it could repeat a value.
func (r Room) Explain(ctx context.Context, what string, err error) error {
	var interrupted *retry.Interrupted
	var answer mautrix.HTTPError
	switch {
	case err == nil, fault.Told(err):
		return err
	case errors.Is(err, ErrAnswer):
		return fault.Of(fault.ErrCorrupt, err, "cannot %s in %s: %v", what, r.ID, err)
	case errors.As(err, &interrupted), !errors.As(err, &answer), answer.Response == nil, answer.WrappedError != nil:
		return fault.Because(err, "cannot %s in %s: %s", what, r.ID, Describe(err))
	}
	code := Describe(err)
	// Dendrite answers a write to a room that it has never heard of with the second.
	if !errors.Is(err, mautrix.MForbidden) && !errors.Is(err, mautrix.MUnsupportedRoomVersion) {
		return fault.Because(err, "cannot %s in %s: the homeserver answered %s", what, r.ID, code)
	}

	if r.HasLeft(ctx) {
		return r.NotJoined(what, err)
	}
	return fault.Of(fault.ErrForbidden, err, "cannot %s in %s: the homeserver answered %s", what, r.ID, code)
}

// ExplainSend is Explain for a request to send an event of that type, which takes power.
func (r Room) ExplainSend(ctx context.Context, what string, sends event.Type, err error) error {
	explained := r.Explain(ctx, what, err)
	if errors.Is(explained, fault.ErrForbidden) {
		if need, have, known := r.Levels(ctx, sends); known && have < need {
			return r.NoPower(what, sends, need, have, err)
		}
	}
	return explained
}

// ExplainRedact is Explain for a redaction.
func (r Room) ExplainRedact(ctx context.Context, at id.EventID, err error) error {
	explained := r.Explain(ctx, fmt.Sprintf("redact event %s", at), err)
	if errors.Is(explained, fault.ErrForbidden) {
		if levels, failed := r.PowerLevels(ctx); failed == nil {
			return r.MayNotRedact(at, levels, err)
		}
	}
	return explained
}

// MayNotRedact is a [fault.ErrForbidden] of a redaction for which the user lacks the power.
func (r Room) MayNotRedact(at id.EventID, levels *event.PowerLevelsEventContent, cause error) error {
	return fault.Of(fault.ErrForbidden, cause, "cannot redact event %s in %s: that takes power level %d for one's own events and %d for others', and %s has %d",
		at, r.ID, levels.GetEventLevel(event.EventRedaction), levels.Redact(), r.Client.UserID, levels.GetUserLevel(r.Client.UserID))
}

// NoPower is a [fault.ErrForbidden] that names the power level which it takes to send events of the type, and the one that the user has.
func (r Room) NoPower(what string, sends event.Type, need, have int, cause error) error {
	kind := "events"
	if sends.IsState() {
		kind = "state"
	}
	return fault.Of(fault.ErrForbidden, cause, "cannot %s in %s: sending %s %s there takes power level %d, and %s has %d",
		what, r.ID, sends.Type, kind, need, r.Client.UserID, have)
}

// NotJoined is a [fault.ErrNotJoined].
func (r Room) NotJoined(what string, cause error) error {
	return fault.Of(fault.ErrNotJoined, cause, "cannot %s in %s: %s is not in that room, or there is none of that ID; join it first",
		what, r.ID, r.Client.UserID)
}

// TooLarge is a [fault.ErrTooLarge] of a content of so many bytes.
func (r Room) TooLarge(stateKey string, size int, cause error) error {
	return fault.Of(fault.ErrTooLarge, cause, "the content of state %q in %s would be %d bytes, and a whole Matrix event, with its addresses and signatures, may have %d",
		stateKey, r.ID, size, wire.MaxEvent)
}

// RefusesContent tells whether the homeserver has refused what was sent for what is in it, and not for who sent it or where to. It is not
// sure that nothing was stored where it failed over that: Synapse answers HTTP 500 to some contents.
func RefusesContent(err error) (refused, sure bool) {
	switch {
	case errors.Is(err, fault.ErrTooLarge):
		return true, !InDoubt(err)
	case errors.Is(err, fault.ErrForbidden), errors.Is(err, fault.ErrNotJoined):
		return false, false
	}
	switch status := Status(err); status {
	case 0, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false, false
	case http.StatusInternalServerError:
		return true, false
	default:
		return status >= 400 && status < 500, !InDoubt(err)
	}
}
