package roomkv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The errors that a Store returns, for [errors.Is]. Each error's text adds the room, the key or the event and
// what can be done. Where the homeserver refused something, errors.Is and errors.As find mautrix's error
// beneath too, for example [mautrix.MForbidden]. No error's text holds a value.
var (
	// ErrNotFound: the room's memory has no such key.
	ErrNotFound = errors.New("key not found")

	// ErrExists: the key has a value already, and so Create stored none.
	ErrExists = errors.New("key exists")

	// ErrConflict: the key has changed since the revision that CompareAndPut was given, so nothing was stored.
	ErrConflict = errors.New("key has changed")

	// ErrNotFollowing: Watch needs a store that follows its client's sync.
	ErrNotFollowing = errors.New("not following")

	// ErrTooOld: Watch cannot begin at the revision, or go on where it was, for the homeserver does not list that event
	// among the latest; or the homeserver no longer has what At asks for.
	ErrTooOld = errors.New("too long ago")

	// ErrTooLarge: what would be sent is larger than Matrix or the homeserver allows, or what would be read than
	// [WithMaxValue] does, or than is read at once. The text says which limit, how large, and what to do about it.
	ErrTooLarge = errors.New("too large")

	// ErrMissingMedia: the value's attachment is not in the media repository. A homeserver has deleted it, by its retention
	// or its administrator's hand, or does not get it from the one that has it. A Put replaces the value.
	ErrMissingMedia = errors.New("no such media")

	// ErrForbidden: the client is in the room but may not do this. Where that is for a lack of power, the text
	// names the power level that it needs and the one it has.
	ErrForbidden = errors.New("not allowed")

	// ErrUnknownRoom: the room's name is not configured (see [WithRooms]), its alias does not resolve, or it
	// is neither a name nor an alias nor a room ID.
	ErrUnknownRoom = errors.New("unknown room")

	// ErrNotJoined: the client's user is not in the room. A room ID that no room has ends here too, for
	// homeservers do not tell the two apart. A user who has left may be shown the state as it was
	// then, and a Get then returns that.
	ErrNotJoined = errors.New("not in the room")

	// ErrInvalidKey: the key is not valid UTF-8.
	ErrInvalidKey = errors.New("invalid key")

	// ErrInvalidValue: the value cannot be encoded as JSON, or has a text that is not valid UTF-8, for which encoding/json would
	// put U+FFFD in the place of what is not.
	ErrInvalidValue = errors.New("invalid value")

	// ErrDecode: there is a value, but it does not fit what it should be decoded into. errors.As finds
	// encoding/json's error beneath, whose own text may show the value.
	ErrDecode = errors.New("value does not fit")

	// ErrCorrupt: a state event of the store's type is not in the store's format, and the text names the event.
	// A bad value is replaced by a Put and removed by a Delete, and other keys can still be read and written.
	// A dict that is no object, which homeservers do not accept, must be replaced by other means. So ends
	// also an answer of the homeserver that is not what it was asked for, or larger than that can be.
	ErrCorrupt = errors.New("corrupt state")

	// ErrDamaged: what Import was given is not what Export has written, or not all of it, and nothing was changed. The text says
	// what is wrong with it.
	ErrDamaged = errors.New("damaged file")

	// ErrUndecryptable: the value is in an encrypted event that the client cannot decrypt now. The text names the event
	// and its Megolm session. The value stays where it is, and can be read when the client has the session's key.
	ErrUndecryptable = errors.New("cannot decrypt")

	// ErrRedacted: the event that held the value was redacted, so that nobody can read it any more: the value was overwritten
	// or purged, or somebody has taken it away. Beneath [ErrUndecryptable] it tells why.
	ErrRedacted = errors.New("redacted")

	// ErrUntrusted: the value does not come from a device that [WithMinTrust] accepts.
	ErrUntrusted = errors.New("not trusted")

	// ErrWrongSecret: the keys were sealed with another secret than the store's, or the store has none; see
	// [WithSealedKeys].
	ErrWrongSecret = errors.New("wrong secret")

	// ErrNoCrypto: the room is encrypted and the client has no Crypto. Or the homeserver does not say how the room is encrypted: it may
	// deny that it is, while the memory proves it. Or the room is not encrypted, and [WithSealedKeys] needs an encrypted one. Nothing
	// was written.
	ErrNoCrypto = errors.New("no encryption")

	// ErrRoomUpgraded: the room was replaced by another one, which the text names, and the write was not done, or not where
	// it counts. With [WithRoomUpgrades] it says that the store could not follow, and errors.Is finds why. Reads of the old
	// room go on; a Watch of it ends.
	ErrRoomUpgraded = errors.New("room was upgraded")

	// ErrInvalidOption: New was given something it cannot work with, or Follow's client has a syncer that it cannot. It
	// is also the error of a call whose option, store, snapshot, reader or writer is nil, and of an Update whose function is nil. Such a
	// call does nothing.
	ErrInvalidOption = errors.New("invalid option")
)

// failure is an error with a text of its own and others beneath it that are found but not printed, for
// some of those print values.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return "roomkv: " + f.text }
func (f *failure) Unwrap() []error { return f.causes }

// fail makes a failure of kind, a sentinel of this file, with cause beneath where it is not nil.
func fail(kind, cause error, format string, args ...any) error {
	f := &failure{text: kind.Error() + ": " + fmt.Sprintf(format, args...), causes: []error{kind}}
	if cause != nil {
		f.causes = append(f.causes, cause)
	}
	return f
}

// failDecode describes a json.Unmarshal that failed without the value in its text.
func failDecode(key string, dest any, cause error) error {
	var mismatch *json.UnmarshalTypeError
	if errors.As(cause, &mismatch) && mismatch.Type != nil {
		kind, _, _ := strings.Cut(mismatch.Value, " ") // "number 7" would show the value
		if !slices.Contains([]string{"object", "array", "string", "number", "bool"}, kind) {
			kind = "value" // an UnmarshalJSON method made the error, of whatever it was given
		}
		return fail(ErrDecode, cause, "%q is or holds a JSON %s, which does not go into a Go %s (decoding into %T)", key, kind, mismatch.Type, dest)
	}
	return fail(ErrDecode, cause, "%q does not go into a %T", key, dest)
}
