package roomkv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/wire"
)

// explain turns the error of a request into one that says what to do. It asks the homeserver for what the
// first answer left out, and does without where it gets none. What the request was to do is said in the
// infinitive. The homeserver's own words are left out of the text, for it could repeat a value.
func (r roomState) explain(ctx context.Context, what string, err error) error {
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
	if need, have, known := r.levels(ctx); known && have < need {
		return r.noPower(what, need, have, err)
	}
	return fail(ErrForbidden, err, "cannot %s in %s: the homeserver answered %s", what, r.room, code)
}

// errNoPower is beneath an [ErrForbidden] for a lack of power to send the store's state.
var errNoPower = errors.New("not enough power")

func (r roomState) noPower(what string, need, have int, cause error) error {
	return fail(ErrForbidden, errors.Join(errNoPower, cause), "cannot %s in %s: sending %s state there takes power level %d, and %s has %d",
		what, r.room, r.eventType.Type, need, r.client.UserID, have)
}

// notInState is for what can only be done in the state, to a memory that is in account data.
func (r roomState) notInState(ctx context.Context, what string) error {
	if need, have, known := r.levels(ctx); known && have < need {
		return r.noPower(what, need, have, nil)
	}
	return fail(ErrForbidden, nil, "cannot %s in %s: it has not left account data for the state yet", what, r.room)
}

// levels are the power level that it takes to send the store's state, and the one that the user has, where the homeserver says.
func (r roomState) levels(ctx context.Context) (need, have int, known bool) {
	ctx = withRetries(ctx, r.client)
	var levels event.PowerLevelsEventContent
	if r.client.StateEvent(ctx, r.room, event.StatePowerLevels, "", &levels) != nil {
		return 0, 0, false
	}
	if need, have = levels.GetEventLevel(r.eventType), levels.GetUserLevel(r.client.UserID); have >= need {
		return need, have, true
	}
	// Since room version 12 the creators have all power, and the levels do not say so.
	create, err := r.client.FullStateEvent(ctx, r.room, event.StateCreate, "")
	if err != nil || create == nil || create.Content.ParseRaw(event.StateCreate) != nil && create.Content.Parsed == nil {
		return need, have, false
	}
	levels.CreateEvent = create
	return need, levels.GetUserLevel(r.client.UserID), true
}

// mayWrite tells whether the user has the power to write the memory into the state, or whether it is not known.
func (r roomState) mayWrite(ctx context.Context) bool {
	need, have, known := r.levels(ctx)
	return !known || have >= need
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

func (r roomState) tooLarge(stateKey string, size int, cause error) error {
	return fail(ErrTooLarge, cause, "the content of state %q in %s would be %d bytes, and a whole Matrix event, with its addresses and signatures, may have %d",
		stateKey, r.room, size, wire.MaxEvent)
}

// advise adds what the user can do to an ErrTooLarge.
func advise(err error, advice string) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}

func isStatus(err error, status int) bool {
	var answer mautrix.HTTPError
	return errors.As(err, &answer) && answer.IsStatus(status)
}
