package roomkv

import (
	"maps"
	"strings"
	"unicode/utf8"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

// DefaultEventType is the event type of the state events that hold the memory, unless [WithEventType] names
// another.
const DefaultEventType = "m.opsdroid.database"

// Option changes how a [Store] that [New] makes works. If two options set the same thing, the later one wins.
type Option func(*settings)

type settings struct {
	eventType string
	layout    layout
	encrypt   bool
	rooms     map[string]string

	singleWriter bool
}

func defaults() settings {
	return settings{eventType: DefaultEventType, layout: singleKey{}, encrypt: true}
}

// WithSingleStateKey keeps the whole memory of a room as a dict in one state event with the given state key.
// It is the default, with the state key "" (opsdroid: single_state_key: True; a string there is a state key).
// The dict and its keys must fit into one event, 64 KiB in all; reading and writing any number of keys
// costs the same.
//
// A state key is at most 255 bytes, and one that begins with @ must be the client's own user ID; New fails
// with [ErrInvalidOption] otherwise.
func WithSingleStateKey(stateKey string) Option {
	return func(s *settings) { s.layout = singleKey{stateKey} }
}

// WithPerKeyState keeps each key in a state event of its own (opsdroid: single_state_key: False). Each value
// then has 64 KiB to itself, and writers of different keys never meet; changing several keys at once takes
// an event for each and is not atomic.
func WithPerKeyState() Option {
	return func(s *settings) { s.layout = perKey{} }
}

// WithEncryption says whether values must be encrypted in encrypted rooms (opsdroid: should_encrypt). It is true by
// default, and as this version cannot encrypt, a Put into an encrypted room is then refused with [ErrNoCrypto];
// false stores values that the homeserver can read. Delete and Pop work either way.
//
// The homeserver is asked before the first Put to a room, and before a Put when a minute has passed since. That a room
// becomes encrypted in between is learned from the client's StateStore, where its sync feeds one.
func WithEncryption(encrypt bool) Option {
	return func(s *settings) { s.encrypt = encrypt }
}

// WithEventType sets the event type of the state events that hold the memory, [DefaultEventType] by default, which no
// version of opsdroid writes, so that two bots do not meet in one memory by accident. opsdroid writes
// "dev.opsdroid.database", and its earlier versions "opsdroid.database". Two stores with different event types, or
// different state keys, share a room without seeing each other.
//
// The type is at most 255 bytes and not one of the specification's own (m.room.… and the like, which would overwrite
// the room's settings); New fails with [ErrInvalidOption] otherwise.
func WithEventType(eventType string) Option {
	return func(s *settings) { s.eventType = eventType }
}

// WithSingleWriter says that nobody else writes to the memory: no other process, no person, and in this process only
// stores that come from the same [New]. A Put then takes one request once the store has read the memory: it neither
// looks for other writers nor names what it had merged. Where it is not true, writes are lost, as with opsdroid.
func WithSingleWriter() Option {
	return func(s *settings) { s.singleWriter = true }
}

// WithRooms gives rooms names, which [New] and [Store.WithRoom] then take in place of a room ID or alias, as in
// opsdroid's configuration: {"main": "#bots:example.org"}. A name stands for a room ID or an alias and does
// not look like one itself; New fails with [ErrInvalidOption] otherwise.
func WithRooms(rooms map[string]string) Option {
	rooms = maps.Clone(rooms)
	return func(s *settings) { s.rooms = rooms }
}

// check finds what the options ask for and Matrix does not allow.
func (s *settings) check(self id.UserID) error {
	switch {
	case s.eventType == "":
		return fail(ErrInvalidOption, nil, "the event type is empty")
	case !utf8.ValidString(s.eventType):
		return fail(ErrInvalidOption, nil, "the event type is not valid UTF-8")
	case len(s.eventType) > wire.MaxType:
		return fail(ErrInvalidOption, nil, "the event type is %d bytes long and may be %d", len(s.eventType), wire.MaxType)
	case isSpecified(s.eventType):
		return fail(ErrInvalidOption, nil, "the event type %s has a meaning in Matrix", s.eventType)
	}
	if single, ok := s.layout.(singleKey); ok {
		switch key := single.dict; {
		case !utf8.ValidString(key):
			return fail(ErrInvalidOption, nil, "the state key is not valid UTF-8")
		case len(key) > wire.MaxStateKey:
			return fail(ErrInvalidOption, nil, "the state key is %d bytes long and may be %d", len(key), wire.MaxStateKey)
		case strings.HasPrefix(key, "@") && key != self.String():
			return fail(ErrInvalidOption, nil, "the state key %q begins with @, and only the user of that ID may write it", key)
		}
	}
	for name, room := range s.rooms {
		if name == "" || isRoom(name) {
			return fail(ErrInvalidOption, nil, "%q cannot be the name of a room", name)
		}
		if !isRoom(room) {
			return fail(ErrInvalidOption, nil, "the room named %q is %q, which is neither a room ID nor an alias", name, room)
		}
	}
	return nil
}

// isSpecified tells whether clients or homeservers act on events of the type.
func isSpecified(eventType string) bool {
	known := event.Type{Type: eventType}
	return strings.HasPrefix(eventType, "m.room.") || known.GuessClass() != event.UnknownEventType
}

// lookUp gives the room ID or alias that a room's name stands for, and these as they are.
func (s *settings) lookUp(room string) (string, error) {
	if isRoom(room) {
		return room, nil
	}
	if configured, ok := s.rooms[room]; ok {
		return configured, nil
	}
	if room == "" {
		return "", fail(ErrUnknownRoom, nil, "no room was given")
	}
	return "", fail(ErrUnknownRoom, nil, "%q is neither a room ID (!…) nor an alias (#…) nor a name configured with WithRooms", room)
}

func isRoom(room string) bool {
	return len(room) > 1 && (room[0] == '!' || room[0] == '#')
}
