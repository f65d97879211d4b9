package transfer

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/past"
)

// Exported is what an export has written.
type Exported struct {
	Total      int  // keys
	Revisions  int  // of keys
	Unreadable int  // how many of all these have no value in the file, for it could not be read
	Complete   bool // whether the file has its end
}

// lineKind is what a line of an export is of.
type lineKind int

const (
	current  lineKind = iota
	revision          // with its value
	deleted           // a revision that removed the key
)

type exporting struct {
	Exported
	history bool
	prefix  string // of the keys that are written, without it
	to      *dump.Writer
	unread  error // why the first value could not be read
}

// Export writes the keys of a memory that begin with prefix to w, without it, with every revision of each key where history is true. What it has written is right beside an error too.
func Export(ctx context.Context, h memory.Handle, w io.Writer, history bool, prefix string) (Exported, error) {
	e := exporting{history: history, prefix: prefix}
	err := e.run(ctx, h, w)
	return e.Exported, err
}

func (e *exporting) run(ctx context.Context, h memory.Handle, w io.Writer) (err error) {
	header := dump.Header{Room: h.ID.String(), EventType: h.Type.Type, History: e.history, Time: time.Now().Truncate(time.Millisecond)}
	if e.to, err = dump.NewWriter(w, header); err != nil {
		return err
	}
	for entry, err := range h.Entries(ctx, memory.Listing{Prefix: e.prefix}) {
		if err != nil && entry.Event == "" { // nothing could be read at all
			return err
		}
		e.Total++
		if err := e.write(ctx, entry, current, err); err != nil {
			return err
		}
	}
	if e.history {
		if err := e.past(ctx, h.Room); err != nil {
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
func (e *exporting) write(ctx context.Context, entry memory.Entry, kind lineKind, unread error) error {
	if err := ctx.Err(); err != nil { // which can be why
		return err
	}
	line := dump.Line{Key: strings.TrimPrefix(entry.Key, e.prefix), Past: kind != current, Revision: string(entry.Event), Sender: entry.Sender.String(), Time: entry.Time, Encrypted: entry.Encrypted}
	if entry.Value.Expires != 0 {
		line.Expires = time.UnixMilli(entry.Value.Expires).UTC()
	}
	switch {
	case kind == deleted:
		line.Absent = dump.Deleted
	case unread == nil:
		line.Value = entry.JSON
	case errors.Is(unread, fault.ErrRedacted):
		line.Absent = dump.Redacted
	default:
		line.Absent = dump.Unreadable
	}
	if entry.By != "" {
		line.EncryptedBy, line.Trust = entry.By.String(), entry.Trust.String()
	}
	if unread != nil && !(kind != current && line.Absent == dump.Redacted) { // nobody expects to read what was taken away
		e.Unreadable++
		e.unread = cmp.Or(e.unread, unread)
	}
	return e.to.Write(line)
}

// past adds the revisions of all keys that there are or were.
func (e *exporting) past(ctx context.Context, r memory.Room) error {
	keys, err := past.Names(ctx, r)
	if err != nil {
		return err
	}
	maps.DeleteFunc(keys, func(_, key string) bool { return key != "" && !strings.HasPrefix(key, e.prefix) })
	reading := r.Reader().Together()
	for rev, err := range past.AllRevisions(ctx, r, slices.Sorted(maps.Keys(keys))) {
		if err != nil {
			return err
		}
		entry, err := rev.Entry(ctx, reading)
		entry.Key = keys[rev.Name]
		e.Revisions++
		kind := revision
		if rev.Deleted {
			kind = deleted
		}
		if err := e.write(ctx, entry, kind, err); err != nil {
			return err
		}
	}
	return nil
}
