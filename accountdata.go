package roomkv

// Place is where a value is stored.
type Place int

const (
	InState       Place = iota // in the room's state, for all its members
	InAccountData              // in the client's account data for the room; see [WithAccountDataFallback]
)

// String says it in words.
func (p Place) String() string {
	if p == InAccountData {
		return "account data"
	}
	return "state"
}

// WithAccountDataFallback keeps what the client may not write into a room's state in the account data that its user has for the
// room. That takes no power, so that a bot has a memory in every room that it has joined; see [Store.InEventRoom]. [Entry] tells where each
// value is. Without the option such a write is [ErrForbidden].
//
// Account data lies over the state: what is there hides what the state has under the same key, also where the key was deleted. Where
// somebody changes that in the state afterwards, the state's counts, as the later change. When the client has got the power, the memory
// moves into the state, with the next write or when a sync that the store follows tells of it. When it has lost the power, reads go on and
// writes go to account data again. What is acknowledged, or moved into the state, in the very moment in which the bot's power is taken away can
// be dropped by the homeserver, as any state event can; with [WithPerKeyState] what the key had before goes with it. All else that was acknowledged stays. A memory that is too large for the state
// stays where it is, and the log says so.
//
// Account data is private: only the user's own clients and the homeserver can read it. In an encrypted room the values are in Megolm
// events all the same, which take no power to send, and account data has the references. It has no history, and nothing merges what two
// processes write there: the later one undoes the other. So only one process of the account may write in such rooms, which is not checked.
// In that process any number of goroutines and stores may, which share requests, and what is said of [Update], [Store.Create] and
// [Store.CompareAndPut] holds among them. A function given to Update holds up all writes to the memory, of any key, while that goes from the one
// place to the other. In all layouts account data is one dict of 64 KiB for each room, from which large values are moved out; see [WithMaxValue].
//
// The first use of a room takes one more request, which reads account data, or two where that was emptied, and the first write one for the
// power levels. While the memory is in account data a read takes the requests that it takes otherwise, in the per-key layout also while
// following. A write takes one, and before it one that reads the state, in the per-key layout one for each key, up to 8. Writes that wait for
// each other share both. Whether there is power by now is asked at most every 10 seconds, for a write. What a process knows of its account
// data it asks for again only where a sync that the store follows brings something else.
//
// [Store.History], [Store.At] and what [Store.Purge] redacts know the state alone. So [Store.Restore] is [ErrForbidden] while writes go to
// account data, where it would remove what no snapshot has. Once the memory has moved, it removes that too, and a snapshot from after the move
// brings it back. [Store.Watch] tells what this process changes in account data too, but cannot begin at the revision of such a change, and a
// slow loop is not told each of them. [Store.CompareAndPut] cannot compare with such a revision once the memory has moved. [Copy] and
// [Store.Import] read and write both, and ask for account data anew whenever they compare; [CopyRedactSource] redacts nothing while account data
// has something. [WithRedaction] redacts what account data no longer refers to. [WithSingleWriter] changes nothing beside this option.
// [WithRoomUpgrades] does not follow a room with memory in account data, nor to a room where the client lacks the power to write the state
// that it should move: writes are [ErrRoomUpgraded], and reads go on in the old room.
func WithAccountDataFallback() Option {
	return func(s *settings) { s.fallback = true }
}
