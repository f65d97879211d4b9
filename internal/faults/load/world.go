// Package load lets many processes write to one memory while faults befall them, and tells by rules of its own, which know nothing of how
// roomkv works, whether what was acknowledged is there.
package load

import (
	"context"
	"fmt"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Homeserver makes the clients of a load. internal/homeserver's Server is one. A client brings the transport that its homeserver needs.
type Homeserver interface {
	Register(ctx context.Context, prefix string) (*mautrix.Client, error)
	NewDevice(ctx context.Context, user id.UserID) (*mautrix.Client, error)
}

// Killer is a homeserver that can be killed and started again, on what it had stored.
type Killer interface {
	Kill() error
	Restart(ctx context.Context) error
}

// World is a homeserver and the accounts that were registered there for earlier runs. Its methods are safe for concurrent use.
type World struct {
	Homeserver

	mu    sync.Mutex
	spare []id.UserID
}

// accounts gives a client each of so many accounts that no other run uses until release.
func (w *World) accounts(ctx context.Context, n int) (clients []*mautrix.Client, err error) {
	for range n {
		var client *mautrix.Client
		if user := w.take(); user != "" {
			client, err = w.NewDevice(ctx, user)
		} else {
			client, err = w.Register(ctx, "load")
		}
		if err != nil {
			return nil, err
		}
		clients = append(clients, client)
	}
	return clients, nil
}

func (w *World) take() id.UserID {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.spare) == 0 {
		return ""
	}
	user := w.spare[len(w.spare)-1]
	w.spare = w.spare[:len(w.spare)-1]
	return user
}

func (w *World) release(clients []*mautrix.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, client := range clients {
		w.spare = append(w.spare, client.UserID)
	}
}

// makeRoom makes a room that each client's user is in and may send state to.
func makeRoom(ctx context.Context, encrypted bool, clients []*mautrix.Client) (id.RoomID, error) {
	req := &mautrix.ReqCreateRoom{Preset: "private_chat", PowerLevelOverride: &event.PowerLevelsEventContent{UsersDefault: 50}}
	if encrypted {
		req.InitialState = []*event.Event{{
			Type:    event.StateEncryption,
			Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}}
	}
	for _, client := range clients[1:] {
		req.Invite = append(req.Invite, client.UserID)
	}
	made, err := clients[0].CreateRoom(ctx, req)
	if err != nil {
		return "", fmt.Errorf("creating a room: %w", err)
	}
	for _, client := range clients[1:] {
		if _, err := client.JoinRoomByID(ctx, made.RoomID); err != nil {
			return "", fmt.Errorf("joining a room: %w", err)
		}
	}
	return made.RoomID, nil
}
