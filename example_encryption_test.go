package roomkv_test

import (
	"context"
	"fmt"
	"log"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/keybackup"
	"github.com/roomkv/roomkv/roomkvtest"
)

// encryption gives a client the keys of a new device. A program gives NewCryptoHelper the name of a file, such as "crypto.db", which keeps them.
func encryption(ctx context.Context, client *mautrix.Client) *crypto.OlmMachine {
	client.StateStore = mautrix.NewMemoryStateStore()
	helper, err := cryptohelper.NewCryptoHelper(client, []byte("pickle key"), crypto.NewMemoryStore(nil))
	if err != nil {
		log.Fatal(err)
	}
	if err := helper.Init(ctx); err != nil {
		log.Fatal(err)
	}
	client.Crypto = helper
	return helper.Machine()
}

// A value in an encrypted room, and a new device that reads it by the account's key backup. Package session does all this by itself.
func ExampleWithKeyBackup() {
	ctx := context.Background()
	server := roomkvtest.New(nil, roomkvtest.Linear)
	client := server.Client("bot")
	room := server.EncryptedRoom(client)

	recoveryKey, backup, err := keybackup.SetUp(ctx, encryption(ctx, client), "")
	if err != nil {
		log.Fatal(err)
	}
	store, err := roomkv.New(client, room.String(), roomkv.WithKeyBackup(backup))
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "greeting", "Hello!"); err != nil {
		log.Fatal(err)
	}

	// Later the device and its keys are lost. The recovery key and the password are not.
	client = server.Client("bot")
	backup, err = keybackup.Open(ctx, encryption(ctx, client), recoveryKey)
	if err != nil {
		log.Fatal(err)
	}
	store, err = roomkv.New(client, room.String(), roomkv.WithKeyBackup(backup))
	if err != nil {
		log.Fatal(err)
	}
	entry, err := store.Entry(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s encrypted: %t\n", entry.Value, entry.Encrypted)
	// Output:
	// "Hello!" encrypted: true
}
