// Package roomkvtest has a Matrix homeserver in memory, so that the author of a bot can test it without a real one. It needs no network, starts at once,
// and each test has a server of its own. It works in the virtual time of [testing/synctest] too, where an hour takes no time.
//
//	func TestBot(t *testing.T) {
//		server := roomkvtest.New(t, roomkvtest.Linear)
//		bot, alice := server.Client("bot"), server.Client("alice")
//		room := server.Room(bot, alice)
//		...                       // register the bot's handlers
//		server.Sync(bot)          // until the test ends
//		...                       // alice says something
//		server.Settle(bot)        // the handlers have returned
//		...                       // what does the store have?
//	}
//
// # It is a fake
//
// The server imitates what a bot with a memory meets: accounts and devices, rooms, their state and messages, power levels, invites, and syncs with filters.
// It has account data, media, keys of devices, key backups, redactions and room upgrades too. It has two modes, because homeservers differ where
// several processes write at once:
//
//   - [Linear] is what Dendrite 0.15.2 does. A user's writes to a room come one after the other, and those of two users can fork. What was acknowledged is
//     in lists and in the sync 3 milliseconds later.
//   - [Forking] is what Synapse 1.160 does. Writes at once fork, whoever sends them, and state resolution picks the current one.
//
// In both each event takes a millisecond. A writer whose power is taken while its event is on its way loses that event.
//
// It does not imitate federation, hashes and signatures of events, search, or an administrator's API. It accepts presence, typing and receipts, and forgets
// them. It has no rate limits, and knows only those push rules that notify of messages. State resolution leaves the auth difference out. A
// request that it does not know fails the test, so that no test passes by accident.
//
// # What stands behind it
//
// roomkv's own tests run on the same server. Their table of conformance has some 250 behaviours of homeservers and of roomkv. It runs on servers that [New]
// has made, in both modes, and the same rows run on a real Dendrite and on a real Synapse. So a row fails where the fake differs from them.
//
// The package imports no encryption. A client of [Server.Client] is a plain mautrix client, and takes a cryptohelper as any other does.
package roomkvtest
