package commit

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// Replica is what a process knows of one dict, and who writes it. Its methods are safe for concurrent use.
type Replica struct {
	*replica.Dict
	Writer *Writer

	random func() uint64 // of repairs
}

// NewReplica returns a replica of the dict in room, of which nothing is known. Whoever gets the replica from [Replicas] later on makes their
// requests through that room too: it is that of the first who asked.
func NewReplica(room Room, mode Mode) *Replica {
	dict := new(replica.Dict)
	r := &Replica{Dict: dict, Writer: NewWriter(dict, room, mode), random: rand.Uint64}
	r.Writer.owner = r
	return r
}

// Read asks the homeserver for what is there, afresh also where that is known. It shares the requests of writes, and theirs can
// fail for a lack of power.
func (r *Replica) Read(ctx context.Context, afresh bool) error {
	for try := 1; ; try++ {
		err := r.Writer.Do(ctx, Edit{ReadOnly: true, Conditional: true, Afresh: afresh, Overwrites: true})
		if !errors.Is(err, fault.ErrRefused) || try >= r.Writer.policy.PowerTries {
			r.repairLater(ctx)
			return err
		}
	}
}

// Knows tells whether any event of the dict is known.
func (r *Replica) Knows() bool { return replica.Read(r.Dict, (*merge.History).Len) > 0 }

// ReadView is the dict as a caller sees it: from memory while it is live, which means that a sync feeds it, else with a request. What the
// homeserver gives then is merged with what this process knows that others have not seen: they wrote at the same time, and somebody will
// merge the two. Where it is not known how the two belong together, and this process has written of late, a look back tells; the view holds
// for the caller's purpose without that where its names and the current ones agree.
func (r *Replica) ReadView(ctx context.Context, live bool, agree func(view, current map[string]string) bool) (*replica.View, error) {
	if view := r.View(); live && view != nil {
		return view, nil
	}
	if live {
		if view, err := r.reread(ctx, false); view != nil || err != nil {
			return view, err
		}
	}
	return r.readCurrent(ctx, agree, func(*merge.Event) {})
}

// readCurrent is ReadView without a sync. Alone is told what the homeserver has given where that counts whatever is known: nil where it has nothing.
func (r *Replica) readCurrent(ctx context.Context, agree func(view, current map[string]string) bool, alone func(current *merge.Event)) (*replica.View, error) {
	if r.Writer.unsettled.Load() {
		if err := r.Read(ctx, false); err != nil {
			return nil, err
		}
	}
	current, err := r.Writer.room.Current(ctx)
	if err != nil {
		return nil, err
	}
	return r.onto(ctx, current, agree, alone)
}

// ViewWith is ReadView for who has just got the current event, nil where there is none.
func (r *Replica) ViewWith(ctx context.Context, current *merge.Event, agree func(view, current map[string]string) bool) (*replica.View, error) {
	if r.Writer.unsettled.Load() {
		if err := r.Read(ctx, false); err != nil {
			return nil, err
		}
	}
	return r.onto(ctx, current, agree, func(*merge.Event) {})
}

// onto merges what the homeserver gives as current with what is known. Alone is that of readCurrent.
func (r *Replica) onto(ctx context.Context, current *merge.Event, agree func(view, current map[string]string) bool, alone func(current *merge.Event)) (view *replica.View, err error) {
	if current == nil {
		return r.leftOut(ctx, alone)
	}
	view = r.View()
	if last := r.Writer.last.Load(); view == nil && last != nil && last.event != current.ID && r.Writer.Recent() {
		if view, err = r.reread(ctx, false); err != nil {
			return nil, err
		}
	} else if view == nil {
		alone(current)
	}
	if view == nil {
		return replica.ViewOf(current), nil
	}
	switch relation := r.Compare(current); {
	case relation == replica.Unknown && !r.Writer.Recent():
		alone(current)
		return replica.ViewOf(current), nil
	case relation == replica.Newer, relation == replica.Unknown && agree(view.Names, current.Dict):
		return replica.ViewOf(current), nil
	case relation != replica.Known:
		if err := r.Read(ctx, relation == replica.Older); err != nil {
			return nil, err
		}
	}
	if view = r.View(); view == nil { // it has rivals, and nobody has asked which of them was stored first
		if view, err = r.reread(ctx, false); err != nil {
			return nil, err
		}
	}
	if view == nil {
		return replica.ViewOf(current), nil
	}
	r.repairLater(ctx)
	return view, nil
}

