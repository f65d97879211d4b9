package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/keybackup"
)

// encrypt shows a memory in an encrypted room, which survives the loss of the bot's crypto store.
func encrypt(ctx context.Context, server *homeserver.Server, bot *mautrix.Client) (err error) {
	heading("An encrypted room, with sealed keys")
	device, helper, err := newDevice(ctx, server, bot)
	if err != nil {
		return err
	}
	room, err := newVault(ctx, device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leaveRoom(bot, room)) }()

	sealed := roomkv.WithSealedKeys([]byte(rand.Text())) // a bot keeps the secret with its password
	options := []roomkv.Option{sealed}
	var recoveryKey string
	if os.Getenv(envUser) == "" { // an account of yours keeps the backup that it has
		var backup *keybackup.Backup
		if recoveryKey, backup, err = keybackup.SetUp(ctx, helper.Machine(), ""); err != nil {
			return err
		}
		options = append(options, roomkv.WithKeyBackup(backup))
	}
	store, err := roomkv.New(device, room.String(), options...)
	if err != nil {
		return err
	}
	if err := store.PutAll(ctx, map[string]any{"combination": "12-34-56", "owner": "Alice"}); err != nil {
		return err
	}
	if err := printAll(ctx, store); err != nil {
		return err
	}
	fmt.Println("  what the homeserver holds:")
	if err := printState(ctx, device, room, roomkv.DefaultEventType, ""); err != nil {
		return err
	}

	heading("The device is lost, and its crypto store with it")
	if _, err := device.Logout(ctx); err != nil {
		return err
	}
	device, helper, err = newDevice(ctx, server, bot)
	if err != nil {
		return err
	}
	defer func() {
		_, logoutErr := device.Logout(context.WithoutCancel(ctx))
		err = errors.Join(err, logoutErr)
	}()
	lost, err := roomkv.New(device, room.String(), sealed, roomkv.WithKeyWait(0))
	if err != nil {
		return err
	}
	_, err = roomkv.Get[string](ctx, lost, "combination")
	fmt.Printf("  without the key backup → %v\n", err)
	if !errors.Is(err, roomkv.ErrUndecryptable) {
		return fmt.Errorf("a value without its key can be read: %w", err)
	}
	if recoveryKey == "" {
		return nil
	}
	backup, err := keybackup.Open(ctx, helper.Machine(), recoveryKey)
	if err != nil {
		return err
	}
	found, err := roomkv.New(device, room.String(), sealed, roomkv.WithKeyBackup(backup))
	if err != nil {
		return err
	}
	fmt.Println("  with it:")
	return printAll(ctx, found)
}

// newVault makes an encrypted room.
func newVault(ctx context.Context, client *mautrix.Client) (id.RoomID, error) {
	room, err := client.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", Name: "Vault",
		InitialState: []*event.Event{{
			Type:    event.StateEncryption,
			Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}},
	})
	if err != nil {
		return "", fmt.Errorf("creating the room Vault: %w", err)
	}
	return room.RoomID, nil
}

// newDevice logs the bot in once more, with encryption. A bot that lives longer gives NewCryptoHelper the name of a file
// instead of a store in memory.
func newDevice(ctx context.Context, server *homeserver.Server, bot *mautrix.Client) (*mautrix.Client, *cryptohelper.CryptoHelper, error) {
	var device *mautrix.Client
	var err error
	if name := os.Getenv(envUser); name != "" {
		device, err = server.Login(ctx, name, os.Getenv(envPassword))
	} else {
		device, err = server.NewDevice(ctx, bot.UserID)
	}
	if err != nil {
		return nil, nil, err
	}
	device.StateStore = mautrix.NewMemoryStateStore()
	helper, err := cryptohelper.NewCryptoHelper(device, []byte(rand.Text()), crypto.NewMemoryStore(nil))
	if err != nil {
		return nil, nil, err
	}
	if err := helper.Init(ctx); err != nil {
		return nil, nil, err
	}
	device.Crypto = helper
	return device, helper, nil
}

func printAll(ctx context.Context, store *roomkv.Store) error {
	for entry, err := range store.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Printf("  %-11s = %s (encrypted: %v, trust: %s)\n", entry.Key, entry.Value, entry.Encrypted, entry.Trust)
	}
	return nil
}
