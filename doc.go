// Package roomkv is a key/value store for Matrix bots, kept in the state of Matrix rooms.
//
// A bot needs memory: scores, reminders, settings, room by room. The homeserver it already talks to stores
// state and replicates it, so that is where a [Store] keeps it. The store wraps a [mautrix.Client] that is
// logged in and works in any room that the bot is in and may send state to. It reads and writes the data of
// opsdroid's Matrix database.
//
//	store, err := roomkv.New(client, "!room:example.org")
//	err = store.Put(ctx, "greeting", "Hello!")
//	greeting, err := roomkv.Get[string](ctx, store, "greeting")
//
// # Rooms
//
// A store is of one room, and scoping is a value: [Store.WithRoom] returns the store of another room, and
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
// A value is what encoding/json can encode, and comes back exactly: what a Matrix event cannot hold, floats and
// large integers for example, is stored as its JSON text, and everything else as it is, for people to read. Values
// are state, and so is every key's name: whoever is in the room can read them, and whoever may send state
// can write them. A key is any string.
//
// # Concurrency
//
// All methods are safe for concurrent use, and no write of this process is lost, however many goroutines and
// stores write. Several processes that write one dict at the same time overwrite each other.
//
// # Encryption
//
// State events are not encrypted, in encrypted rooms neither. This version cannot encrypt values, and writes none
// into an encrypted room unless [WithEncryption] allows it.
package roomkv
