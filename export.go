package roomkv

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fault"
)

// ExportOption changes what [Store.Export] does.
type ExportOption func(*exporting)

// ExportHistory makes [Store.Export] write every revision of each key too, also of those that have been deleted, as
// [Store.History] gives them.
func ExportHistory() ExportOption { return func(e *exporting) { e.history = true } }

// Exported is what a [Store.Export] has written.
type Exported struct {
	Total      int  // keys that there are
	Revisions  int  // of keys, with [ExportHistory]
	Unreadable int  // how many of all these are in the file without their values, for these could not be read
	Complete   bool // whether the file has its end, so that [Store.Import] takes it
}

type exporting struct {
	Exported
	history bool
	to      *dump.Writer
	unread  error // why the first value could not be read
}

// Export writes the memory to w, which it does not close: every key with its value, revision, sender and time, and whether it
// was encrypted. What is encrypted in the room is in clear in the file, and so are sealed keys: keep it as you keep the values.
//
// The file is JSON Lines. The first line says what it is: {"format":"roomkv","version":1,…}. Then each key has one, in their order:
//
//	{"key":"greeting","value":"Hello!","revision":"$…","sender":"@…","time":"2026-11-21T16:00:00.5Z","encrypted":true,…}
//
// The last, {"lines":…,"sha256":"…"}, has the number of those between and the SHA-256 of all before it, so that [Store.Import]
// knows a file that was cut or changed. With [ExportHistory] revisions follow after all keys, of each key the newest first, with
// "past":true. A revision that removed its key has "absent":"deleted" in the place of a value, one whose value was redacted "absent":"redacted".
// A value that nests more than 1,000 levels is a text, "value_text".
//
// A value that cannot be read is "absent":"unreadable", with an empty key where not even that could be read, and the export goes
// on. When the file is complete, the error is that of the first such value. After any other error the file has no end. Exported is
// true beside any error.
//
// In the single-state-key layout the keys and values are those of one moment, in the per-key layout what others write meanwhile may
// be in it or not. Lines are written one by one as values are read, so that large values are not in memory together. With
// [ExportHistory] what the state held is, in the per-key layout for up to 40 revisions of each key.
//
// It takes the requests of [Store.All]. With [ExportHistory] it takes those of [Store.History] of one key too, twice: once to find what
// keys there were.
//
// Errors: those of w, of [Store.All], and with [ExportHistory] those of [Store.History].
func (s *Store) Export(ctx context.Context, w io.Writer, opts ...ExportOption) (Exported, error) {
	var e exporting
	if w == nil {
		return Exported{}, fault.Of(ErrInvalidOption, nil, "the writer is nil")
	}
	if err := apply(&e, opts); err != nil {
		return Exported{}, err
	}
	err := e.run(ctx, s, w)
	return e.Exported, err
}

func (e *exporting) run(ctx context.Context, s *Store, w io.Writer) error {
	state, err := s.state(ctx)
	if err != nil {
		return err
	}
	header := dump.Header{Room: state.ID.String(), EventType: state.Type.Type, History: e.history, Time: time.Now().Truncate(time.Millisecond)}
	if e.to, err = dump.NewWriter(w, header); err != nil {
		return err
	}
	for entry, err := range s.All(ctx) {
		if err != nil && entry.Revision == "" { // nothing could be read at all
			return err
		}
		e.Total++
		if err := e.write(ctx, entry, false, err); err != nil {
			return err
		}
	}
	if e.history {
		if err := e.past(ctx, state); err != nil {
			return err
		}
	}
	if err := e.to.Close(); err != nil {
		return err
	}
	e.Complete = true
	return e.unread
}

// write adds the line of an entry, or of one that could not be read.
func (e *exporting) write(ctx context.Context, entry Entry, past bool, unread error) error {
	if err := ctx.Err(); err != nil { // which can be why
		return err
	}
	line := dump.Line{Key: entry.Key, Past: past, Revision: string(entry.Revision), Sender: entry.Sender.String(), Time: entry.Time, Encrypted: entry.Encrypted}
	switch {
	case unread == nil && entry.Deleted:
		line.Absent = dump.Deleted
	case unread == nil:
		line.Value = entry.Value
	case errors.Is(unread, ErrRedacted):
		line.Absent = dump.Redacted
	default:
		line.Absent = dump.Unreadable
	}
	if entry.EncryptedBy != "" {
		line.EncryptedBy, line.Trust = entry.EncryptedBy.String(), entry.Trust.String()
	}
	if unread != nil && !(past && line.Absent == dump.Redacted) { // nobody expects to read what was taken away
		e.Unreadable++
		e.unread = cmp.Or(e.unread, unread)
	}
	return e.to.Write(line)
}

// past adds the revisions of all keys that there are or were.
func (e *exporting) past(ctx context.Context, state roomState) error {
	keys, err := state.pastNames(ctx)
	if err != nil {
		return err
	}
	reading := state.Reader().Together()
	for rev, err := range state.allRevisions(ctx, slices.Sorted(maps.Keys(keys))) {
		if err != nil {
			return err
		}
		entry, err := rev.entry(ctx, reading)
		entry.Key = keys[rev.Name]
		e.Revisions++
		if err := e.write(ctx, entry, true, err); err != nil {
			return err
		}
	}
	return nil
}
