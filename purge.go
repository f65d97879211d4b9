package roomkv

import (
	"cmp"
	"context"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/purge"
)

// Purged is what [Store.Purge] has done.
type Purged struct {
	State     int // state events that were redacted
	Encrypted int // encrypted events that were redacted

	// Media are the attachments that held values. They are encrypted, the keys to them were in what was redacted, and nobody but the
	// homeserver's administrator can delete them.
	Media []id.ContentURIString

	// Left are the events that still have a value, or can have it.
	Left []Left

	// Unseen tells that the homeserver does not list the room's events back to the first, so that there can be others.
	Unseen bool
}

// Left is an event that Purge has not redacted, and why: [ErrForbidden] for a lack of power; [ErrUndecryptable] where it is not
// known what the event holds, or where a value of another key is in it, or can be; [ErrConflict] where others
// went on writing the key; or a request's error.
type Left struct {
	Event id.EventID
	Err   error
}

// Purge removes keys and redacts every event of the memory that ever held a value of theirs, so that the homeserver gives it to
// nobody any more. A redaction asks other homeservers to do the same; Synapse keeps what was redacted for 7 days by default,
// where its administrator can read it; and who has read a value can have kept it, a [Snapshot] of this process too.
//
// Where values are encrypted, these are the encrypted events, and the state keeps what it says of other keys. Their current
// values in such an event are encrypted anew before it is redacted, by this client, which vouches for them then. Their former
// values in it are lost.
//
// Where values stand in the state, these are the state events, and those beside which the homeserver shows what was there before.
// Unless each key has an event, each is a dict that has other keys too, so that their history is lost with it: [Store.History]
// and [Store.At] find [ErrRedacted] there, and [Store.CompareAndPut] a conflict with a revision from before. What is current is never
// redacted: the dict is written once more without the keys first. A key's name stays in the state where it is not sealed.
//
// Others can write at the same time, and what they write to other keys is kept. A key that they put once more while Purge goes on is
// purged once more. Only what a writer leaves behind who began before the purge and died before it had merged can bring
// values back, and another Purge takes these away again.
//
// A bot may redact its own events, and others' only with the power that the room's settings ask for. What cannot be redacted is
// in Purged.Left, and the error is that of the first of these. Purge can be called again, so too after an interruption, and
// goes on where it was. Events that nothing refers to, because a Put failed after it had sent its encrypted event, are not found.
//
// Errors: [ErrForbidden], [ErrUndecryptable], [ErrConflict], and those of [Store.Delete] and [Store.Put].
func (s *Store) Purge(ctx context.Context, keys ...string) (done Purged, err error) {
	ctx, op := s.begin(ctx, "Purge", keys...)
	defer op.end(&err)
	var result purge.Result
	if len(keys) == 0 {
		return Purged{}, nil
	}
	err = s.write(ctx, keys, func(h memory.Handle) error {
		return purge.Run(ctx, h, s.prefix.full(keys), &result)
	})
	done = Purged{State: result.State, Encrypted: result.Encrypted, Media: result.Media, Unseen: result.Unseen}
	for _, left := range result.Left {
		done.Left = append(done.Left, Left(left))
		err = cmp.Or(err, left.Err)
	}
	return done, err
}
