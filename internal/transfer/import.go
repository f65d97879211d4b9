package transfer

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
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// Imported is what an import has done, in keys.
type Imported struct {
	Total, Written, Equal, Kept, TooLarge, Removed, Unreadable int
}

// ImportOptions say how an import is done.
type ImportOptions struct {
	Overwrite bool           // other values that are there are replaced
	Replace   bool           // keys that are not in the file are removed
	DryRun    bool           // all of that is counted, and not done
	Progress  func(Imported) // may be nil

	// Read gives the entries of the file, nil for one that Export has written.
	Read func(io.Reader) iter.Seq2[dump.Line, error]
}

type importing struct {
	ImportOptions
	prefix     string // of the keys that are stored
	transfer   transfer
	total      int
	unreadable int
}

// Import stores what an export has written, under its keys with the prefix before them. What it has done is right beside an error too.
//
// Errors: ErrDamaged, ErrExists, ErrTooLarge, ErrConflict, ErrInvalidOption where a value that should replace another is not in the file, those
// of r and of the memory.
func Import(ctx context.Context, dst Destination, r io.Reader, prefix string, options ImportOptions) (Imported, error) {
	i := importing{ImportOptions: options, prefix: prefix}
	to, err := dst.Handle(ctx)
	if err != nil {
		return Imported{}, err
	}
	i.transfer = newTransfer(dst, to, i.Overwrite, i.report)
	i.transfer.dry = i.DryRun
	err = i.run(ctx, dst, r)
	return i.imported(), err
}

func (i *importing) imported() Imported {
	t := &i.transfer
	return Imported{Total: i.total, Written: t.written, Equal: t.equal, Kept: t.kept.n + t.agreed, TooLarge: t.tooLarge.n, Removed: t.removed, Unreadable: i.unreadable}
}

func (i *importing) report() {
	if i.Progress != nil {
		i.Progress(i.imported())
	}
}

func (i *importing) run(ctx context.Context, dst Destination, r io.Reader) error {
	rewind := rereadable(r)
	keys, err := i.verify(ctx, rewind)
	if err != nil {
		return err
	}
	var remove []string
	if i.Replace {
		if i.unreadable > 0 {
			return fault.Of(fault.ErrInvalidOption, nil, "%d values could not be read when the file was written, so that it does not say what the memory is to be; import it without ImportReplace", i.unreadable)
		}
		to, err := dst.Handle(ctx)
		if err == nil {
			remove, err = to.Keys(ctx, memory.Listing{Prefix: i.prefix})
			remove = slices.DeleteFunc(remove, func(key string) bool { return keys[strings.TrimPrefix(key, i.prefix)] })
		}
		if err == nil && len(remove) > 0 {
			remove, err = removable(ctx, to, remove)
		}
		if err != nil {
			return err
		}
	}
	if !i.transfer.alone {
		i.transfer.remove = remove
	}
	i.report()
	for line, err := range i.lines(ctx, rewind) {
		if err == nil && line.Value != nil {
			err = i.transfer.add(ctx, i.prefix+line.Key, line.Value, line.Until())
		}
		if err != nil {
			return err
		}
	}
	if err := i.transfer.flush(ctx); err != nil {
		return err
	}
	if i.DryRun {
		i.transfer.removed = len(remove)
	} else if len(remove) > 0 && i.transfer.removed == 0 {
		err := dst.Write(ctx, remove, func(to memory.Handle) error {
			names, _ := to.NamesOf(remove)
			return to.Remove(ctx, names, i.transfer.counter(&i.transfer.removed))
		})
		if err != nil {
			return err
		}
		i.transfer.removed = len(remove)
	}
	i.report()
	return i.transfer.left()
}

// removable are those of the keys under which no record of a lease or of Once is; see [wire.IsAgreed].
func removable(ctx context.Context, to memory.Handle, keys []string) ([]string, error) {
	names, keyOf := to.NamesOf(keys)
	there, err := to.Named(ctx, names)
	if err != nil {
		return nil, err
	}
	reader := to.Reader().Together().KeysOnly() // no record is in the media repository
	agreed := map[string]bool{}
	for _, name := range names {
		found, ok := there[name]
		if !ok {
			continue
		}
		read, err := to.Read(ctx, reader, &found)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		agreed[keyOf[name]] = err == nil && wire.IsAgreed(read.JSON)
	}
	return slices.DeleteFunc(keys, func(key string) bool { return agreed[key] }), nil
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
func (i *importing) lines(ctx context.Context, rewind func() (io.Reader, error)) iter.Seq2[dump.Line, error] {
	return func(yield func(dump.Line, error) bool) {
		from, err := rewind()
		if err != nil {
			yield(dump.Line{}, err)
			return
		}
		read := i.Read
		if read == nil {
			read = dump.Read
		}
		for line, err := range read(from) {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if errors.Is(err, dump.ErrDamaged) {
				_, text, _ := strings.Cut(err.Error(), ": ")
				err = fault.Of(fault.ErrDamaged, nil, "%s", text)
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
	for line, err := range i.lines(ctx, rewind) {
		if err != nil {
			return nil, err
		}
		i.total++
		if line.Value == nil {
			i.unreadable++
		} else if keys[line.Key] {
			return nil, fault.Of(fault.ErrDamaged, nil, "two of its lines are of the same key")
		} else {
			keys[line.Key] = true
		}
	}
	return keys, nil
}
