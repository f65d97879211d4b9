package roomkv

import (
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/flush"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/upgrade"
	"github.com/roomkv/roomkv/internal/wire"
)

// Store is a handle on the memory of one room. It is small and holds no connection of its own. With [WithFlushEvery] call
// [Store.Close] before the program ends. Without that option no write is lost if nobody calls it. All methods are safe for concurrent use, also of several
// stores of the same room.
//
// A key is any valid UTF-8 string, the empty one included; others are [ErrInvalidKey]. A value is whatever
// encoding/json can encode without loss: text that is not valid UTF-8 is [ErrInvalidValue], in the value and in the names inside it.
//
// Each method fails with the context's error when that ends first, and otherwise with the errors of this package that
// it names or, where the homeserver refuses, with [ErrForbidden], [ErrNotJoined], [ErrUnknownRoom] or an error in
// which errors.Is finds mautrix's.
//
// Rate limits (429), faults of the homeserver or of what stands before it (408, 500, 502 to 504, 520 to 530), and requests and
// answers that do not get through are tried again: as often as the client's DefaultHTTPRetries says, or 3 times where that is 0,
// after as long as the homeserver asks, or else 4, 8 and 16 seconds. The client's DefaultHTTPBackoff, MaxHTTPBackoff and
// IgnoreRateLimit count, and [mautrix.WithMaxRetries] sets another number for a context. Where a context ends in such a wait the error
// says what was waited for. When a write fails because no answer came, or
// because its context ended, it may have happened all the same. A write that shares an event with others goes on for
// them when its own context ends, and for 10 seconds when all of theirs have; later writes to the same memory wait
// for it, so that it cannot undo them. While the homeserver limits the account, what the client writes waits in one queue, in which rooms take turns; see
// [WithFlushEvery].
//
// docs/api.md in the repository tells how many requests each method takes. A method that names a number means a store that has used the memory before, with
// nobody else writing at the same moment.
type Store struct {
	core   *core
	room   string // room ID, alias or configured name
	prefix prefix // of all keys; see [Store.Sub]

	opened atomic.Pointer[memory.Room] // the room, once it was asked for
}

// New returns a store of the memory in a room that the client's user has joined: a room ID (!…), an alias (#…), or a name configured with
// [WithRooms]. It sends nothing: an alias is resolved when it is first needed. With "" the store has no room, as a bot wants that works in the rooms of
// events alone, and what would read or write a memory fails with [ErrNoRoom].
//
// The client must be logged in, and none of its fields is changed. The store reads of an answer no more than it has asked for, and follows no redirect but
// that of a large value's download, without the token. The client's Crypto makes requests of its own.
//
// Errors: [ErrUnknownRoom] for a name that is not configured, [ErrInvalidOption].
func New(client *mautrix.Client, room string, opts ...Option) (*Store, error) {
	if client == nil {
		return nil, fault.Of(ErrInvalidOption, nil, "the client is nil")
	}
	if client.HomeserverURL == nil || client.Client == nil {
		return nil, fault.Of(ErrInvalidOption, nil, "the client has no homeserver or no HTTP client; make it with mautrix.NewClient")
	}
	settings := defaults()
	if err := apply(&settings, opts); err != nil {
		return nil, err
	}
	if err := settings.check(client.UserID); err != nil {
		return nil, err
	}
	if _, err := settings.lookUp(room); err != nil && room != "" {
		return nil, err
	}
	core := newCore(client, settings)
	if core.waiting != nil {
		core.waiting.Memory = func(room id.RoomID) flush.Memory { return direct{&Store{core: core, room: room.String()}} }
	}
	return &Store{core: core, room: room}, nil
}

// Get decodes the value of key into dest, a pointer, as [json.Unmarshal] does. It takes one request, or none
// while the store follows the client's sync; see [Store.Follow].
//
// It sees all that this process has written before. What another has written can be hidden for a moment, while writers
// that wrote at the same time merge.
//
// Errors: [ErrNotFound], [ErrDecode] if the value does not fit dest, [ErrUndecryptable], [ErrUntrusted],
// [ErrWrongSecret], [ErrCorrupt], and of large values [ErrMissingMedia] and [ErrTooLarge].
func (s *Store) Get(ctx context.Context, key string, dest any) (err error) {
	ctx, op := s.begin(ctx, "Get", key)
	defer op.end(&err)
	if known := s.known(ctx, key); known != nil {
		return decode(key, known.JSON, dest)
	}
	entry, err := s.entry(ctx, key)
	if err != nil {
		return err
	}
	return entry.Decode(dest)
}

