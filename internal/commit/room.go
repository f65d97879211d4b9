package commit

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// Room is one dict's place on the homeserver.
type Room interface {
	// Current is the dict's current event, or nil where there is none.
	Current(ctx context.Context) (*merge.Event, error)

	// Recent gives a page of the room's events from where the last one ended: next, which is "" for the latest.
	//
	// Invariant: lists grow in the order in which the homeserver stores events. What it stores later is listed as newer, but for what it took up
	// to [Policy.Skew] to store. Look backs rely on it, and so does [merge.History.AddPage].
	Recent(ctx context.Context, from string, limit int) (Page, error)

	// Before gives a page like Recent, of what the homeserver lists before an event and of that itself.
	Before(ctx context.Context, event id.EventID, limit int) (Page, error)

	// Latest gives the dict's events among the room's latest ones, the newest first, as far as one request tells.
	Latest(ctx context.Context) ([]merge.Event, error)

	// Powerless tells since when somebody has not had the power to write the dict, or has not been in the room, in Unix milliseconds, by the
	// time of the event that says so. It is 0 where they may write.
	Powerless(ctx context.Context, user id.UserID) (since int64, err error)

	// Stored is the place of an event that was listed among all that the homeserver has stored, where known is true.
	Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error)

	// Now is the homeserver's time, in Unix milliseconds. It is asked for only where something in the dict expires.
	Now(ctx context.Context) (int64, error)

	// Hold keeps away whoever else writes the dict, where a write would undo theirs. What is known of the dict then counts
	// until release is called.
	Hold(ctx context.Context) (release func(), err error)

	// Send makes content the current one. Once tells that the request was made a single time: of one that was made again the event can be the
	// second, which passes for a late delivery of the first. The error has fault.ErrRefused in it where the homeserver does not take state from
	// this user.
	Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error)

	// Sealer says how new values are sent: without one they are part of the dict. It fails where they must not be sent. Asked
	// again in the same commit it goes by what is known.
	Sealer(ctx context.Context, again bool) (Sealer, error)

	// Drop is told what was stored under any name and is so no longer; see [Mode].
	Drop(ctx context.Context, stored []string)

	// Fits fails where no homeserver takes a content of that many bytes. TooLarge tells whether an error is such a one,
	// or that of a homeserver that refused what was sent for its size.
	Fits(size int) error
	TooLarge(err error) bool

	// NotSent tells whether an error of Send says that the homeserver has not taken the content. Else it can have.
	NotSent(err error) bool

	// RefusesContent tells whether an error is that of a homeserver which takes no event with what was sent in it, its size included, and
	// another one perhaps. It is sure where the homeserver has stored nothing.
	RefusesContent(err error) (refused, sure bool)

	// Synced tells whether a sync feeds the dict right now, so that what is sent in ctx will come back by itself.
	Synced(ctx context.Context) bool

	// Refused fails where the homeserver has acknowledged the event and then thrown it away, because the power to send it was taken
	// away at the same time.
	Refused(ctx context.Context, event id.EventID) error

	// Behind notes that the sync has not brought the event yet, so that it feeds nothing until it does.
	Behind(event id.EventID)
}

// Page is a part of the room's events.
type Page struct {
	Events []merge.Event // those of the dict, the newest first
	Depth  int64         // of the last of Events in the room's graph, where the page ends with it; 0 where nothing tells
	Oldest int64         // when the oldest event was sent, of this dict or of any other, in Unix milliseconds; 0 where none tells
	Next   string        // where the next page begins, empty where there is none
}
