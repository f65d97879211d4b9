package transfer

import (
	"context"
	"errors"
	"strings"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// Copied is what a copy has done, in keys.
type Copied struct {
	Total, Written, Equal, Kept, Unreadable, TooLarge int
	Redacted                                          int // state events of the source
}

// CopyOptions say how a copy is done.
type CopyOptions struct {
	Overwrite bool         // other values that are there are replaced
	Redact    bool         // the source is redacted once all of it has been copied
	Progress  func(Copied) // may be nil

	// From is the prefix of the keys that are copied, and To what they get in its place.
	From, To string

	// Whole fails where the source is not wholly in the room's state, so that it must not be redacted. It may be nil.
	Whole func(ctx context.Context) error
}

type copying struct {
	CopyOptions
	from       source
	transfer   transfer
	total      int
	unreadable leftOut
	redacted   int
}

// Copy copies every entry of a memory to another. What it has done is right beside an error too.
//
// Errors: ErrExists, ErrConflict, ErrInvalidOption where both are the same memory, those that Whole gives, and those of the memories.
func Copy(ctx context.Context, dst, src Destination, options CopyOptions) (Copied, error) {
	c := copying{CopyOptions: options}
	err := c.run(ctx, dst, src)
	return c.copied(), err
}

func (c *copying) run(ctx context.Context, dst, src Destination) error {
	from, err := src.Handle(ctx)
	if err != nil {
		return err
	}
	to, err := dst.Handle(ctx)
	if err != nil {
		return err
	}
	if beside(from.Room, to.Room) && from.Layout == to.Layout && (strings.HasPrefix(c.From, c.To) || strings.HasPrefix(c.To, c.From)) {
		return fault.Of(fault.ErrInvalidOption, nil, "the copy's source and destination are the same memory in %s", to.ID)
	}
	c.from = source{from, to}
	c.transfer = newTransfer(dst, to, c.Overwrite, c.report)
	for part, err := range c.from.parts(ctx, c.from.Handle) {
		if err != nil {
			return err
		}
		c.total = c.seen() + len(part.Records) + part.Left
		c.report()
		if err := c.add(ctx, part.Records); err != nil {
			return err
		}
		if err := c.transfer.flush(ctx); err != nil {
			return err
		}
		c.total = c.seen() + part.Left
	}
	c.total = c.seen()
	left := errors.Join(c.unreadable.err, c.transfer.left())
	if c.Redact && left == nil {
		left = c.redactSource(ctx)
	}
	c.report()
	return left
}

func (c *copying) copied() Copied {
	t := &c.transfer
	return Copied{Total: max(c.total, c.seen()), Written: t.written, Equal: t.equal, Kept: t.kept.n + t.agreed, Unreadable: c.unreadable.n, TooLarge: t.tooLarge.n, Redacted: c.redacted}
}

// seen is how many keys of the source have been read.
func (c *copying) seen() int { return c.transfer.seen() + c.unreadable.n }

func (c *copying) report() {
	if c.Progress != nil {
		c.Progress(c.copied())
	}
}

// add reads what the records stand for and hands it to the transfer.
func (c *copying) add(ctx context.Context, records []memory.Record) error {
	from := c.from.Reader().Together()
	for _, found := range records {
		entry, err := c.from.Read(ctx, from, &found)
		key := c.To + strings.TrimPrefix(entry.Key, c.From)
		switch {
		case (err == nil || entry.Key != "") && !strings.HasPrefix(entry.Key, c.From):
			err = nil
		case err == nil && c.from.isAt(key):
			c.transfer.kept.add(key, nil)
		case err == nil:
			err = c.transfer.add(ctx, key, entry.JSON, entry.Value.Expires)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fault.ErrNotFound), c.Redact && errors.Is(err, fault.ErrRedacted): // deleted since; see CopyOptions
			err = nil
		case memory.IsUnreadable(err):
			c.unreadable.add(entry.Key, err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// redactSource redacts what the source has by now, where the destination has the same.
func (c *copying) redactSource(ctx context.Context) error {
	if c.Whole != nil {
		if err := c.Whole(ctx); err != nil {
			return err
		}
	}
	for part, err := range c.from.parts(ctx, c.from.Memory) { // also what has expired
		if err != nil {
			return err
		}
		from := c.from.Reader().Together()
		var entries []arriving
		for _, found := range part.Records {
			over, err := c.from.Expired(ctx, found.Until())
			if err != nil {
				return err
			}
			entry, err := c.from.Read(ctx, from, &found)
			switch {
			case over, errors.Is(err, fault.ErrNotFound), errors.Is(err, fault.ErrRedacted):
				continue
			case err != nil:
				return err
			}
			key := c.To + strings.TrimPrefix(entry.Key, c.From)
			entries = append(entries, arriving{key: key, until: entry.Value.Expires, digest: compactDigest(entry.JSON)})
		}
		compared, err := c.transfer.compare(ctx, entries)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			if compared[i] != isEqual && compared[i] != isAgreed {
				return fault.Of(fault.ErrConflict, nil, "%q has changed since it was copied, and the rest of the source was not redacted", entry.key)
			}
		}
		redacted, err := c.from.erase(ctx, part.Records)
		c.redacted += redacted
		if err != nil {
			return err
		}
		c.report()
	}
	return nil
}
