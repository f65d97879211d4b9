package watch

import (
	"context"
	"slices"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// tellInitial tells what was there when the watch began, in the order of the keys, and then that this was all. It is what the next change is told
// against. What the sync brings meanwhile waits in the queue.
func (w *Watch) tellInitial(ctx context.Context, yield func(Change, error) bool) (left bool, err error) {
	records, err := w.records()
	if err != nil {
		return false, err
	}
	keysOnly, together := w.Reader().Together().KeysOnly(), w.Reader().Together()
	records = slices.DeleteFunc(w.Visible(records), func(found memory.Record) bool {
		key, known := wire.KeyOf(found.Name)
		if !known && found.Err == nil {
			entry, err := keysOnly.Entry(ctx, &found)
			key, known = entry.Key, err == nil || entry.Key != ""
		}
		return known && found.Err == nil && !w.Wanted(key) // whose key nobody can tell can be wanted
	})
	for _, found := range w.Listed(ctx, records, memory.Listing{}) {
		if at := found.Until(); at != 0 && at <= w.now(ctx) {
			w.expiring.gone[found.Name] = string(found.Stored)
			delete(w.expiring.until, found.Name)
			continue
		}
		entry, err := together.Entry(ctx, &found)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		change := Change{Key: entry.Key, New: entry.JSON, Event: found.Event, Sender: found.Sender, Time: found.Time, InAccount: found.InAccount}
		if !yield(change, err) {
			return true, nil
		}
	}
	return !yield(Change{Event: w.start.event, EndOfInitial: true}, nil), nil
}

// records are those of all names of all dicts, and one with an error for each event that cannot be read.
func (w *Watch) records() (records []memory.Record, err error) {
	for _, d := range w.dicts {
		if !w.Layout.Alone() {
			if err := w.CheckFields(d.names); err != nil {
				return nil, err
			}
		}
		// Another view than the watch's own, in which readers would note what they have read.
		view := &replica.View{Names: d.names, Event: d.view.Event, Sender: d.view.Sender, Time: d.view.Time}
		if d.view.Err != nil {
			records = append(records, memory.RecordsOf(&replica.View{Event: view.Event, Sender: view.Sender, Time: view.Time, Err: d.view.Err})...)
		}
		for _, found := range memory.RecordsOf(view) {
			if revision, sent, over := w.over.RevisionOf(found.Name); over && d.view.Names[found.Name] != string(found.Stored) {
				found.Event, found.Sender, found.Time, found.InAccount = revision, w.Client.UserID, memory.Time(sent), true
			}
			records = append(records, found)
		}
	}
	return records, nil
}
