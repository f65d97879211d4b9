// Package roomkv is a key/value store for Matrix bots, kept in the state of Matrix rooms.
//
// A bot needs memory: scores, reminders, settings, room by room. The homeserver it already talks to stores
// state and replicates it, so that is where a [Store] keeps it. The store wraps a [mautrix.Client] that is
// logged in, and works in any room that the bot is in and may send state to.
//
//	store, err := roomkv.New(client, "!room:example.org")
//	err = store.Put(ctx, "greeting", "Hello!")
//	greeting, err := roomkv.Get[string](ctx, store, "greeting")
//
// With [WithEventType]("dev.opsdroid.database") it reads and writes the data of opsdroid's Matrix database.
//
// # Rooms
//
// A Store works on one room. [Store.WithRoom] returns the store of another room and changes nothing else, and
// [Store.InEventRoom] hands an event handler the store of the event's room, which [FromContext] finds too.
//
// # Layouts
//
// By default the whole memory of a room is a dict in one state event: one request reads any number of keys, one
// changes them at once, and all of it must fit into 64 KiB. [WithPerKeyState] gives each key an event of its own:
// each value has 64 KiB, and several keys do not change at once.
//
// # Values and keys
//
// A value is whatever encoding/json can encode, and comes back exactly. Where a Matrix event cannot hold it as it
// is, because somewhere in it there is a float or a large integer for example, the whole value is stored as its JSON
// text. A key is any valid UTF-8 string.
//
// Values and key names are state: whoever is in the room can read them, and whoever may send state can write them.
//
// # Concurrency
//
// All methods are safe for concurrent use, and each is atomic by itself within this process: no Put is lost, however
// many goroutines and stores write. A Get followed by a Put is not atomic. Two handlers that run at once and both
// increment a counter can lose an increment; mautrix's default syncer runs one handler at a time, elsewhere hold
// a lock of your own.
//
// Processes that write the same state event at the same time can lose each other's writes. With [WithPerKeyState] that
// takes a Put of the same key, by default any Put.
//
// # Encryption
//
// State events are not encrypted, not even in encrypted rooms. This version cannot encrypt values, and refuses to
// write them into an encrypted room unless [WithEncryption] allows it.
package roomkv
