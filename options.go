package roomkv

import (
	"context"
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// DefaultEventType is the event type of the state events that hold the memory, unless [WithEventType] names
// another.
const DefaultEventType = "m.opsdroid.database"

// Option changes how a [Store] that [New] makes works. If two options set the same thing, the later one wins.
type Option func(*settings)

type settings struct {
	memory.Settings
	composition
}

// composition is what options say beside the memories' settings.
type composition struct {
	rooms          map[string]string // by name
	followUpgrades bool
	fallback       bool
	flushes        bool          // whether writes wait for others
	flushEvery     time.Duration // and how long
	observer       Observer      // nil where nobody observes
	observesKeys   bool
}

// KeyBackup keeps Megolm sessions outside of the client's crypto store, so that values outlive that. Package
// [github.com/roomkv/roomkv/keybackup] has one, with the account's key backup on the homeserver. Its methods are called
// concurrently.
type KeyBackup interface {
	// Save returns nil once the session, which the client's crypto store has, is in the backup. It is called before each
	// write that uses the session.
	Save(ctx context.Context, room id.RoomID, session id.SessionID) error

	// Restore brings a session from the backup into the client's crypto store, and tells whether the backup has it.
	Restore(ctx context.Context, room id.RoomID, session id.SessionID) (found bool, err error)
}

// defaultKeyWait is how long a missing key is waited for; see [WithKeyWait].
const defaultKeyWait = 3 * time.Second

func defaults() settings {
	return settings{Settings: memory.Settings{EventType: DefaultEventType, Layout: memory.OneDict{}, Encrypt: true, KeyWait: defaultKeyWait}}
}

// WithSingleStateKey keeps the whole memory of a room as a dict in one state event with the given state key.
// It is the default, with the state key "" (opsdroid: single_state_key: True; a string there is a state key).
// The dict and its keys must fit into one event, 64 KiB in all, where large values are references; reading and writing
// any number of keys costs the same. [WithShards] spreads a memory over several such events.
//
// A state key is at most 255 bytes, and one that begins with @ must be the client's own user ID. It is none of those that [WithShards]
// uses. New fails with [ErrInvalidOption] otherwise.
func WithSingleStateKey(stateKey string) Option {
	return func(s *settings) { s.Layout = memory.OneDict{Key: stateKey} }
}

// WithPerKeyState keeps each key in a state event of its own (opsdroid: single_state_key: False). Each value
// then has an event to itself, and writers of different keys never meet; changing several keys at once takes
// an event for each and is not atomic.
func WithPerKeyState() Option {
	return func(s *settings) { s.Layout = memory.PerKey{} }
}

// WithShards spreads keys by a hash over n state events, each a dict: n times 64 KiB fit, a Put costs the n-th part, and a list is one request. Keys with the
// same {tag}, the text between the first { and the first } after it, are in one event, as in Redis Cluster: "{alice}/score" and "{alice}/level".
// Each event is as the one of the single-state-key layout. What changes keys of several is not atomic. opsdroid does not read it.
//
// An event that the first write makes says what n is. With another n calls fail with [ErrInvalidOption]; [Copy] takes the memory to another event type.
// A process asks for that event once where no sync tells, and again before it first writes. New fails with ErrInvalidOption where n is not from 1 to 500.
func WithShards(n int) Option {
	return func(s *settings) { s.Layout = memory.Shards{N: n} }
}

// WithEncryption says whether values must be encrypted in encrypted rooms (opsdroid: should_encrypt). By default they must: a value goes into a Megolm
// event of the room, and the state has that event's ID. That takes a Crypto of the client, without which a Put is [ErrNoCrypto]. With false nothing is encrypted
// in any room. What is encrypted can be read either way.
//
// A room that was encrypted once stays so for the store. If the homeserver denies it while the memory refers to an encrypted event, a write is ErrNoCrypto,
// unless the client's StateStore knows the encryption. That a room becomes encrypted the StateStore or a sync that the store follows tells at once. Without
// these a client with a Crypto asks before each write, one without every 10 seconds.
func WithEncryption(encrypt bool) Option {
	return func(s *settings) { s.Encrypt = encrypt }
}

// WithEventType sets the type of the state events that hold the memory. opsdroid writes "dev.opsdroid.database", its earlier versions "opsdroid.database",
// and no version [DefaultEventType]. Stores with different types, or different state keys, share a room without seeing each other. The type is at
// most 255 bytes and none of the specification's own, such as m.room.…; New fails with [ErrInvalidOption] otherwise.
//
// mautrix warns of each encrypted event of a type that it does not know. Those named here it knows. A program adds another before any client is used:
//
//	event.TypeMap[event.Type{Type: "org.example.memory", Class: event.MessageEventType}] = reflect.TypeFor[struct{}]()
func WithEventType(eventType string) Option {
	return func(s *settings) { s.EventType = eventType }
}

// WithSingleWriter says that nobody else writes to the memory: no other process, no person, and in this process only
// stores that come from the same [New]. A Put then does not look for other
// writers, and takes one request once the store has read the memory. If somebody else writes all the same, writes are lost, as with opsdroid.
func WithSingleWriter() Option {
	return func(s *settings) { s.SingleWriter = true }
}

// WithSealedKeys hides the names of keys from whoever can read the state but not the values: the state shows a hash of each key with the secret, another one
// in each room, and the key itself is in the encrypted event beside the value. Still to be seen is how many keys there are, when each changes, and how large
// events are. opsdroid cannot read such keys. One that was stored without a secret is not seen until [Store.EncryptAll] has sealed it.
//
// The secret is at least 16 random bytes; else, or with WithEncryption(false), New fails with [ErrInvalidOption]. One that is lost cannot be
// replaced. With another or none each method fails with [ErrWrongSecret]; but a store of the per-key layout with none finds no such key where
// it reads or deletes one. In a room that is not encrypted a Put is [ErrNoCrypto].
func WithSealedKeys(secret []byte) Option {
	secret = append([]byte{}, secret...)
	return func(s *settings) { s.Secret = secret }
}

// WithMinTrust refuses values with [ErrUntrusted] that were not encrypted by a device of at least that trust, and in
// encrypted rooms values that were not encrypted at all. By default a value of any device is read, and [Entry] tells its
// trust. A value that this client encrypted has [id.TrustStateVerified] until its session comes from a backup, and then
// [id.TrustStateBackup].
func WithMinTrust(trust id.TrustState) Option {
	return func(s *settings) { s.MinTrust = &trust }
}

// WithKeyWait sets how long a read waits for the key of a value that the client cannot decrypt, 3 seconds by default. The
// key is asked for, of the sender's device and the user's own, and comes with the client's sync, so that a read in a
// handler of the sync does not wait. A key that did not come is neither waited nor asked for again within a minute. A read waits as long for
// a value's event that the homeserver does not find: under load Dendrite finds one some time after it has acknowledged it.
func WithKeyWait(wait time.Duration) Option {
	return func(s *settings) { s.KeyWait = wait }
}

// WithKeyBackup keeps the keys to values where they outlive the client's crypto store; see [KeyBackup]. Each Megolm session
// is saved there before the state refers to a value that was encrypted with it; where that fails, so does the write. A
// session that a read lacks is restored from there.
//
// With package keybackup a write takes one request more every 5 minutes, which asks whether the account's backup is still the one that was
// opened. Where another client has deleted it, or replaced it by one with another key, writes fail with that package's ErrNoBackup or
// ErrKeyMismatch, and where the new one has the same key the sessions are saved there too.
func WithKeyBackup(backup KeyBackup) Option {
	if backup == nil {
		return nil
	}
	return func(s *settings) { s.Backup = backup }
}

// WithRedaction redacts encrypted values that were overwritten or deleted, so that the homeserver gives them to nobody any more: when a write is done, each
// event that it has left without a reference from any state event of the store's type. Not redacted are events that are not the store's own or cannot be
// decrypted, what a write that failed had encrypted, and attachments of large values, which only administrators can delete.
//
// Such a write takes one more request, which lists the memory, one for each event, and one to read each that this process has not seen. In the per-key layout
// a Put takes the requests of [Update]. Where a redaction fails, the write has succeeded all the same, the log says so, and the next write tries again.
func WithRedaction() Option {
	return func(s *settings) { s.RedactOld = true }
}

// WithMaxValue sets how large a value may be, in bytes of its JSON text, that is written, or that is in the media repository and
// read. Above that both fail with [ErrTooLarge]. By default it is what the homeserver takes as an upload, or 100 MiB where it does
// not say. Whoever may write state decides how much a read downloads, up to that.
func WithMaxValue(bytes int64) Option {
	return func(s *settings) { s.MaxValue = bytes }
}

// WithRoomUpgrades follows a room that was upgraded to its replacement: the store joins that, moves the memory there, and from
// then on reads and writes there, whatever name of the room it was given. Any number of bots and processes may do so at once.
// A write that is acknowledged while the room is being upgraded is in the new room. Without the option a write to a room that was upgraded is
// [ErrRoomUpgraded]: at once where a sync tells, else within 10 seconds.
//
// Whoever may send a tombstone decides where the memory goes. The replacement is followed only where its create event names the old room as
// predecessor, and where it is encrypted if the old one is. Where the store cannot follow, because it is not invited, may not write there, or the
// replacement is none, each write is [ErrRoomUpgraded] with the reason beneath, reads go on in the old room, and the store tries again after 0.3 to 10
// seconds.
//
// Whoever comes first moves what it can read, encrypted anew. Nothing is deleted from the old room. A value that cannot be read stays there, and the log
// says how many do. In the new room its key is there, and reading it is [ErrCorrupt] or [ErrUndecryptable]. A bot that can read it moves it later.
//
// A [Store.Watch] of the old room ends with ErrRoomUpgraded, and the next one is of the new room.
//
// While a room is being upgraded an [Update] or [Store.Transact] can be applied twice, and [Store.Create], [Store.CompareAndPut] and [Store.Pop] fail
// with ErrRoomUpgraded where they may have been done in the old room. docs/operations.md in the repository has the details.
func WithRoomUpgrades() Option {
	return func(s *settings) { s.followUpgrades = true }
}

// WithFlushEvery keeps writes in the process for up to d and sends them together: a crash loses what was written in the last d, or since the homeserver began
// to hold writes back. It is for bots whose account the homeserver limits, as Synapse does by default: to 10 events at once and then 12 a minute, over all
// rooms.
//
// [Store.Put], [Store.PutAll], [Store.Delete] and [Update] then wait for no request: all stores that come from the same
// [New] read at once what was written. (An Update of a key of which nothing waits reads it first.) What waits has key and value alone in an [Entry], and no revision; a
// [Store.Watch] tells it when it is sent. Each room's writes are sent d after the first of them, in one commit for each state event that they change.
// Rooms take turns. [Store.Flush] sends what waits, and so does [Store.Close], which a program must call before it ends. Once it is sent, all that
// is said of writes holds. Whatever needs to know what the homeserver has, such as [Store.Create], [Store.CompareAndPut], [Store.Pop], [Store.Purge],
// [Store.History] and [Copy], sends first what waits in the room.
//
// A function given to Update is called before Update returns, with what is known then. Where somebody else has changed the key by the time of the flush it is
// called again, in another goroutine: it must depend on nothing but its arguments, and change nothing. If it fails then, the edit is dropped.
//
// What is wrong with a key or a value by itself is an error of Put. What is found to be wrong when it is sent, for example that the user lacks the power or
// that the memory is full, is an error of the next Flush or Close and in the client's log; the edits that it concerns are dropped, and the others are sent.
// Anything else is tried again after longer and longer waits, of up to 5 minutes. An Update that may have been done or not is dropped, and the error says so:
// nothing is done twice.
//
// Up to about 16 MB wait in all rooms. Beyond that all is sent at once, and writes wait until there is room again. With [WithRoomUpgrades] a store of the old
// room and one of the new see each other's writes once they are sent. New fails with [ErrInvalidOption] where d is not positive.
func WithFlushEvery(d time.Duration) Option {
	return func(s *settings) { s.flushEvery, s.flushes = d, true }
}

// WithObserver tells an observer of each operation: of each call that takes a context, but for [FromContext] and for calls that roomkv makes inside another. For
// a method that returns a sequence, such as [Store.Watch], each loop is an operation. A [Copy] tells the observer of its destination.
//
// Each request is counted once. If operations share it, the one that has waited longest and has not ended counts it. With [WithFlushEvery] the operation
// "send" counts it. Not counted are requests that go on after all callers have given up, and those that the client's Crypto makes by itself.
// New fails with [ErrInvalidOption] if the observer is nil.
func WithObserver(observer Observer) Option {
	if isNil(observer) {
		return nil
	}
	return func(s *settings) { s.observer = observer }
}

// WithObservedKeys tells the observer of [WithObserver] the keys that a call names, in clear also if they are sealed. Keys can be personal, and there can be very
// many: put them into spans, not into the attributes of a metric.
func WithObservedKeys() Option {
	return func(s *settings) { s.observesKeys = true }
}

// WithRooms gives rooms names, which [New] and [Store.WithRoom] then take in place of a room ID or alias, as in
// opsdroid's configuration: {"main": "#bots:example.org"}. A name stands for a room ID or an alias and does
// not look like one itself; New fails with [ErrInvalidOption] otherwise.
func WithRooms(rooms map[string]string) Option {
	rooms = maps.Clone(rooms)
	return func(s *settings) { s.rooms = rooms }
}

// apply has each of the options change to.
func apply[S any, O ~func(*S)](to *S, options []O) error {
	for _, option := range options {
		if option == nil {
			return fault.Of(ErrInvalidOption, nil, "a %T is nil, or was made of what is", option)
		}
		option(to)
	}
	return nil
}

// check finds what the options ask for and Matrix does not allow.
func (s *settings) check(self id.UserID) error {
	switch {
	case s.EventType == "":
		return fault.Of(ErrInvalidOption, nil, "the event type is empty")
	case !utf8.ValidString(s.EventType):
		return fault.Of(ErrInvalidOption, nil, "the event type is not valid UTF-8")
	case len(s.EventType) > wire.MaxType:
		return fault.Of(ErrInvalidOption, nil, "the event type is %d bytes long and may be %d", len(s.EventType), wire.MaxType)
	case isSpecified(s.EventType):
		return fault.Of(ErrInvalidOption, nil, "the event type %s has a meaning in Matrix", s.EventType)
	}
	switch {
	case s.MaxValue < 0:
		return fault.Of(ErrInvalidOption, nil, "a value cannot have %d bytes", s.MaxValue)
	case s.Secret != nil && len(s.Secret) < memory.MinSecret:
		return fault.Of(ErrInvalidOption, nil, "the secret has %d bytes and must have at least %d", len(s.Secret), memory.MinSecret)
	case s.flushes && s.flushEvery <= 0:
		return fault.Of(ErrInvalidOption, nil, "writes cannot wait %v for a flush", s.flushEvery)
	case s.Backup != nil && isNil(s.Backup):
		return fault.Of(ErrInvalidOption, nil, "WithKeyBackup was given a nil %T", s.Backup)
	case s.Secret != nil && !s.Encrypt:
		return fault.Of(ErrInvalidOption, nil, "keys cannot be sealed without encryption, for the encrypted events have them")
	}
	if shards, ok := s.Layout.(memory.Shards); ok && (shards.N < 1 || shards.N > wire.MaxShards) {
		return fault.Of(ErrInvalidOption, nil, "keys cannot be spread over %d state events, and can over 1 to %d", shards.N, wire.MaxShards)
	}
	if single, ok := s.Layout.(memory.OneDict); ok {
		key := single.Key
		_, _, isShard := wire.ParseShard(key)
		switch {
		case isShard, key == wire.ShardsName:
			return fault.Of(ErrInvalidOption, nil, "the state key %q is one of those that WithShards uses", key)
		case !utf8.ValidString(key):
			return fault.Of(ErrInvalidOption, nil, "the state key is not valid UTF-8")
		case len(key) > wire.MaxStateKey:
			return fault.Of(ErrInvalidOption, nil, "the state key is %d bytes long and may be %d", len(key), wire.MaxStateKey)
		case strings.HasPrefix(key, "@") && key != self.String():
			return fault.Of(ErrInvalidOption, nil, "the state key %q begins with @, and only the user of that ID may write it", key)
		}
	}
	for name, room := range s.rooms {
		if name == "" || isRoom(name) {
			return fault.Of(ErrInvalidOption, nil, "%q cannot be the name of a room", name)
		}
		if !isRoom(room) {
			return fault.Of(ErrInvalidOption, nil, "the room named %q is %q, which is neither a room ID nor an alias", name, room)
		}
	}
	return nil
}

// isNil tells whether there is nothing, or a nil pointer.
func isNil(given any) bool {
	value := reflect.ValueOf(given)
	return given == nil || value.Kind() == reflect.Pointer && value.IsNil()
}

// isSpecified tells whether clients or homeservers act on events of the type.
func isSpecified(eventType string) bool {
	known := event.Type{Type: eventType}
	return strings.HasPrefix(eventType, "m.room.") || known.GuessClass() != event.UnknownEventType
}

// lookUp gives the room ID or alias that a room's name stands for, and these as they are.
func (c *composition) lookUp(room string) (string, error) {
	if isRoom(room) {
		return room, nil
	}
	if configured, ok := c.rooms[room]; ok {
		return configured, nil
	}
	if room == "" {
		return "", fault.Of(ErrNoRoom, ErrUnknownRoom, "the store has none; WithRoom and InEventRoom give one that has")
	}
	return "", fault.Of(ErrUnknownRoom, nil, "%q is neither a room ID (!…) nor an alias (#…) nor a name configured with WithRooms", room)
}

func isRoom(room string) bool {
	return len(room) > 1 && (room[0] == '!' || room[0] == '#')
}
