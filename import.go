package roomkv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/wire"
)

// ImportOption changes what [Store.Import] does.
type ImportOption func(*importing)

// ImportOverwrite makes [Store.Import] replace other values that the memory has under the file's keys. Without it they stay.
func ImportOverwrite() ImportOption { return func(i *importing) { i.overwrite = true } }

// ImportReplace makes the memory exactly what the file says: as [ImportOverwrite], and keys that are not in the file are removed.
func ImportReplace() ImportOption { return func(i *importing) { i.overwrite, i.replace = true, true } }

// ImportProgress has fn called after each batch, and at the end, with what has been done by then. It is not called
// concurrently, and holds up the import while it runs.
func ImportProgress(fn func(Imported)) ImportOption { return func(i *importing) { i.progress = fn } }

// Imported is what a [Store.Import] has done, in keys.
type Imported struct {
	Total      int // that the file has
	Written    int
	Equal      int // that the memory had already
	Kept       int // under which the memory had something else, and has it still
	Removed    int // that are not in the file
	Unreadable int // that are in the file without their values, and were left as they are
}

type importing struct {
	Imported
	overwrite, replace bool
	progress           func(Imported)

	there map[string][sha256.Size]byte // what the memory has, by key, as digests of canonical JSON, zero for what cannot be read
	kept  []string                     // the first
}

// Import stores what [Store.Export] has written, of this memory or of any other: another room, layout, event type or account.
// Values are encrypted where this room is. What only the memory has stays there, unless [ImportReplace] says otherwise, and so
// does what it has under the same keys with other values, unless [ImportOverwrite] or ImportReplace does. Of a file with history
// only the current values are stored.
//
// The whole file is read and verified before anything is written. So it is read twice: from where r is, where that is an
// [io.Seeker] that can go back there, such as an [os.File]; of any other reader it is kept in memory, never on a disk. It must not be changed meanwhile.
//
// What the memory has already is not written again: a second Import writes nothing, and goes on where one was interrupted. Nobody
// else should write the same keys meanwhile: what they write can be overwritten in the per-key layout.
//
// With ImportReplace in the single-state-key layout, keys are removed in the commit that stores the first 500 KB of the new values,
// so that up to this size all of it happens or nothing. In the per-key layout they are removed when all others are stored.
//
// It takes the requests of [Store.All], those of [Store.PutAll] for what is not there yet, and those of [Store.Delete] for what is removed.
//
// Errors: [ErrDamaged] for a file that was cut or changed, or is none of Export's; [ErrExists] where the memory has other
// values, which names the first such keys, when all others are stored; [ErrInvalidOption] for an option that is nil, and for ImportReplace with a file in which a value
// is missing that could not be read when it was written; those of r, of [Store.All] and of [Store.PutAll]. Imported is true beside any error.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ...ImportOption) (Imported, error) {
	i := importing{progress: func(Imported) {}, there: map[string][sha256.Size]byte{}}
	for _, opt := range opts {
		if opt == nil {
			return Imported{}, fail(ErrInvalidOption, nil, "an option of the import is nil")
		}
		opt(&i)
	}
	if i.progress == nil {
		i.progress = func(Imported) {}
	}
	err := i.run(ctx, s, r)
	return i.Imported, err
}

func (i *importing) run(ctx context.Context, s *Store, r io.Reader) error {
	state, err := s.state(ctx)
	if err != nil {
		return err
	}
	rewind, err := rereadable(r)
	if err != nil {
		return err
	}
	keys, err := i.verify(ctx, rewind)
	if err != nil {
		return err
	}
	if i.replace && i.Unreadable > 0 {
		return fail(ErrInvalidOption, nil, "%d values could not be read when the file was written, so that it does not say what the memory in %s is to be; import it without ImportReplace",
			i.Unreadable, state.room)
	}
	unseen, err := i.look(ctx, s)
	if err != nil {
		return err
	}
	var remove []string
	if i.replace {
		for key := range i.there {
			if !keys[key] {
				remove = append(remove, key)
			}
		}
	}
	if err := i.write(ctx, s, rewind, remove); err != nil {
		return err
	}
	i.progress(i.Imported)
	if i.replace {
		return unseen
	}
	if i.Kept > 0 {
		return fail(ErrExists, nil, "%s in %s, with other values, which were kept", i.firstKept(), state.room)
	}
	return nil
}

// rereadable gives the reader again from where it is now.
func rereadable(r io.Reader) (rewind func() (io.Reader, error), err error) {
	if seeker, ok := r.(io.ReadSeeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil { // else a pipe
			return func() (io.Reader, error) {
				_, err := seeker.Seek(start, io.SeekStart)
				return seeker, err
			}, nil
		}
	}
	text, err := io.ReadAll(r)
	return func() (io.Reader, error) { return bytes.NewReader(text), nil }, err
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
				err = fail(ErrDamaged, nil, "%s", text)
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
		i.Total++
		if line.Value == nil {
			i.Unreadable++
		} else {
			keys[line.Key] = true
		}
	}
	return keys, nil
}

// look reads what the memory has. Unseen is why the key of something could not be read.
func (i *importing) look(ctx context.Context, s *Store) (unseen, err error) {
	for entry, err := range s.All(ctx) {
		switch {
		case err == nil:
			i.there[entry.Key] = digest([]byte(wire.Canonical(entry.Value)))
		case entry.Revision == "": // nothing could be read at all
			return nil, err
		case entry.Key != "":
			i.there[entry.Key] = [sha256.Size]byte{}
		case unseen == nil:
			unseen = err
		}
	}
	return unseen, ctx.Err()
}

// write stores what is to be, and removes those keys.
func (i *importing) write(ctx context.Context, s *Store, rewind func() (io.Reader, error), remove []string) error {
	var broken error // in the file, since it was verified
	todo := func(yield func(string, json.RawMessage) bool) {
		if !s.core.layout.oneKey() {
			for _, key := range remove {
				if !yield(key, nil) {
					return
				}
			}
		}
		for line, err := range lines(ctx, rewind) {
			var stored json.RawMessage
			if err == nil && line.Value != nil && i.wants(line) {
				if stored, err = wire.Encode(line.Value); err != nil {
					err = fail(ErrInvalidValue, err, "the value for key %q is not JSON", line.Key)
				}
			}
			if err != nil {
				broken = err
				return
			}
			if stored != nil && !yield(line.Key, stored) {
				return
			}
		}
	}
	err := s.storeAll(ctx, todo, !i.overwrite, func(batch map[string]json.RawMessage) {
		for _, stored := range batch {
			if stored == nil {
				i.Removed++
			} else {
				i.Written++
			}
		}
		i.progress(i.Imported)
	})
	if err == nil {
		err = broken
	}
	if err != nil || i.Removed == len(remove) {
		return err
	}
	if err := s.Delete(ctx, remove...); err != nil {
		return err
	}
	i.Removed = len(remove)
	return nil
}

// wants tells whether the line's value is to be stored, and counts it where it is not.
func (i *importing) wants(line dump.Line) bool {
	there, found := i.there[line.Key]
	switch {
	case found && there == digest([]byte(wire.Canonical(line.Value))):
		i.Equal++
		return false
	case found && !i.overwrite:
		if i.Kept++; i.Kept <= mostKept {
			i.kept = append(i.kept, line.Key)
		}
		return false
	}
	return true
}

// mostKept is how many keys the error names that were kept.
const mostKept = 5

func (i *importing) firstKept() string {
	if i.Kept > mostKept {
		return fmt.Sprintf("%q and %d more", i.kept, i.Kept-mostKept)
	}
	return fmt.Sprintf("%q", i.kept)
}
