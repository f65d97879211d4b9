package watch

import (
	"context"
	"errors"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// Notice is what somebody else than a sync says of a room: that there is an event of the memory, or that one was redacted. Without an event it is that
// the room may have been upgraded.
//
// It can be late, come twice, before what happened earlier, or not be true. So what is told the homeserver has given, and the notice is only the reason
// to ask it. Each event is noticed by itself, which is why nothing needs to be known of what lies between two of them.
type Notice struct {
	Event    id.EventID
	StateKey string // of the event, unless it was redacted
	Redacted bool
}

// notice tells what has happened, where the notice says something new.
func (w *Watch) notice(ctx context.Context, of Notice, yield func(Change, error) bool) (left bool, err error) {
	switch {
	case of.Event == "":
		replaced := w.Upgraded(ctx, w.Policy.AnswerFor)
		if left, err = w.catchUpTo(ctx, "", yield); left || err != nil {
			return left, err
		}
		return false, replaced
	case of.Redacted:
		for stateKey, d := range w.dicts {
			if d.history.IsHead(of.Event) {
				return w.tellCurrent(ctx, stateKey, of.Event, yield)
			}
		}
		return false, nil
	}
	knows := func() bool {
		d := w.dicts[of.StateKey]
		return d != nil && d.history.Had(of.Event)
	}
	if knows() {
		return false, nil
	}
	around, err := w.Around(ctx, of.Event) // which waits until it is listed
	if err != nil || around.Start == "" {  // it is not there, or may not be seen
		return false, err
	}
	if left, err = w.catchUpTo(ctx, of.Event, yield); left || err != nil || knows() {
		return left, err
	}
	return w.tellCurrent(ctx, of.StateKey, "", yield) // it is listed further back than what was told last
}

// catchUpTo tells what has happened since the last event that was told, as far as it is listed after an event.
func (w *Watch) catchUpTo(ctx context.Context, event id.EventID, yield func(Change, error) bool) (left bool, err error) {
	left, err = w.catchUp(ctx, reach{until: event}, false, yield)
	if errors.Is(err, fault.ErrTooOld) { // others have said much since, and nothing was told
		err = nil
	}
	return left, err
}

// tellCurrent tells what is current in a dict, where that was not told and, unless only is empty, is that event.
func (w *Watch) tellCurrent(ctx context.Context, stateKey string, only id.EventID, yield func(Change, error) bool) (left bool, err error) {
	if !w.Layout.Holds(stateKey) {
		return false, nil
	}
	current, err := w.Get(ctx, stateKey)
	if err != nil || current == nil || only != "" && current.ID != only {
		return false, err
	}
	return w.tell(ctx, current, yield)
}
