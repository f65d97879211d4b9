package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver"
)

const (
	envUser     = "ROOMKV_USER" // a user ID or its localpart
	envPassword = "ROOMKV_PASSWORD"
)

// accounts logs in as the bot and as somebody who writes to it. The bot is ROOMKV_USER where that is set, else a
// new user. Where the homeserver lets nobody register, a second device of the bot's account writes to it.
func accounts(ctx context.Context, server *homeserver.Server) (bot, user *mautrix.Client, err error) {
	name, password := os.Getenv(envUser), os.Getenv(envPassword)
	if name == "" {
		if bot, err = server.Register(ctx, "bot"); err != nil {
			return nil, nil, fmt.Errorf("%w; set %s and %s to use an account that there is", err, envUser, envPassword)
		}
	} else if bot, err = server.Login(ctx, name, password); err != nil {
		return nil, nil, fmt.Errorf("%w; see %s and %s", err, envUser, envPassword)
	}
	if user, err = server.Register(ctx, "user"); err != nil && name != "" {
		user, err = server.Login(ctx, name, password)
	}
	return bot, user, err
}

// newRoom makes a private room with both in it.
func newRoom(ctx context.Context, bot, user *mautrix.Client, name string) (id.RoomID, error) {
	req := &mautrix.ReqCreateRoom{Preset: "private_chat", Name: name}
	if user.UserID != bot.UserID {
		req.Invite = []id.UserID{user.UserID}
	}
	room, err := bot.CreateRoom(ctx, req)
	if err != nil {
		return "", fmt.Errorf("creating the room %s: %w", name, err)
	}
	if _, err := user.JoinRoomByID(ctx, room.RoomID); err != nil {
		return "", fmt.Errorf("joining the room %s: %w", name, err)
	}
	return room.RoomID, nil
}

// leave cleans up on a homeserver that is not ours, also after an interruption: the rooms are left and forgotten,
// and the devices are logged out.
func leave(bot, user *mautrix.Client, rooms ...id.RoomID) (err error) {
	for _, client := range []*mautrix.Client{user, bot} {
		for _, room := range rooms {
			if client == bot || user.UserID != bot.UserID {
				err = errors.Join(err, leaveRoom(client, room))
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, client := range []*mautrix.Client{user, bot} {
		_, logoutErr := client.Logout(ctx)
		err = errors.Join(err, logoutErr)
	}
	return err
}

func leaveRoom(client *mautrix.Client, room id.RoomID) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, leaveErr := client.LeaveRoom(ctx, room)
	_, forgetErr := client.ForgetRoom(ctx, room)
	return errors.Join(leaveErr, forgetErr)
}

// skipHistory makes the sync loop begin now.
func skipHistory(ctx context.Context, client *mautrix.Client) error {
	now, err := client.SyncRequest(ctx, 0, "", "", false, "")
	if err != nil {
		return err
	}
	return client.Store.SaveNextBatch(ctx, client.UserID, now.NextBatch)
}
