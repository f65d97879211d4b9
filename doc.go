// Package roomkv is a key/value store for Matrix bots, kept in the state of Matrix rooms.
//
// A bot needs memory: scores, reminders, settings, room by room. The homeserver it already talks to stores state and
// replicates it, so that is where a [Store] keeps it. The store wraps a [mautrix.Client] that is logged in, and works
// in any room that the bot is in and may send state to, and with [WithAccountDataFallback] in any that it is in.
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
// changes them at once, and all of it must fit into 64 KiB, but for large values. [WithPerKeyState] gives each key an event of
// its own, and several keys do not change at once.
//
// Values that do not fit into an event are encrypted attachments in the homeserver's media repository, up to its upload
// limit. Whoever can read the reference to one can read it; the homeserver can delete it, and roomkv cannot.
//
// # Values and keys
//
// A value is whatever encoding/json can encode without loss, and comes back exactly. Where a Matrix event cannot hold it as it is,
// because somewhere in it there is a float or a large integer for example, the whole value is stored as its JSON
// text. A key is any valid UTF-8 string.
//
// Values and key names are state: whoever is in the room can read them, and whoever may send state can write them. In an
// encrypted room the homeserver cannot read the values.
//
// # Many writers
//
// All methods are safe for concurrent use, by goroutines and by processes: any number of them may write to one memory
// at once. What was acknowledged stays until somebody changes that same key. Writes of one process that wait for each
// other share a state event. After its event a writer looks for others that were sent at the same time, and merges
// what it finds, key by key; a field in the event, roomkv.parents, names what its writer had merged. Of two Puts of
// one key at the same time the later one counts, by the homeservers' clocks.
//
// A Get followed by a Put is not atomic. [Update] is, and [Store.Create] and [Store.CompareAndPut] have one winner, across
// processes too: the one whose event the homeserver stored first. Synapse and Dendrite tell that where there are rivals;
// of another homeserver it is believed that it lists events in that order.
//
// For a moment after a write, others that do not follow can read the memory without what was written at the same
// time. A writer that dies in that moment leaves it so until the next write to the memory, or until a store that
// follows repairs it.
//
// # Two homeservers
//
// On one homeserver all this holds, within the limits that docs/guarantees.md gives. Bots on different homeservers learn of
// each other's writes after they were acknowledged. Puts of different keys are all kept: a store that follows merges
// them as soon as they arrive, others at their next write. While two homeservers cannot reach each other, each side
// goes on by itself: two Creates, CompareAndPuts, Pops or Updates of one key can both succeed, one on each side, and when
// the sides meet one of the two values counts. No value that was put under another key is lost.
//
// # Following
//
// With [Store.Follow] the client's own sync feeds the store: a Get takes no request, a Put one, and [Store.Watch]
// tells what changes. With [WithSingleWriter] a Put takes one request without a sync. For the client of a bridge, which does not sync,
// [Store.FollowEvents] stands in the place of Follow.
//
// # Values that expire, and replicas
//
// A value that is put with [ExpireAfter] expires, by the homeserver's clock. If several processes of one bot get the same events, [Store.Once] says to one of them that
// it is to deal with an event, and [Store.Lease] lets one process at a time do something.
//
// # What operations take
//
// [WithObserver] tells of each operation how long it took, its requests, retries and merges, and what kind of error it had; the module in examples/otel
// makes metrics and spans of that.
//
// # Tests
//
// Package roomkvtest has a homeserver in memory for the tests of a bot. The examples here run on it.
//
// # Rate limits
//
// While the homeserver limits the account, writes wait and rooms take turns. With [WithFlushEvery] nobody waits for that: writes are done in memory and
// sent together, and [Store.Flush] sends what is left.
//
// # Over the years
//
// The homeserver keeps what was: [Store.History] gives a key's revisions, [Store.At] the whole memory as it was at a moment, and
// [Store.Restore] makes it that again. [Store.Purge] takes a key's values out of what was. [Store.Export] writes the memory to a
// file, and [Store.Import] brings one back.
//
// [Copy] takes a memory to another room, layout, event type or account, from opsdroid's too. A room that was upgraded is not
// written any more ([ErrRoomUpgraded]), unless [WithRoomUpgrades] follows it with the memory.
//
// # Encryption
//
// State events are not encrypted, not even in encrypted rooms. There a value goes into a Megolm event of the room, and the
// state has the event's ID, as with opsdroid. The client needs a Crypto, mautrix's cryptohelper for example, without which
// nothing is written into an encrypted room; [WithEncryption] tells how the store learns that a room is one. Values that share a state event share an
// encrypted one while they fit. Whoever can read the room's messages can read its values: the room's other members, the
// bot's other devices. [Entry] tells who encrypted a value and how far the device was trusted, and [WithMinTrust] asks for more.
//
// The names of keys stay in the clear unless [WithSealedKeys] hides them. Values that were overwritten stay in the room's
// history unless [WithRedaction] takes them out.
//
// The keys to the values are in the client's crypto store. Where they are lost, each value is [ErrUndecryptable]; nothing
// else changes, and the values can be read again once the keys are back. Package keybackup keeps them in the account's
// key backup, from which they come back by themselves; see [WithKeyBackup].
package roomkv
