package roomkv

import "github.com/roomkv/roomkv/internal/fault"

// The errors that a Store returns, for [errors.Is]. Each error's text adds the room, the key or the event and
// what can be done. Where the homeserver refused something, errors.Is and errors.As find mautrix's error
// beneath too, for example [mautrix.MForbidden]. No error's text holds a value.
var (
	// ErrNotFound: the room's memory has no such key, or for ImportAccountData: there is no such account data.
	ErrNotFound = fault.ErrNotFound

	// ErrExists: the key has a value already, and so Create stored none. After a Copy or an Import it names keys that have kept other values.
	ErrExists = fault.ErrExists

	// ErrConflict: the key has changed since the revision that CompareAndPut or CompareAndDelete was given, so nothing was changed. Copy, Import and
	// Purge return it where others have written the same keys meanwhile.
	ErrConflict = fault.ErrConflict

	// ErrNotFollowing: Watch needs a store that follows, by [Store.Follow] or [Store.FollowEvents], and that nobody has closed.
	ErrNotFollowing = fault.ErrNotFollowing

	// ErrTooOld: Watch cannot begin at the revision, or go on where it was, for the homeserver does not list that event
	// among the latest; or the homeserver no longer has what At asks for.
	ErrTooOld = fault.ErrTooOld

	// ErrTooLarge: what would be sent is larger than Matrix or the homeserver allows, or what would be read than
	// [WithMaxValue] does, or than is read at once. The text says which limit, how large, and what to do about it.
	ErrTooLarge = fault.ErrTooLarge

	// ErrMissingMedia: the value's attachment is not in the media repository. A homeserver has deleted it, by its retention
	// or its administrator's hand, or does not get it from the one that has it. A Put replaces the value.
	ErrMissingMedia = fault.ErrMissingMedia

	// ErrForbidden: the client is in the room but may not do this. Where that is for a lack of power, the text
	// names the power level that it needs and the one it has.
	ErrForbidden = fault.ErrForbidden

	// ErrUnknownRoom: the room's name is not configured (see [WithRooms]), its alias does not resolve, or it
	// is neither a name nor an alias nor a room ID.
	ErrUnknownRoom = fault.ErrUnknownRoom

	// ErrNoRoom: the store has no room, because [New] was given an empty one, or because the event of [Store.InEventRoom] is outside of
	// any room. It is an ErrUnknownRoom too.
	ErrNoRoom = fault.ErrNoRoom

	// ErrNotJoined: the client's user is not in the room. A room ID that no room has ends here too, for
	// homeservers do not tell the two apart. A user who has left may be shown the state as it was
	// then, and a Get then returns that.
	ErrNotJoined = fault.ErrNotJoined

	// ErrInvalidKey: the key is not valid UTF-8.
	ErrInvalidKey = fault.ErrInvalidKey

	// ErrInvalidValue: the value cannot be encoded as JSON, or has a text that is not valid UTF-8, for which encoding/json would
	// put U+FFFD in the place of what is not.
	ErrInvalidValue = fault.ErrInvalidValue

	// ErrDecode: there is a value, but it does not fit what it should be decoded into. errors.As finds
	// encoding/json's error beneath, whose own text may show the value.
	ErrDecode = fault.ErrDecode

	// ErrCorrupt: a state event of the store's type is not in the store's format, and the text names the event.
	// A bad value is replaced by a Put and removed by a Delete, and other keys can still be read and written.
	// A dict that is no object, which homeservers do not accept, must be replaced by other means. It is also the error of an
	// answer of the homeserver that is not what it was asked for, or larger than that can be.
	ErrCorrupt = fault.ErrCorrupt

	// ErrDamaged: what Import was given is not what Export has written, or not all of it, or not of the format that an option names. Nothing was
	// changed. The text says what is wrong with it.
	ErrDamaged = fault.ErrDamaged

	// ErrUndecryptable: the value is in an encrypted event that the client cannot decrypt now. The text names the event
	// and its Megolm session. The value stays where it is, and can be read when the client has the session's key.
	ErrUndecryptable = fault.ErrUndecryptable

	// ErrRedacted: the event that held the value was redacted, so that nobody can read it any more: the value was overwritten
	// or purged, or somebody has taken it away. Beneath [ErrUndecryptable] it tells why.
	ErrRedacted = fault.ErrRedacted

	// ErrUntrusted: the value does not come from a device that [WithMinTrust] accepts.
	ErrUntrusted = fault.ErrUntrusted

	// ErrWrongSecret: the keys were sealed with another secret than the store's, or the store has none; see
	// [WithSealedKeys].
	ErrWrongSecret = fault.ErrWrongSecret

	// ErrNoCrypto: the room is encrypted and the client has no Crypto. Or the homeserver does not say how the room is encrypted: it may
	// deny that it is, while the memory proves it. Or the room is not encrypted, and [WithSealedKeys] needs an encrypted one. Nothing
	// was written.
	ErrNoCrypto = fault.ErrNoCrypto

	// ErrRoomUpgraded: the room was replaced by another one, which the text names, and the write was not done, or not where
	// it counts. With [WithRoomUpgrades] it says that the store could not follow, and errors.Is finds why. Reads of the old
	// room go on; a Watch of it ends.
	ErrRoomUpgraded = fault.ErrRoomUpgraded

	// ErrNotAtomic: a Transact uses keys that are not in one state event, or lists keys that are not. Nothing was changed.
	ErrNotAtomic = fault.ErrNotAtomic

	// ErrNoTime: the homeserver's answers have no Date header that can be read. A proxy may have removed it. Without the time nobody can tell what has expired.
	ErrNoTime = fault.ErrNoTime

	// ErrLeaseLost: the lease that [Tx.Require] was given is not held any more. Nothing was changed.
	ErrLeaseLost = fault.ErrLeaseLost

	// ErrTxDone: a Tx was used after the function that got it had returned.
	ErrTxDone = fault.ErrTxDone

	// ErrInvalidOption: New was given something that it cannot work with, or Follow a syncer that it cannot. It is also the error of a call that was given
	// nil for an option, store, snapshot, function, reader or writer, or what contradicts itself, such as a Copy of a memory to itself. Such a
	// call does nothing.
	ErrInvalidOption = fault.ErrInvalidOption
)