// ReadWithin is ReadView for a caller who takes what the homeserver has said within that time: what a read without a sync would have given then, and
// what this process has written since.
func (r *Replica) ReadWithin(ctx context.Context, age time.Duration) (*replica.View, error) {
	if view := r.Fresh(age); view != nil {
		return view, nil
	}
	epoch, version, asked := r.Epoch(), r.Version(), r.Writer.policy.Now()
	disagree := func(view, current map[string]string) bool { return false } // what is found out once need not be asked again
	view, err := r.readCurrent(ctx, disagree, func(current *merge.Event) { r.Load(version, asked, current) })
	if err != nil {
		return nil, err
	}
	if known := r.View(); known != nil && known.Event == view.Event && known.Err == nil && maps.Equal(known.Names, view.Names) {
		r.Shown(epoch, asked)
	}
	return view, nil
}

// reread is Read, and what is known then: nil where that is not certain.
func (r *Replica) reread(ctx context.Context, afresh bool) (*replica.View, error) {
	if err := r.Read(ctx, afresh); err != nil {
		return nil, err
	}
	return r.View(), nil
}

// LeftOut is the dict where the homeserver has nothing in the state. A dict of one name that is not there is an ordinary answer, and nobody
// looks further.
func (r *Replica) LeftOut(ctx context.Context) (*replica.View, error) {
	return r.leftOut(ctx, func(*merge.Event) {})
}

// leftOut is LeftOut. Alone is told nil where there is nothing.
func (r *Replica) leftOut(ctx context.Context, alone func(current *merge.Event)) (*replica.View, error) {
	if r.Writer.mode.OneName {
		alone(nil)
		return &replica.View{}, nil
	}
	if view := r.View(); view == nil || view.Event == "" {
		events, err := r.Writer.room.Latest(ctx)
		if err == nil && len(events) == 0 {
			alone(nil)
		}
		if err != nil || len(events) == 0 {
			return &replica.View{}, err
		}
	}
	view, err := r.reread(ctx, true)
	return cmp.Or(view, &replica.View{}), err
}

// Begin is for a new replica, with what a sync has brought of the dict until that moment: what was current, and what came after that, the oldest
// first. All that was sent from then on, in Unix milliseconds, is among these; from is 0 where all there is is.
func (r *Replica) Begin(at time.Time, from int64, events ...merge.Event) {
	if from != 0 {
		from += (r.Writer.policy.OwnFresh + r.Writer.policy.Skew).Milliseconds() // see rivalsSince
	}
	r.Dict.Begin(at, from, events...)
	r.repairLater(context.Background())
}

// Bring adds events that one response of a sync brought. A fork that they leave is merged after a while, where it is still there.
func (r *Replica) Bring(events ...merge.Event) {
	r.Feed(events...)
	r.repairLater(context.Background())
}

// Reconsider is for when somebody's power to write, or their membership, has been taken away: the homeserver can have taken what they sent
// since that time, in Unix milliseconds, out of the state. From is empty where it can be anybody's.
func (r *Replica) Reconsider(ctx context.Context, from id.UserID, since int64) {
	affected := func(head *merge.Event) bool { return head.Time >= since && (from == "" || head.Sender == from) }
	if slices.ContainsFunc(replica.Read(r.Dict, (*merge.History).Heads), affected) {
		ctx, cancel := context.WithTimeout(ctx, r.Writer.policy.SettleFor)
		defer cancel()
		read := func(ctx context.Context) error { return r.Read(ctx, true) }
		_ = r.Writer.mode.Background.Do(ctx, background.Repair, r.Writer.mode.Room, read) // whoever reads next finds it out otherwise
	}
}

// repairLater repairs what needs it after a while that differs between processes, so that one does it for all.
func (r *Replica) repairLater(ctx context.Context) {
	r.Writer.repairLater(ctx, time.Duration(float64(r.Writer.policy.RepairAfter)*(0.5+fraction(r.random()))))
}

// Redacted is for a sync that brings a redaction of the event.
func (r *Replica) Redacted(event id.EventID) {
	if replica.Read(r.Dict, func(h *merge.History) bool { return h.IsHead(event) }) {
		r.Forget()
	}
}

// Resolved is for a sync that gives the event as the current one without having brought it: the homeserver has changed its mind.
func (r *Replica) Resolved(event id.EventID) {
	if view := r.View(); view != nil && view.Event != event {
		r.Forget()
	}
}