// Get returns the value of key as a T; see [Store.Get]. With an error it returns the zero T.
func Get[T any](ctx context.Context, s *Store, key string) (T, error) {
	var value T
	if s == nil {
		return value, fault.Of(ErrInvalidOption, nil, "the store is nil")
	}
	if err := s.Get(ctx, key, &value); err != nil {
		var zero T
		return zero, err
	}
	return value, nil
}

// Entry returns the value of key with its revision, sender and time. It takes the requests of [Store.Get].
//
// Errors: those of [Store.Get] but for [ErrDecode]; beside [ErrUndecryptable] and [ErrUntrusted] the entry has all but the
// value.
func (s *Store) Entry(ctx context.Context, key string) (entry Entry, err error) {
	ctx, op := s.begin(ctx, "Entry", key)
	defer op.end(&err)
	return s.entry(ctx, key)
}

func (s *Store) entry(ctx context.Context, key string) (Entry, error) {
	m, err := s.keyed(ctx, key)
	if err != nil {
		return Entry{}, err
	}
	read, err := m.Entry(ctx, key)
	return entryOf(read), err
}

// known is what was read before of a memory that is followed, nil where that is not so or can have changed. The store of an event's room is a new
// one for each event, and knows its room without a request.
func (s *Store) known(ctx context.Context, key string) *memory.Entry {
	if !s.core.plain || ctx.Err() != nil {
		return nil
	}
	opened := s.opened.Load()
	if opened == nil && strings.HasPrefix(s.room, "!") {
		opened, _ = s.open(ctx)
	}
	if opened == nil {
		return nil
	}
	return opened.Known(s.prefix.of(key))
}

// Put stores value under key, whatever was there. When it returns nil, the homeserver has the value (with [WithFlushEvery] after a flush), and it stays
// until somebody changes that same key, whoever writes other keys at the same time.
//
// Where the store knows that the key has that value already, there is no new event. A Put takes two requests in the single-state-key layout, one while
// following or [WithSingleWriter], and one in the per-key layout; docs/api.md tells both in full. Puts that wait for each other share these.
//
// Errors: [ErrInvalidKey], [ErrInvalidValue], [ErrTooLarge], [ErrNoCrypto], [ErrWrongSecret], and in the single-state-key layout [ErrCorrupt].
func (s *Store) Put(ctx context.Context, key string, value any, opts ...PutOption) (err error) {
	ctx, op := s.begin(ctx, "Put", key)
	defer op.end(&err)
	return s.putAll(ctx, []string{key}, map[string]any{key: value}, opts)
}

// PutAll stores every value under its key; see [Store.Put]. Nothing is sent unless all of them can be encoded and
// fit.
//
// In the single-state-key layout that is one state event: all of it happens or nothing does. In the per-key layout,
// for which Matrix has no such thing, it is one event and one request a key, up to 8 of them at the same time; on an error
// some are stored, and the text says how many. With [WithShards] that is so for each state event. In an encrypted room the values share encrypted
// events in all layouts.
//
// Errors: those of [Store.Put].
func (s *Store) PutAll(ctx context.Context, values map[string]any, opts ...PutOption) (err error) {
	keys := slices.Collect(maps.Keys(values))
	ctx, op := s.begin(ctx, "PutAll", keys...)
	defer op.end(&err)
	return s.putAll(ctx, keys, values, opts)
}

func (s *Store) putAll(ctx context.Context, keys []string, values map[string]any, opts []PutOption) error {
	at, _, err := s.core.until(ctx, opts)
	if err != nil {
		return err
	}
	stored := make(map[string]json.RawMessage, len(values)) // by key
	for key, value := range values {
		text, err := encode.Value(key, value)
		if err != nil {
			return err
		}
		stored[key] = wire.WithExpiry(text, at)
	}
	m, err := s.keyed(ctx, keys...)
	if err != nil {
		return err
	}
	return m.PutAll(ctx, stored)
}

