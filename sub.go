package roomkv

// Sub returns a store of those keys that begin with prefix, which its methods take and give without it: with Sub("score/"), Put("alice") writes
// "score/alice". So each part of a bot can have keys of its own. The store it is called on stays as it is. A Sub of a Sub has both prefixes,
// and [Store.WithRoom] and [Store.InEventRoom] keep them.
//
// All methods touch those keys only, [Store.Restore] and [Store.Import] with [ImportReplace] too, and [Copy] takes a memory from one prefix to
// another. [CopyRedactSource] fails with [ErrInvalidOption], for it redacts state events that can have other keys too. Texts of errors name
// keys with the prefix.
//
// It takes the requests of the whole memory, also where few keys have the prefix. With [WithSealedKeys] the prefix is sealed with the key, and what
// lists keys reads all values to find those with the prefix. A prefix that is not valid UTF-8 is [ErrInvalidKey] when the store is used.
func (s *Store) Sub(prefix string) *Store {
	sub := &Store{core: s.core, room: s.room, prefix: s.prefix.with(prefix)}
	sub.opened.Store(s.opened.Load())
	return sub
}
