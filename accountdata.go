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
// Account data lies over the state: what is there hides what the state has under the same key. When the client has got the power, the
// memory moves into the state. Where somebody has changed a key in the state later than that key was put in account data, the state's value counts.
//
// Account data is private: only the user's own clients and the homeserver can read it. In an encrypted room the values are in Megolm
// events all the same. Account data has no history, and nothing merges what two processes write there: the later one undoes the other.
// So only one process of the account may write in such rooms, which is not checked. In that process any number of goroutines and stores may.
//
// In all layouts account data is one dict of 64 KiB for each room, from which large values are moved out; see [WithMaxValue]. A write that does not fit
// is [ErrTooLarge].
//
// [Store.History], [Store.At] and what [Store.Purge] redacts know the state alone. So [Store.Restore] is [ErrForbidden] while writes go to
// account data. docs/operations.md in the repository tells what other methods do, and docs/performance.md how many requests the option takes.
func WithAccountDataFallback() Option {
	return func(s *settings) { s.fallback = true }
}
