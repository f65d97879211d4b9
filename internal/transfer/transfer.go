// Package transfer brings entries from one memory to another, or from and to a file: the engines of Copy, Export and Import.
package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// How many entries are written and read back at a time, and how long their values may be in all, in bytes. Where keys are spread over several state
	// events it is for each of these, up to manyEvents: whatever is written changes all of them.
	transferEntries = 1000
	manyEvents      = 16
	transferSize    = 2 << 20

	// transferStep is how many keys of the per-key layout are written together, and reportStep how many between two reports.
	transferStep = 100
	reportStep   = 10
)

// Destination is a store that entries come to or from.
type Destination interface {
	// Handle is the store's memory, wherever that is by now.
	Handle(ctx context.Context) (memory.Handle, error)

	// Write does what changes the keys, and does it again where the memory has moved meanwhile.
	Write(ctx context.Context, keys []string, do func(memory.Handle) error) error
}

// transfer brings entries into a memory, some at a time: what is there already is not written, and what was written is read
// back.
type transfer struct {
	dst       Destination
	alone     bool     // whether each key has an event of its own
	events    int      // else over how many keys are spread
	overwrite bool     // whether other values that are there are replaced
	dry       bool     // whether what would be written is counted, and not written
	remove    []string // keys that go from dicts of many keys when the first values are written
	report    func()   // called when there is more to tell

	mu                       sync.Mutex // guards written and calls of report while several keys are written at a time
	written, equal, removed  int
	agreed                   int // under which a record of a lease or of Once is, which is kept; see [wire.IsAgreed]
	kept, tooLarge, differed leftOut

	waiting []arriving
	size    int // of the values that wait
}

// arriving is an entry that is to be there.
type arriving struct {
	key    string
	value  json.RawMessage // nil once it was written
	until  int64           // when it expires, in Unix milliseconds, 0 where it does not
	digest [sha256.Size]byte
}

// stored is the entry's stored form.
func (a arriving) stored() (json.RawMessage, error) {
	stored, err := wire.Encode(a.value)
	return wire.WithExpiry(stored, a.until), err
}

func newTransfer(dst Destination, to memory.Handle, overwrite bool, report func()) transfer {
	return transfer{dst: dst, alone: to.Layout.Alone(), events: min(to.Layout.Events(), manyEvents), overwrite: overwrite, report: report}
}

// add takes an entry, and writes those that wait when they are enough.
func (t *transfer) add(ctx context.Context, key string, value json.RawMessage, until int64) error {
	t.waiting = append(t.waiting, arriving{key, value, until, compactDigest(value)})
	t.size += len(value)
	if len(t.waiting) < transferEntries*max(1, t.events) && t.size < transferSize {
		return nil
	}
	return t.flush(ctx)
}

// seen is how many entries there were.
func (t *transfer) seen() int {
	return len(t.waiting) + t.written + t.equal + t.agreed + t.kept.n + t.tooLarge.n + t.differed.n
}

// flush writes what waits and is not there yet, and reads it back.
func (t *transfer) flush(ctx context.Context) error {
	if len(t.waiting) == 0 {
		return nil
	}
	compared, err := t.compare(ctx, t.waiting)
	if err != nil {
		return err
	}
	var missing []arriving
	same := 0
	for i, entry := range t.waiting {
		switch is := compared[i]; {
		case is == isEqual:
			same++
		case is == isAgreed:
			t.agreed++
		case is == isAbsent, t.overwrite:
			missing = append(missing, entry)
		default:
			t.kept.add(entry.key, nil)
		}
	}
	t.waiting, t.size = nil, 0
	t.equal += same
	if t.dry {
		t.written += len(missing)
		t.report()
		return nil
	}
	step := len(missing)
	if t.alone {
		step = transferStep
	}
	for some := range slices.Chunk(missing, max(1, step)) {
		if err := t.write(ctx, some); err != nil {
			return err
		}
		t.report()
	}
	if err := t.verify(ctx, missing); err != nil {
		return err
	}
	return t.forget(ctx, missing)
}

// forget lets go of what the store knows of the dicts that were written, each with one key, so that many take no more memory than
// few. While the store follows, reads come from there.
func (t *transfer) forget(ctx context.Context, written []arriving) error {
	to, err := t.dst.Handle(ctx)
	if err != nil || !to.Layout.Alone() || to.Follower.Live(to.ID) {
		return err
	}
	for _, entry := range written {
		to.Dicts.Forget(to.Address(to.Layout.StateKey(to.NameOf(entry.key))))
	}
	return nil
}

// write stores entries, and forgets their values. Those that are too large it leaves out, and each of these takes its key from
// the entry.
func (t *transfer) write(ctx context.Context, entries []arriving) error {
	before := t.written
	err, fitting := t.store(ctx, entries), entries
	if errors.Is(err, fault.ErrTooLarge) && !t.alone {
		if fitting, err = t.sortOut(ctx, entries, err); err == nil && len(fitting) > 0 {
			err = t.store(ctx, fitting)
		}
	} else if errors.Is(err, fault.ErrTooLarge) {
		t.written = before
		for i := range entries { // it is not known which of them it is
			err := t.store(ctx, entries[i:i+1])
			switch {
			case errors.Is(err, fault.ErrTooLarge):
				t.tooLarge.add(entries[i].key, err)
				entries[i].digest = [sha256.Size]byte{}
			case err != nil:
				return err
			}
			entries[i].value = nil
		}
		return nil
	}
	if err != nil {
		return err
	}
	for i := range entries {
		entries[i].value = nil
	}
	return nil
}

