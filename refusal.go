package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/fault"
)

// errRefused is beneath an [ErrForbidden] where it is state that the homeserver has not taken.
var errRefused = fault.ErrRefused

func (r roomState) noPower(what string, need, have int, cause error) error {
	return r.NoPower(what, r.Type, need, have, cause)
}

// notInState is for what can only be done in the state, to a memory that is in account data.
func (r roomState) notInState(ctx context.Context, what string) error {
	if need, have, known := r.levels(ctx); known && have < need {
		return r.noPower(what, need, have, nil)
	}
	return fault.Of(ErrForbidden, nil, "cannot %s in %s: it has not left account data for the state yet", what, r.ID)
}

// levels are the power level that it takes to send the store's state, and the one that the user has, where the homeserver says.
func (r roomState) levels(ctx context.Context) (need, have int, known bool) {
	return r.Levels(ctx, r.Type)
}

// mayWrite tells whether the user has the power to write the memory into the state, or whether it is not known.
func (r roomState) mayWrite(ctx context.Context) bool {
	need, have, known := r.levels(ctx)
	return !known || have >= need
}
