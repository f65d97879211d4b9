package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/keybackup"
)

// serve keeps a homeserver up until ctx ends, with a bot, two rooms and an encrypted one. What it prints is for a shell,
// in which the command of examples/roomkv then works.
func serve(ctx context.Context) (err error) {
	server, err := homeserver.FromEnv(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	bot, user, err := accounts(ctx, server)
	if err != nil {
		return err
	}
	password := os.Getenv(envPassword)
	if os.Getenv(envUser) == "" {
		if password, err = server.Password(bot.UserID); err != nil {
			return err
		}
	}
	lobby, err := newRoom(ctx, bot, user, "Lobby")
	if err != nil {
		return err
	}
	arena, err := newRoom(ctx, bot, user, "Arena")
	if err != nil {
		return err
	}
	vault, err := newVault(ctx, bot)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, leaveRoom(bot, vault), leave(bot, user, lobby, arena))
	}()
	logins, err := os.MkdirTemp("", "roomkv-logins-") // so that the command keeps nothing among your own logins
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logins)) }()

	fmt.Println("# Until Ctrl-C here; paste this into another terminal:")
	export(homeserver.EnvURL, server.URL)
	export(envUser, bot.UserID)
	export(envPassword, password)
	export("ROOMKV_CONFIG_DIR", logins)
	export("ROOMKV_ROOM", lobby)
	export("ARENA", arena)
	export("VAULT", vault)
	if os.Getenv(envUser) == "" { // an account of yours keeps the backup that it has
		device, helper, err := newDevice(ctx, server, bot)
		if err != nil {
			return err
		}
		recoveryKey, _, err := keybackup.SetUp(ctx, helper.Machine(), "")
		if err != nil {
			return err
		}
		if _, err := device.Logout(ctx); err != nil {
			return err
		}
		export("ROOMKV_RECOVERY_KEY", recoveryKey)
	}
	<-ctx.Done()
	return nil
}

func export(name string, value any) { fmt.Printf("export %s='%s'\n", name, value) }
