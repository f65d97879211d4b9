// Package session signs a Matrix bot in, keeps it signed in, sets up its encryption, and runs it.
//
//	bot, err := session.Open(ctx, session.Config{Homeserver: "example.org", User: "bot", Password: pw, RecoveryKey: key, Dir: "data"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer bot.Close()
//	store, err := bot.Store("#bots:example.org")
//	if err != nil {
//		log.Fatal(err)
//	}
//	bot.OnMessage(store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) { … }))
//	if err := bot.Run(ctx); err != nil {
//		log.Fatal(err)
//	}
//
// [Bot.Client] is an ordinary [mautrix.Client], and nothing of mautrix is hidden: what this package does not offer is done with the client.
//
// What the bot keeps is in one folder, [Config.Dir]: its access token, its encryption keys, and how far it has read. Only the folder's owner can read
// it. A bot without a folder makes a new device at each start, and needs its password and its recovery key.
//
// The package needs the build tag goolm, or libolm and cgo. Its SQLite is in Go.
package session
