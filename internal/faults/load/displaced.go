package load

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

// displaced are the memory's events, by state key, that the homeserver has stored before a kill and brought to its lists and its sync only
// after events that were sent since. Dendrite does so with the event that its sync API was at (v0.15.2): the queue between the two gives it
// out again after 30 seconds, and what comes behind it at once. Until then nothing tells a writer that there is such an event. Where the sync
// cannot be asked there are none.
func (r *Run) displaced(ctx context.Context) map[string]id.EventID {
	for r.redelivers() {
		time.Sleep(time.Second)
	}
	filter, err := json.Marshal(mautrix.Filter{Room: &mautrix.RoomFilter{
		Rooms: []id.RoomID{r.Room}, Timeline: &mautrix.FilterPart{Limit: maxPages * 100, Types: []event.Type{r.stateType()}},
	}})
	if err != nil {
		return nil
	}
	sync, err := r.owner.SyncRequest(ctx, 0, "", string(filter), false, "")
	if err != nil || sync.Rooms.Join[r.Room] == nil {
		return nil
	}
	return outOfOrder(sync.Rooms.Join[r.Room].Timeline.Events, r.Kills)
}

// outOfOrder are the events, by state key, of before a kill that come after one of since then.
func outOfOrder(events []*event.Event, kills []time.Time) map[string]id.EventID {
	found := map[string]id.EventID{}
	var latest time.Time // of the events so far
	for _, evt := range events {
		sent := time.UnixMilli(evt.Timestamp)
		if evt.StateKey != nil && slices.ContainsFunc(kills, func(kill time.Time) bool { return sent.Before(kill) && latest.After(kill) }) {
			found[*evt.StateKey] = evt.ID
		}
		if sent.After(latest) {
			latest = sent
		}
	}
	return found
}

// excuse puts violations aside that a displaced event explains: a writer could not see it, and took its place.
func (r *Run) excuse(displaced map[string]id.EventID) {
	violations := r.Violations
	r.Violations = nil
	for _, v := range violations {
		stateKey := ""
		switch n := r.Config.Shards; {
		case r.Config.PerKey:
			stateKey = v.Key
		case n > 0:
			stateKey = wire.ShardKey(wire.Shard(v.Key, n), n)
		}
		evt, ok := displaced[stateKey]
		if !ok || !slices.Contains([]string{Lost, NotOneOrder, OwnUnread, Vanished}, v.Kind) {
			r.Violations = append(r.Violations, v)
			continue
		}
		v.Text += fmt.Sprintf("; the homeserver brought %s late, out of order, after it was killed", short(evt))
		r.Excused = append(r.Excused, v)
	}
}