// Delete removes the keys. A key that is not there is no error and makes no event. A value that cannot be read can
// be deleted.
//
// In the single-state-key layout it takes the requests of [Store.Put] and makes one state event, which holds the
// remaining keys, in an encrypted room too. In the per-key layout it takes one request to read, for several keys those
// of [Store.Keys] and one for each key that is missing there, and then a request and an event for each key that is
// there; see [Store.PutAll]. With [WithShards] it takes the requests of Put for each state event that has some of the keys.
//
// Errors: [ErrInvalidKey], [ErrWrongSecret], and in the single-state-key layout [ErrCorrupt].
func (s *Store) Delete(ctx context.Context, keys ...string) (err error) {
	ctx, op := s.begin(ctx, "Delete", keys...)
	defer op.end(&err)
	m, err := s.keyed(ctx, keys...)
	if err != nil {
		return err
	}
	return m.Delete(ctx, keys)
}

// begin begins an operation of which the observer is told, where there is one.
func (s *Store) begin(ctx context.Context, kind string, keys ...string) (context.Context, *running) {
	if s.core.observer == nil {
		return ctx, nil
	}
	var told []string
	if s.core.observesKeys && len(keys) > 0 {
		told = slices.Clone(s.prefix.full(keys))
	}
	return s.core.begin(ctx, kind, s.room, told)
}

// open finds the store's room.
func (s *Store) open(ctx context.Context) (*memory.Room, error) {
	if opened := s.opened.Load(); opened != nil {
		return opened, nil
	}
	id, err := s.core.roomID(ctx, s.room)
	if err != nil {
		return nil, err
	}
	room := s.core.Room(id)
	s.opened.Store(&room)
	return &room, nil
}

// keyed is the store's memory by key, with what waits there for a flush.
func (s *Store) keyed(ctx context.Context, keys ...string) (keyed flush.Keyed, err error) {
	if err := s.checkKeys(keys); err != nil {
		return nil, err
	}
	keyed = direct{s}
	if s.core.waiting != nil {
		room, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		keyed = s.core.waiting.Room(room.ID)
	}
	if s.prefix != "" {
		keyed = sub{keyed, s.prefix}
	}
	return keyed, nil
}

// checkKeys fails where the store's prefix or a key after it is not valid.
func (s *Store) checkKeys(keys []string) error {
	return checkKeys(append(keys[:len(keys):len(keys)], string(s.prefix)))
}

func checkKeys(keys []string) error {
	for _, key := range keys {
		if !utf8.ValidString(key) {
			return fault.Of(ErrInvalidKey, nil, "%q is not valid UTF-8", key)
		}
	}
	return nil
}

// flushRoom sends what waits in the store's room.
func (s *Store) flushRoom(ctx context.Context) error {
	if s.core.waiting == nil {
		return nil
	}
	room, err := s.open(ctx)
	if err != nil {
		return err
	}
	return s.core.waiting.Room(room.ID).Flush(ctx)
}

// home finds the room where the store's memory is by now, once all that waits for a flush is there.
func (s *Store) home(ctx context.Context) (home upgrade.Home, err error) {
	if err := s.flushRoom(ctx); err != nil {
		return home, err
	}
	return direct{s}.home(ctx)
}

// handle is the store's memory, for work on keys, once all that waits for a flush is there.
func (s *Store) handle(ctx context.Context, keys ...string) (memory.Handle, error) {
	err := s.checkKeys(keys)
	if err == nil {
		err = s.flushRoom(ctx)
	}
	if err != nil {
		return memory.Handle{}, err
	}
	return direct{s}.handle(ctx, s.prefix.full(keys)...)
}

// write does what changes keys of the memory, once all that waits for a flush is there.
func (s *Store) write(ctx context.Context, keys []string, do func(memory.Handle) error) error {
	err := s.checkKeys(keys)
	if err == nil {
		err = s.flushRoom(ctx)
	}
	if err != nil {
		return err
	}
	return direct{s}.Write(ctx, s.prefix.full(keys), do)
}

// direct is a store's memory as the homeserver has it, whatever waits for a flush. It implements [flush.Memory].
type direct struct{ *Store }

var _ flush.Memory = direct{}

