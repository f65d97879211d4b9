package roomkv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fault"
)

// ImportOption changes what [Store.Import] does.
type ImportOption func(*importing)

// ImportOverwrite makes [Store.Import] replace other values that the memory has under the file's keys. Without it they stay.
func ImportOverwrite() ImportOption { return func(i *importing) { i.overwrite = true } }

// ImportReplace makes the memory exactly what the file says: as [ImportOverwrite], and keys that are not in the file are removed.
func ImportReplace() ImportOption { return func(i *importing) { i.overwrite, i.replace = true, true } }

// ImportProgress has fn called once the file was read, after every 10 keys or so, and at the end, with what has been done by then. It is not
// called concurrently, and holds up the import while it runs.
func ImportProgress(fn func(Imported)) ImportOption {
	return func(i *importing) { i.progress = fn }
}

// Imported is what a [Store.Import] has done, in keys.
type Imported struct {
	Total      int // that the file has
	Written    int
	Equal      int // that the memory had already
	Kept       int // under which the memory had something else, and has it still
	TooLarge   int // whose values the homeserver does not take
	Removed    int // that are not in the file
	Unreadable int // that are in the file without their values, and were left as they are
}

// Done is how many keys of the total have been dealt with, for showing progress.
func (i Imported) Done() int { return i.Written + i.Equal + i.Kept + i.TooLarge + i.Unreadable }

type importing struct {
	overwrite, replace bool
	progress           func(Imported)

	transfer   transfer
	total      int
	unreadable int
}

// Import stores what [Store.Export] has written, of this memory or of any other: another room, layout, event type or account.
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
// For each thousand keys it takes the requests of [Store.All] of these twice, in the per-key layout with the room's whole state, and those of
// [Store.PutAll] for what is not there yet. With ImportReplace it takes those of [Store.Keys], and of [Store.Delete] for what is
// removed.
//
// Errors: [ErrDamaged] for a file that was cut or changed, or is none of Export's; [ErrExists] where the memory has other
// values, [ErrTooLarge] for values that the homeserver does not take, and [ErrConflict] where there is something else than was written, each of which
// names the first such keys when all others are stored; [ErrInvalidOption] for ImportReplace with a file
// in which a value is missing that could not be read when it was written; those of r, of [Store.All], of [Store.PutAll] and, with
// ImportReplace, of [Store.Keys]. Imported is true beside any error.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ...ImportOption) (Imported, error) {
	var i importing
	if r == nil {
		return Imported{}, fault.Of(ErrInvalidOption, nil, "the reader is nil")
	}
	if err := apply(&i, opts); err != nil {
		return Imported{}, err
	}
	i.transfer = transfer{dst: s, overwrite: i.overwrite, report: i.report}
	err := i.run(ctx, s, r)
	return i.imported(), err
}

func (i *importing) imported() Imported {
	t := &i.transfer
	return Imported{Total: i.total, Written: t.written, Equal: t.equal, Kept: t.kept.n, TooLarge: t.tooLarge.n, Removed: t.removed, Unreadable: i.unreadable}
}

func (i *importing) report() {
	if i.progress != nil {
		i.progress(i.imported())
	}
}

func (i *importing) run(ctx context.Context, s *Store, r io.Reader) error {
	rewind := rereadable(r)
	keys, err := i.verify(ctx, rewind)
	if err != nil {
		return err
	}
	var remove []string
	if i.replace {
		if i.unreadable > 0 {
			return fault.Of(ErrInvalidOption, nil, "%d values could not be read when the file was written, so that it does not say what the memory is to be; import it without ImportReplace", i.unreadable)
		}
		if remove, err = s.Keys(ctx); err != nil {
			return err
		}
		remove = slices.DeleteFunc(remove, func(key string) bool { return keys[key] })
	}
	if s.core.Layout.Atomic() {
		i.transfer.remove = remove
	}
	i.report()
	for line, err := range lines(ctx, rewind) {
		if err == nil && line.Value != nil {
			err = i.transfer.add(ctx, line.Key, line.Value)
		}
		if err != nil {
			return err
		}
	}
	if err := i.transfer.flush(ctx); err != nil {
		return err
	}
	if len(remove) > 0 && i.transfer.removed == 0 {
		if err := s.remove(ctx, remove, i.transfer.counter(&i.transfer.removed)); err != nil {
			return err
		}
		i.transfer.removed = len(remove)
	}
	i.report()
	return i.transfer.left()
}

// rereadable gives the reader again from where it is now.
func rereadable(r io.Reader) (rewind func() (io.Reader, error)) {
	if seeker, ok := r.(io.ReadSeeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil { // else a pipe
			return func() (io.Reader, error) {
				_, err := seeker.Seek(start, io.SeekStart)
				return seeker, err
			}
		}
	}
	var text bytes.Buffer
	return func() (io.Reader, error) {
		if text.Len() > 0 {
			return bytes.NewReader(text.Bytes()), nil
		}
		return io.TeeReader(r, &text), nil // what is no export is not read to its end
	}
}

// lines are those of what is there now.
func lines(ctx context.Context, rewind func() (io.Reader, error)) iter.Seq2[dump.Line, error] {
	return func(yield func(dump.Line, error) bool) {
		from, err := rewind()
		if err != nil {
			yield(dump.Line{}, err)
			return
		}
		for line, err := range dump.Read(from) {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if errors.Is(err, dump.ErrDamaged) {
				_, text, _ := strings.Cut(err.Error(), ": ")
				err = fault.Of(ErrDamaged, nil, "%s", text)
			}
			if err == nil && line.Past {
				continue
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// verify reads the whole file, and gives its keys.
func (i *importing) verify(ctx context.Context, rewind func() (io.Reader, error)) (keys map[string]bool, err error) {
	keys = map[string]bool{}
	for line, err := range lines(ctx, rewind) {
		if err != nil {
			return nil, err
		}
		i.total++
		if line.Value == nil {
			i.unreadable++
		} else if keys[line.Key] {
			return nil, fault.Of(ErrDamaged, nil, "two of its lines are of the same key")
		} else {
			keys[line.Key] = true
		}
	}
	return keys, nil
}
