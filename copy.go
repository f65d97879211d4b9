package roomkv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// copyBatch is about how many bytes of values one commit of a copy has, in the single-state-key layout.
	copyBatch = 500_000

	// copyParallel is how many keys of the per-key layout are written at once.
	copyParallel = 8

	// maxNamed is how many keys an error names.
	maxNamed = 5
)

// CopyOption changes what [Copy] does.
type CopyOption func(*copying)

// CopyOverwrite makes [Copy] replace other values that the destination has under the source's keys. Without it they stay.
func CopyOverwrite() CopyOption { return func(c *copying) { c.overwrite = true } }

// CopyProgress has fn called after each batch, and at the end, with what has been done by then. It is not called
// concurrently, and holds up the copy while it runs.
func CopyProgress(fn func(Copied)) CopyOption { return func(c *copying) { c.progress = fn } }

// Copied is what a [Copy] has done, in keys.
type Copied struct {
	Total      int // that the source has
	Written    int
	Equal      int // that the destination had already
	Kept       int // under which the destination had something else, and has it still
	Unreadable int // whose values could not be read in the source
}

type copying struct {
	Copied
	overwrite bool
	progress  func(Copied)
}

// Copy copies every entry of src to dst, whatever is different between them: the room, the layout, the event type, the
// encryption, sealed keys, the client. So it also moves a memory of opsdroid's to another event type or layout. The source
// is left as it is, and what only the destination has stays there.
//
// What the destination has already is not written again, so that a copy that was interrupted is resumed by another Copy.
// In the end the destination is read, and compared with what was copied. Nobody else should write the same keys there
// meanwhile: what they write can be overwritten in the per-key layout, and fails the comparison. What others write to the
// source meanwhile may be copied or not.
//
// A value that cannot be read, and one that would replace another, is left out; when all others have been copied, the error
// names the first such keys. Copied is true beside any error.
//
// It takes the requests of [Store.All] once for src and twice for dst, and those of [Store.PutAll], with several keys of the
// per-key layout at once. The memory that it needs is that of all values on both sides.
//
// Errors: [ErrExists] where dst has other values (see [CopyOverwrite]), [ErrConflict] where dst has something else in the
// end, [ErrInvalidOption] where both are the same memory or an option is nil, and those of [Store.All] for src and of
// [Store.PutAll] for dst.
func Copy(ctx context.Context, dst, src *Store, opts ...CopyOption) (Copied, error) {
	c := copying{}
	for _, opt := range opts {
		if opt == nil {
			return Copied{}, fail(ErrInvalidOption, nil, "an option of the copy is nil")
		}
		opt(&c)
	}
	if c.progress == nil {
		c.progress = func(Copied) {}
	}
	err := c.run(ctx, dst, src)
	return c.Copied, err
}

func (c *copying) run(ctx context.Context, dst, src *Store) error {
	from, err := src.state(ctx)
	if err != nil {
		return err
	}
	to, err := dst.state(ctx)
	if err != nil {
		return err
	}
	if from.room == to.room && from.eventType == to.eventType && src.core.layout == dst.core.layout {
		return fail(ErrInvalidOption, nil, "the copy's source and destination are the same memory in %s", to.room)
	}
	values, unread, err := readable(ctx, src)
	if err != nil {
		return err
	}
	c.Total, c.Unreadable = len(values)+len(unread.keys), len(unread.keys)
	there, unseen, err := readable(ctx, dst)
	if err != nil {
		return err
	}
	var kept []string
	todo := map[string]json.RawMessage{}
	for key, value := range values {
		present, found := there[key]
		switch {
		case found && present == value:
			c.Equal++
		case (found || slices.Contains(unseen.keys, key)) && !c.overwrite:
			kept = append(kept, key)
		default:
			if todo[key], err = wire.Encode([]byte(value)); err != nil {
				return fail(ErrInvalidValue, err, "the value for key %q is not JSON", key)
			}
		}
	}
	c.Kept = len(kept)
	if err := c.write(ctx, dst, todo); err != nil {
		return err
	}
	c.progress(c.Copied)
	if err := verify(ctx, dst, values, todo); err != nil {
		return err
	}
	if len(kept) > 0 {
		unread.err = errors.Join(unread.err, fail(ErrExists, nil, "%s in %s, with other values, which were kept", named(kept), to.room))
	}
	return unread.err
}

// unreadable are keys whose values could not be read.
type unreadable struct {
	keys []string
	err  error // why the first could not
}

// readable are the values by key, each as canonical JSON.
func readable(ctx context.Context, s *Store) (values map[string]string, not unreadable, err error) {
	values = map[string]string{}
	for entry, err := range s.All(ctx) {
		switch {
		case err == nil:
			values[entry.Key] = wire.Canonical(entry.Value)
		case entry.Revision == "": // nothing could be read at all
			return nil, not, err
		default:
			not.keys, not.err = append(not.keys, entry.Key), cmp.Or(not.err, err)
		}
	}
	return values, not, ctx.Err()
}

// write stores the values, in the order of the keys.
func (c *copying) write(ctx context.Context, dst *Store, todo map[string]json.RawMessage) error {
	var batches []map[string]json.RawMessage
	size, oneKey := 0, dst.core.layout.oneKey()
	for i, key := range slices.Sorted(maps.Keys(todo)) {
		if oneKey || i == 0 || size+len(todo[key]) > copyBatch {
			batches, size = append(batches, map[string]json.RawMessage{}), 0
		}
		batches[len(batches)-1][key] = todo[key]
		size += len(todo[key])
	}
	parallel := 1
	if oneKey {
		parallel = copyParallel
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan map[string]json.RawMessage)
	var group sync.WaitGroup
	var progress sync.Mutex
	for range parallel {
		group.Go(func() {
			for batch := range next {
				// The listing has shown what is there. To ask again for each key would triple the requests.
				err := dst.write(ctx, slices.Collect(maps.Keys(batch)), func(to roomState) error { return to.putAll(ctx, batch, !oneKey && !c.overwrite) })
				if err != nil {
					stop(err)
					continue
				}
				progress.Lock()
				c.Written += len(batch)
				c.progress(c.Copied)
				progress.Unlock()
			}
		})
	}
	for _, batch := range batches {
		if ctx.Err() == nil {
			next <- batch
		}
	}
	close(next)
	group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// verify reads what was written, and what had been equal before.
func verify(ctx context.Context, dst *Store, values map[string]string, written map[string]json.RawMessage) error {
	if len(written) == 0 {
		return nil
	}
	there, _, err := readable(ctx, dst)
	if err != nil {
		return err
	}
	var other []string
	for key := range written {
		if present, found := there[key]; !found || present != values[key] {
			other = append(other, key)
		}
	}
	if len(other) > 0 {
		return fail(ErrConflict, nil, "%s: read back, and not what was copied", named(other))
	}
	return nil
}

// named are the first of the keys, for a text.
func named(keys []string) string {
	slices.Sort(keys)
	if len(keys) > maxNamed {
		return fmt.Sprintf("%q and %d more", keys[:maxNamed], len(keys)-maxNamed)
	}
	return fmt.Sprintf("%q", keys)
}
