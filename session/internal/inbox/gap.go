package inbox

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/syncing"
)

// gap is what a response of the sync has left out of a room's timeline, for it was too much. It is what came after the token since, up to the token until.
type gap struct{ since, until string }

const longestRetry = time.Minute

const (
	pageSize = 100 // events

	// mostGaps is how many times as many events are read of a gap as handlers are told of.
	mostGaps = 10

	// mostEmpty is how many pages in a row may bring nothing new. A homeserver leaves out what the user may not see, and [syncing.Page] what cannot be read.
	mostEmpty = 100
)

var errNull = errors.New("the homeserver's answer is null")

// bridge asks for the events of a gap, and tells them. It tells whether that was done.
func (i *Inbox) bridge(it *item) bool {
	events, ok := i.missing(it)
	for _, evt := range events {
		if i.isStopping() {
			return false
		}
		i.mu.Lock()
		wanted := i.wants(evt, it.room, it.batch)
		i.mu.Unlock()
		if !wanted {
			continue
		}
		if i.isLocked(evt) {
			if decrypted, err := i.config.Decrypt(i.ctx, evt); err == nil {
				decrypted.Mautrix.EventSource |= event.SourceDecrypted
				evt = decrypted
			}
		}
		if !i.tell(evt) {
			return false
		}
		i.mu.Lock()
		i.known[evt.ID] = it.batch
		it.batch.handled = append(it.batch.handled, evt.ID)
		i.kept++
		i.change()
		i.mu.Unlock()
	}
	return ok
}

// missing are the events of a gap, the oldest first. It is not ok where the inbox was stopped.
//
// It reads forward. Backward, Dendrite 0.15.2 does not stop at the sync's token: it goes on with older events, which handlers have been told of. It begins
// where a page that goes back from the sync's token starts. The specification says that this is the same token. Dendrite makes it one of the last event
// before, and goes on with the next one. Forward from the sync's own token Dendrite leaves out the first event of the gap, unless the last thing that the sync saw is in this room.
func (i *Inbox) missing(it *item) (events []*event.Event, ok bool) {
	log := i.config.Log.With().Stringer("room_id", it.room).Logger()
	wait, seen := i.limits.Retry, map[id.EventID]bool{}
	asked, empty, cut := map[string]bool{}, 0, false
	defer func() {
		if cut {
			log.Warn().Int("events", len(events)).Msg("The sync has left out more events than handlers are told of. Older ones are missed.")
		}
	}()
	for from := ""; len(seen) < mostGaps*i.limits.Gap; {
		var page *mautrix.RespMessages
		var err error
		if from == "" {
			page, err = i.config.Page(i.ctx, it.room, it.gap.since, "", mautrix.DirectionBackward, 1)
		} else {
			page, err = i.config.Page(i.ctx, it.room, from, it.gap.until, mautrix.DirectionForward, pageSize)
		}
		if err == nil && page == nil {
			err = errNull
		}
		if err != nil {
			var failed mautrix.HTTPError
			if errors.As(err, &failed) && failed.Response != nil && isRefusal(failed.Response.StatusCode) {
				log.Warn().Int("status", failed.Response.StatusCode).Msg("The homeserver does not give the events that the sync has left out")
				return events, true
			}
			select {
			case <-i.halt:
				return nil, false
			case <-time.After(wait):
			}
			wait = min(2*wait, longestRetry)
			continue
		}
		wait = i.limits.Retry
		if from == "" {
			from = cmp.Or(page.Start, it.gap.since)
			continue
		}
		asked[from] = true
		before := len(seen)
		for _, evt := range syncing.Events(page.Chunk) {
			if seen[evt.ID] { // Dendrite begins a page with the last event of the one before it
				continue
			}
			seen[evt.ID] = true
			if events = append(events, evt); i.joins(evt) {
				events, cut = nil, false // what was there before the user came
			}
		}
		if more := len(events) - i.limits.Gap; more > 0 { // now, for each can be 64 KiB
			events, cut = slices.Delete(events, 0, more), true
		}
		if empty++; len(seen) > before {
			empty = 0
		}
		if empty == mostEmpty || page.End == "" || asked[page.End] {
			return events, true
		}
		from = page.End
	}
	log.Warn().Int("events", len(seen)).Msg("The sync has left out more events than are read. Newer ones are missed.")
	return events, true
}

// isRefusal tells whether another try would be answered in the same way.
func isRefusal(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusForbidden || status == http.StatusNotFound
}

func (i *Inbox) isStopping() bool {
	select {
	case <-i.halt:
		return true
	default:
		return false
	}
}
