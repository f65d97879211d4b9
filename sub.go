package roomkv

// Sub returns a store of the keys that begin with prefix, which its methods take and give without it: with Sub("score/"), Put("alice") writes
// "score/alice". The store itself stays as it is. A Sub of a Sub has both prefixes, and [Store.WithRoom] and [Store.InEventRoom] keep them.
//
// No method touches other keys, so that [CopyRedactSource], which redacts state events, is [ErrInvalidOption]. Texts of errors name keys with
// the prefix. A Sub takes the requests of the whole memory. [WithSealedKeys] seals the prefix with the key, so that lists read all values. A prefix
// that is not valid UTF-8 is [ErrInvalidKey] when the store is used.
func (s *Store) Sub(prefix string) *Store {
	sub := &Store{core: s.core, room: s.room, prefix: s.prefix.with(prefix)}
	sub.opened.Store(s.opened.Load())
	return sub
}
