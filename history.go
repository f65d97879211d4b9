package roomkv

import (
	"context"
	"iter"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/past"
)

// History returns every revision of a key, the newest first, as far as the homeserver has it: an [Entry] for each state event
// that changed what is stored under the key, with who sent it and when. Where the key was removed, the entry is Deleted.
//
// In the single-state-key layout an event that changed other keys is no revision of this one, nor is one that merges what
// others have written. Of writes at the same time each is a revision, also one that did not count; the one that counts comes
// first. Writes of one process that shared an event are one revision, the last of them. What an encrypted event holds is not
// compared: a value that was encrypted once more is a revision.
//
// A value that cannot be read comes as an error beside the entry's other fields, and the iteration goes on: [ErrUndecryptable],
// [ErrUntrusted], [ErrCorrupt], and [ErrRedacted] where the event or the encrypted one was redacted. Of a redacted event of the
// single-state-key layout nobody knows what it had changed: it is a revision where the values before and after differ.
// Other errors end the iteration: [ErrInvalidKey], [ErrWrongSecret] and those of requests. A key that never was
// has no revisions, and that is no error. With [WithSealedKeys] what was stored before it was sealed is not among them.
//
// The history is read as the iteration goes on, page by page, backwards through the room's events.
func (s *Store) History(ctx context.Context, key string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, op := s.begin(ctx, "History", key)
		defer op.end(nil)
		yield = noting(op, yield)
		h, err := s.handle(ctx, key)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for rev, err := range past.Revisions(ctx, h.Room, h.NameOf(s.prefix.of(key))) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			entry, err := pastEntry(ctx, rev, h.Reader())
			if entry.Key = key; !yield(entry, err) {
				return
			}
		}
	}
}

// pastEntry is a revision as the API has it.
func pastEntry(ctx context.Context, rev *past.Revision, reader memory.Reader) (Entry, error) {
	read, err := rev.Entry(ctx, reader)
	entry := entryOf(read)
	entry.Deleted = rev.Deleted
	return entry, err
}