// sortOut gives the entries whose values are not too large by themselves, as write does with the others. Where there are none of
// these, it is the dict that is too large, and the error stays.
func (t *transfer) sortOut(ctx context.Context, entries []arriving, tooLarge error) (fitting []arriving, err error) {
	to, err := t.dst.Handle(ctx)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entry := &entries[i]
		stored, err := entry.stored()
		if err == nil {
			err = to.CheckLarge(ctx, to.NameOf(entry.key), entry.key, stored)
		}
		switch {
		case errors.Is(err, fault.ErrTooLarge):
			t.tooLarge.add(entry.key, err)
			entry.digest, entry.value = [sha256.Size]byte{}, nil
		case err != nil:
			return nil, err
		default:
			fitting = append(fitting, *entry)
		}
	}
	if len(fitting) == len(entries) {
		return nil, tooLarge
	}
	return fitting, nil
}

// store puts values under their keys. In the per-key layout it has just been read what is there, and to be told so by the write
// itself would triple the requests.
func (t *transfer) store(ctx context.Context, entries []arriving) error {
	stored := make(map[string]json.RawMessage, len(entries))
	keys := make([]string, len(entries))
	for i, entry := range entries {
		var err error
		if stored[entry.key], err = entry.stored(); err != nil {
			return fault.Of(fault.ErrInvalidValue, err, "the value for key %q is not JSON", entry.key)
		}
		keys[i] = entry.key
	}
	for _, key := range t.remove {
		stored[key], keys = nil, append(keys, key)
	}
	keep := !t.overwrite && !t.alone
	before := t.written
	err := t.dst.Write(ctx, keys, func(to memory.Handle) error {
		done, names := t.counter(&t.written), map[string]bool{}
		for _, entry := range entries {
			names[to.NameOf(entry.key)] = true
		}
		return to.PutAll(ctx, stored, memory.Put{OnlyMissing: keep, Done: func(name string) {
			if names[name] { // else it was removed
				done(name)
			}
		}})
	})
	if err == nil {
		t.written = before + len(entries)
		t.removed, t.remove = t.removed+len(t.remove), nil
	}
	return err
}

// counter counts names that are written one by one, each once.
func (t *transfer) counter(n *int) (done func(name string)) {
	counted := map[string]bool{}
	return func(name string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if counted[name] {
			return
		}
		counted[name] = true
		if *n++; *n%reportStep == 0 {
			t.report()
		}
	}
}

// compactDigest tells values apart, however much white space they have.
func compactDigest(value json.RawMessage) [sha256.Size]byte {
	if len(value) > wire.MaxEvent { // else they are spelled in one way anyhow
		var compact bytes.Buffer
		if json.Compact(&compact, value) == nil {
			value = compact.Bytes()
		}
	}
	return media.Digest(value)
}

// verify reads back what was written.
func (t *transfer) verify(ctx context.Context, written []arriving) error {
	written = slices.DeleteFunc(written, func(entry arriving) bool { return entry.digest == [sha256.Size]byte{} })
	compared, err := t.compare(ctx, written)
	if err != nil {
		return err
	}
	for i, entry := range written {
		if compared[i] == isAbsent && entry.until != 0 { // its time is over
			continue
		}
		if compared[i] != isEqual && compared[i] != isAgreed {
			t.written--
			t.differed.add(entry.key, nil)
		}
	}
	return nil
}

// left says what was left out, nil where that is nothing.
func (t *transfer) left() error {
	err := t.tooLarge.err
	if t.kept.n > 0 {
		err = errors.Join(err, fault.Of(fault.ErrExists, nil, "%s, under which there is something else, which was kept", t.kept.named()))
	}
	if t.differed.n > 0 {
		err = errors.Join(err, fault.Of(fault.ErrConflict, nil, "%s: read back, and not what was written", t.differed.named()))
	}
	return err
}

// How an entry compares with what is there.
type comparison int

const (
	isAbsent comparison = iota
	isEqual
	isAgreed // another one, which is a record of a lease or of Once
	isOther  // or not to be read
)

// compare holds entries against what the homeserver has for them.
func (t *transfer) compare(ctx context.Context, entries []arriving) ([]comparison, error) {
	compared := make([]comparison, len(entries))
	if len(entries) == 0 {
		return compared, nil
	}
	to, err := t.dst.Handle(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = to.NameOf(entry.key)
	}
	there, err := to.Named(ctx, names)
	if err != nil {
		return nil, err
	}
	reopen(to.Room, there)
	reader := to.Reader().Together()
	for i, entry := range entries {
		found, ok := there[names[i]]
		if !ok {
			continue
		}
		read, err := to.Read(ctx, reader, &found)
		switch {
		case errors.Is(err, fault.ErrNotFound):
		case err == nil && compactDigest(read.JSON) == entry.digest && read.Value.Expires == entry.until:
			compared[i] = isEqual
		case err == nil && wire.IsAgreed(read.JSON):
			compared[i] = isAgreed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil, memory.IsUnreadable(err):
			compared[i] = isOther
		default:
			return nil, err
		}
	}
	return compared, nil
}

// reopen forgets the encrypted events that the records refer to, so that the homeserver is asked for them: what this process
// knows of them can come from having sent them.
func reopen(r memory.Room, records map[string]memory.Record) {
	events := map[id.EventID]bool{}
	for _, record := range records {
		for _, event := range wire.References(record.Stored) {
			events[event] = true
		}
	}
	for event := range events {
		r.Megolm.Forget(r.ID, event)
	}
}
