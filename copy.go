package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/transfer"
)

// CopyOption changes what [Copy] does.
type CopyOption func(*transfer.CopyOptions)

// CopyOverwrite makes [Copy] replace other values that the destination has under the source's keys. Without it they stay.
func CopyOverwrite() CopyOption { return func(c *transfer.CopyOptions) { c.Overwrite = true } }

// CopyProgress has fn called once the source was listed, after every 10 keys or so, and at the end, with what has been done by then. It is
// not called concurrently, and holds up the copy while it runs.
func CopyProgress(fn func(Copied)) CopyOption {
	return func(c *transfer.CopyOptions) {
		if c.Progress = nil; fn != nil {
			c.Progress = func(done transfer.Copied) { fn(Copied(done)) }
		}
	}
}

// CopyRedactSource makes [Copy] redact the source when all of it has been copied and read back, as opsdroid does after its own migration: the state
// events and the encrypted events that nothing else of the source's type refers to. Nothing is redacted where a key was not copied, unless its value was
// redacted already. What was overwritten before stays in the room's history, and attachments stay. Nobody should write to the source
// meanwhile. The client needs the power to redact, which it has for events of its own.
//
// Where account data has something of the source (see [WithAccountDataFallback]), that is moved into the state first. Where it cannot be, nothing is redacted
// and the error is [ErrForbidden]. It takes the requests that read both memories once more, and up to three for each event.
func CopyRedactSource() CopyOption { return func(c *transfer.CopyOptions) { c.Redact = true } }

// Copied is what a [Copy] has done, in keys.
type Copied struct {
	Total      int // that the source has
	Written    int
	Equal      int // that the destination had already
	Kept       int // under which the destination had something else, and has it still; also what is there of a Lease or of Once, which is no error
	Unreadable int // whose values could not be read in the source
	TooLarge   int // whose values the destination's homeserver does not take

	Redacted int // state events of the source; see CopyRedactSource
}

// Copy copies every entry of src to dst, whatever is different between them: the room, the layout, the event type, the
// encryption, sealed keys, the client, the homeserver. So it also moves a memory of opsdroid's to another event type or layout.
// The source is left as it is, unless [CopyRedactSource] is given, and what only the destination has stays there.
//
// What the destination has already is not written again, so that a copy that was interrupted is resumed by another Copy.
// What was written is read back from the homeserver and compared. Nobody else should write the same keys there
// meanwhile: what they write can be overwritten in the per-key layout, and fails the comparison. What others write to the
// source meanwhile may be copied or not.
//
// With [WithAccountDataFallback] a memory is what reads of it see: what account data has is copied, and not what that hides in the
// state. What is copied to a memory that is in account data goes there.
//
// A value that cannot be read, that would replace another, or that is too large, is left out; when all others have been copied,
// the error names the first such keys. The counts in Copied are right also beside an error: the homeserver has acknowledged each key that they count. If ctx
// ends, or an answer does not come, a few keys more can have been written.
//
// Entries are copied by the thousand, or by 2 MB of values where that is less, so that the memory that it takes does not grow
// with their number; of a source in account data all that the state has beneath it is held at once.
//
// Errors: [ErrExists] where dst has other values (see [CopyOverwrite]), [ErrConflict] where dst has something else than was
// written, [ErrInvalidOption] where both are the same memory, [ErrForbidden] where the source may not be
// redacted (see [CopyRedactSource]), and those of [Store.All] for src and of [Store.PutAll] for dst.
func Copy(ctx context.Context, dst, src *Store, opts ...CopyOption) (done Copied, err error) {
	var options transfer.CopyOptions
	if dst == nil || src == nil {
		return Copied{}, fault.Of(ErrInvalidOption, nil, "the copy's source or destination is nil")
	}
	ctx, op := dst.begin(ctx, "Copy")
	defer op.end(&err)
	if err := apply(&options, opts); err != nil {
		return Copied{}, err
	}
	if options.Redact && src.prefix != "" {
		return Copied{}, fault.Of(ErrInvalidOption, nil, "the source is a Sub, and its state events can have other keys too, so that CopyRedactSource cannot redact them")
	}
	options.From, options.To = string(src.prefix), string(dst.prefix)
	if src.core.fallback {
		options.Whole = src.whollyInState
	}
	copied, err := transfer.Copy(ctx, destination{dst}, destination{src}, options)
	return Copied(copied), err
}

// destination is a store as package transfer takes it.
type destination struct{ *Store }

// Handle implements [transfer.Destination].
func (d destination) Handle(ctx context.Context) (memory.Handle, error) {
	return d.handle(ctx)
}

// Write implements [transfer.Destination].
func (d destination) Write(ctx context.Context, keys []string, do func(memory.Handle) error) error {
	return d.write(ctx, keys, do)
}

// whollyInState fails where account data has something of the memory.
func (s *Store) whollyInState(ctx context.Context) error {
	h, err := s.handle(ctx)
	if err != nil {
		return err
	}
	m := s.core.accounts.Memory(h.Room)
	if _, err := m.Away(ctx); err != nil { // which moves it there, where that is possible
		return err
	}
	if over, err := m.Holds(ctx); err != nil || !over {
		return err
	}
	return m.NotInState(ctx, "redact the source, of which account data has at least a part,")
}
