package commit

import (
	"errors"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"
)

// commit is a batch of edits on its way.
type commit struct {
	*Writer
	callers *callers
	all     []*pending
	todo    []*pending // those that the next event is to hold
	own     id.EventID // the last event that the commit sent
	epoch   int        // of the dict, when what is known of it was last whole
	since   time.Time  // the commit began from all there was at that moment; see rivalsSince
	askedAt time.Time  // when the homeserver was last asked for what there is

	currentAsked bool  // whether it was asked what is current after the commit began
	fromNothing  bool  // whether nothing was current when the commit began, and it is not known what the homeserver had left out of the state
	metOthers    bool  // whether it has found that others wrote at the same time
	maybeStored  bool  // whether the homeserver can have stored something of this commit
	refusedMerge error // of a homeserver that refuses the merge with what was sent for its size

	sealerAsked bool             // whether it is known how values are sent
	sealer      Sealer           // nil where they are part of the dict
	learned     bool             // whether what the values replace was read
	sealed      map[Value]string // what was sealed, with the reference to it
	before      map[string]bool  // what was stored before, or by this commit
}

// only is a copy of those for which it is true, except one of the others.
func only[T any](all []T, f func(T) bool) []T {
	return except(all, func(one T) bool { return !f(one) })
}

func except[T any](all []T, f func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), f)
}

// synced tells whether what is sent will come back by itself. In a handler of the sync it will not, whoever else waits
// for the same event.
func (c *commit) synced() bool {
	return !slices.ContainsFunc(c.all, func(p *pending) bool { return !c.room.Synced(p.ctx) })
}

// errUnseen is for a homeserver that acknowledges an event and then does not show it.
var errUnseen = errors.New("roomkv: the homeserver acknowledged a write but does not show it among the room's events, so that it is not known whether it stands")

// age is how long ago what the commit began from was all there was.
func (c *commit) age() time.Duration { return c.policy.since(c.since) }
