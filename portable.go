package roomkv

import (
	"context"
	"io"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/transfer"
)

// ExportOption changes what [Store.Export] does.
type ExportOption func(*exporting)

type exporting struct{ history bool }

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
// [ExportHistory] former contents of the state are, in the per-key layout those of up to 40 revisions of each key.
//
// Errors: those of w, of [Store.All], and with [ExportHistory] those of [Store.History].
func (s *Store) Export(ctx context.Context, w io.Writer, opts ...ExportOption) (done Exported, err error) {
	ctx, op := s.begin(ctx, "Export")
	defer op.end(&err)
	var e exporting
	if w == nil {
		return Exported{}, fault.Of(ErrInvalidOption, nil, "the writer is nil")
	}
	if err := apply(&e, opts); err != nil {
		return Exported{}, err
	}
	h, err := s.handle(ctx)
	if err != nil {
		return Exported{}, err
	}
	exported, err := transfer.Export(ctx, h, w, e.history, string(s.prefix))
	return Exported(exported), err
}

// ImportOption changes what [Store.Import] does.
type ImportOption func(*transfer.ImportOptions)

// ImportOverwrite makes [Store.Import] replace other values that the memory has under the file's keys. Without it they stay.
func ImportOverwrite() ImportOption { return func(i *transfer.ImportOptions) { i.Overwrite = true } }

// ImportReplace makes the memory exactly what the file says: as [ImportOverwrite], and keys that are not in the file are removed.
func ImportReplace() ImportOption {
	return func(i *transfer.ImportOptions) { i.Overwrite, i.Replace = true, true }
}

// ImportJSON makes [Store.Import] read one JSON object, each name of which is a key: what any program can write. Nothing tells whether all of it is
// there but that the object has its end.
func ImportJSON() ImportOption {
	return func(i *transfer.ImportOptions) { i.Read = dump.ReadObject }
}

// ImportJSONLines makes [Store.Import] read lines of {"key":…,"value":…}, with anything beside these. Nothing tells whether all of them are there.
func ImportJSONLines() ImportOption {
	return func(i *transfer.ImportOptions) { i.Read = dump.ReadLines }
}

// ImportDryRun makes [Store.Import] count what it would write and remove, and change nothing. It does not find out what the homeserver would refuse: values
// that are too large, a lack of power, a room that was upgraded.
func ImportDryRun() ImportOption { return func(i *transfer.ImportOptions) { i.DryRun = true } }

// ImportProgress has fn called once the file was read, after every 10 keys or so, and at the end, with what has been done by then. It is not
// called concurrently, and holds up the import while it runs.
func ImportProgress(fn func(Imported)) ImportOption {
	return func(i *transfer.ImportOptions) {
		if i.Progress = nil; fn != nil {
			i.Progress = func(done transfer.Imported) { fn(Imported(done)) }
		}
	}
}

// Imported is what a [Store.Import] has done, in keys.
type Imported struct {
	Total      int // that the file has
	Written    int
	Equal      int // that the memory had already
	Kept       int // under which the memory had something else, and has it still; also what is there of a Lease or of Once, which is no error
	TooLarge   int // whose values the homeserver does not take
	Removed    int // that are not in the file
	Unreadable int // that are in the file without their values, and were left as they are
}

// Done is how many keys of the total have been dealt with, for showing progress.
func (i Imported) Done() int { return i.Written + i.Equal + i.Kept + i.TooLarge + i.Unreadable }

// Import stores what [Store.Export] has written, of this memory or of any other: another room, layout, event type or account. With [ImportJSON] or
// [ImportJSONLines] it stores what another program has written.
// Values are encrypted where this room is. What only the memory has stays there, unless [ImportReplace] says otherwise, and so
// does what it has under the same keys with other values, unless [ImportOverwrite] or ImportReplace does. Of a file with history
// only the current values are stored.
//
// The whole file is read and verified before anything is written. So it is read twice: from where r is, where that is an
// [io.Seeker] that can go back there, such as an [os.File]; of any other reader it is kept in memory, never on a disk. It must not be changed meanwhile.
//
// What the memory has already is not written again: a second Import writes nothing, and goes on where one was interrupted. What
// was written is read back and compared. Nobody else should write the same keys meanwhile: what they write can be overwritten in
// the per-key layout, and fails the comparison.
//
// With ImportReplace in the single-state-key layout, keys are removed in the commit that stores the first thousand new values, or 2 MB of
// them, so that up to this size all of it happens or nothing. In the per-key layout they are removed when all others are stored.
//
// Errors: [ErrDamaged] for a file that was cut or changed, or is none of Export's, or not what an option says that it is; [ErrExists] where the memory has other
// values, [ErrTooLarge] for values that the homeserver does not take, and [ErrConflict] where there is something else than was written, each of which
// names the first such keys when all others are stored; [ErrInvalidOption] for ImportReplace with a file
// in which a value is missing that could not be read when it was written; those of r, of [Store.All], of [Store.PutAll] and, with
// ImportReplace, of [Store.Keys]. Imported is true beside any error.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ...ImportOption) (done Imported, err error) {
	ctx, op := s.begin(ctx, "Import")
	defer op.end(&err)
	var options transfer.ImportOptions
	if r == nil {
		return Imported{}, fault.Of(ErrInvalidOption, nil, "the reader is nil")
	}
	if err := apply(&options, opts); err != nil {
		return Imported{}, err
	}
	imported, err := transfer.Import(ctx, destination{s}, r, string(s.prefix), options)
	return Imported(imported), err
}

// ImportAccountData stores the map that the client's user has in account data of that type, each top-level name as a key. With a room, as [Store.WithRoom] takes
// it, it reads the account data of that room, with "" that of the whole account. It writes to the store's room. The account data stays as it is: a later call
// brings back keys that were deleted since. It does as [Store.Import] does with [ImportJSON], and takes one request more.
//
// Errors: [ErrNotFound] if there is no such account data, or if it is {}; [ErrInvalidOption] for ImportJSON and [ImportJSONLines], for an empty type, and
// for what [WithAccountDataFallback] has stored; those of Import and WithRoom.
func (s *Store) ImportAccountData(ctx context.Context, room id.RoomID, dataType string, opts ...ImportOption) (done Imported, err error) {
	ctx, op := s.begin(ctx, "ImportAccountData")
	defer op.end(&err)
	var options transfer.ImportOptions
	if err := apply(&options, opts); err != nil {
		return Imported{}, err
	}
	if room != "" {
		id, err := s.core.roomID(ctx, room.String())
		if err != nil {
			return Imported{}, err
		}
		room = id
	}
	imported, err := transfer.ImportAccountData(ctx, destination{s}, s.core.Room("").Client, room, dataType, string(s.prefix), options)
	return Imported(imported), err
}