// home finds the room where the store's memory is by now, for work on keys, once these are known to be valid.
func (d direct) home(ctx context.Context, keys ...string) (home upgrade.Home, err error) {
	if err := checkKeys(keys); err != nil {
		return home, err
	}
	if err := ctx.Err(); err != nil {
		return home, err
	}
	room, err := d.open(ctx)
	if err != nil {
		return home, err
	}
	if home = d.core.upgrades.Of(*room); d.core.followUpgrades {
		home, err = home.Find(ctx)
	}
	if err == nil && len(keys) > 0 {
		err = home.EnsureFields(ctx, false)
	}
	return home, err
}

// handle is the store's memory; see [direct.home].
func (d direct) handle(ctx context.Context, keys ...string) (memory.Handle, error) {
	home, err := d.home(ctx, keys...)
	if err != nil {
		return memory.Handle{}, err
	}
	return memory.Handle{Room: home.Room, Memory: home.Guard(d.core.memoryOf(home.Room))}, nil
}

// Write implements [flush.Memory]. It does what changes the memory again in the room's replacement where the room was upgraded meanwhile.
func (d direct) Write(ctx context.Context, keys []string, do func(memory.Handle) error) error {
	return d.core.upgrades.Retry(func() error {
		h, err := d.handle(ctx, keys...)
		if err == nil {
			err = do(h)
		}
		return err
	})
}

// Entry implements [flush.Keyed].
func (d direct) Entry(ctx context.Context, key string) (memory.Entry, error) {
	h, err := d.handle(ctx, key)
	if err != nil {
		return memory.Entry{}, err
	}
	entry, err := h.Entry(ctx, h.NameOf(key), key)
	if entry.Event == "" {
		entry.Key = ""
	}
	return entry, err
}

// GetAll implements [flush.Keyed].
func (d direct) GetAll(ctx context.Context, keys []string) (map[string]memory.Entry, error) {
	h, err := d.handle(ctx, keys...)
	if err != nil {
		return nil, err
	}
	return h.GetAll(ctx, keys)
}

// Keys implements [flush.Keyed].
func (d direct) Keys(ctx context.Context, list memory.Listing) ([]string, error) {
	h, err := d.handle(ctx)
	if err != nil {
		return nil, err
	}
	return h.Keys(ctx, list)
}

// Entries implements [flush.Keyed].
func (d direct) Entries(ctx context.Context, list memory.Listing) iter.Seq2[memory.Entry, error] {
	return func(yield func(memory.Entry, error) bool) {
		h, err := d.handle(ctx)
		if err != nil {
			yield(memory.Entry{}, err)
			return
		}
		h.Entries(ctx, list)(yield)
	}
}

// PutAll implements [flush.Keyed].
func (d direct) PutAll(ctx context.Context, stored map[string]json.RawMessage) error {
	keys := make([]string, 0, len(stored))
	for key := range stored {
		keys = append(keys, key)
	}
	return d.Write(ctx, keys, func(h memory.Handle) error { return h.PutAll(ctx, stored, memory.Put{}) })
}

// Delete implements [flush.Keyed].
func (d direct) Delete(ctx context.Context, keys []string) error {
	return d.Write(ctx, keys, func(h memory.Handle) error {
		names, _ := h.NamesOf(keys)
		return h.Remove(ctx, names, nil)
	})
}

// Update implements [flush.Keyed].
func (d direct) Update(ctx context.Context, key string, fn flush.Function) error {
	return d.Write(ctx, []string{key}, func(h memory.Handle) error {
		return h.Update(ctx, memory.Update{Key: key, Calls: true, Puts: true, Apply: func(base commit.Base, name string) (json.RawMessage, error) {
			old, err := h.OldIn(ctx, base, name)
			if err != nil {
				return nil, err
			}
			return fn(old)
		}})
	})
}

// Now implements [flush.Memory].
func (d direct) Now(ctx context.Context) (int64, error) { return d.core.Now(ctx) }

// Check implements [flush.Memory].
func (d direct) Check(ctx context.Context, key string, stored json.RawMessage) error {
	room, err := d.open(ctx)
	if err != nil {
		return err
	}
	return room.CheckBounds(ctx, key, stored)
}

// Ahead implements [flush.Memory].
func (d direct) Ahead(ctx context.Context) (with context.Context, leave func(), err error) {
	room, err := d.open(ctx)
	if err != nil {
		return ctx, nil, err
	}
	return room.Ahead(ctx)
}
