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

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
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

// World is a homeserver, with the crews of earlier runs. Its methods are safe for concurrent use.
type World struct {
	Homeserver

	mu   sync.Mutex
	idle map[needs][]*crew
	runs int
}

// needs are what a run's crew depends on.
type needs struct {
	devices    int // one a process, and one that reads
	oneAccount bool
	encrypted  bool
}

// crew is a room with devices in it. A crew serves one run after the other, each with a memory of an event type of its own: to make a room and
// its members takes longer than a short run.
type crew struct {
	needs
	room    id.RoomID
	members []*member
	runs    int
}

// member is a device. Each run has a client of its own for it.
type member struct {
	client *mautrix.Client
	crypto *hstest.CryptoStore // nil without encryption
}

// maxRuns is how many runs a crew serves: the room's state has an event of each.
const maxRuns = 20

// hire gives a crew that no other run has until dismiss, and an event type that no other run has.
func (w *World) hire(ctx context.Context, n needs) (*crew, string, error) {
	w.mu.Lock()
	w.runs++
	eventType := fmt.Sprintf("dev.roomkv.load%d", w.runs)
	if idle := w.idle[n]; len(idle) > 0 {
		c := idle[len(idle)-1]
		w.idle[n] = idle[:len(idle)-1]
		w.mu.Unlock()
		return c, eventType, nil
	}
	w.mu.Unlock()
	c, err := w.newCrew(ctx, n)
	return c, eventType, err
}

func (w *World) dismiss(c *crew) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.runs++; c.runs >= maxRuns {
		return
	}
	if w.idle == nil {
		w.idle = map[needs][]*crew{}
	}
	w.idle[c.needs] = append(w.idle[c.needs], c)
}

func (w *World) newCrew(ctx context.Context, n needs) (*crew, error) {
	c := &crew{needs: n}
	for i := range n.devices {
		var client *mautrix.Client
		var err error
		if i > 0 && n.oneAccount || i > 0 && i == n.devices-1 {
			client, err = w.NewDevice(ctx, c.members[0].client.UserID)
		} else {
			client, err = w.Register(ctx, "load")
		}
		if err != nil {
			return nil, err
		}
		member := &member{client: client}
		if n.encrypted {
			member.crypto = hstest.NewCryptoStore()
		}
		c.members = append(c.members, member)
	}
	return c, c.makeRoom(ctx)
}

// makeRoom makes a room that each member is in and may send state to.
func (c *crew) makeRoom(ctx context.Context) error {
	req := &mautrix.ReqCreateRoom{Preset: "private_chat", PowerLevelOverride: &event.PowerLevelsEventContent{UsersDefault: 50}}
	if c.encrypted {
		req.InitialState = []*event.Event{{
			Type:    event.StateEncryption,
			Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}}
	}
	owner := c.members[0].client
	var others []*mautrix.Client
	for _, member := range c.members {
		if member.client.UserID != owner.UserID {
			others = append(others, member.client)
			req.Invite = append(req.Invite, member.client.UserID)
		}
	}
	made, err := owner.CreateRoom(ctx, req)
	if err != nil {
		return fmt.Errorf("creating a room: %w", err)
	}
	c.room = made.RoomID
	for _, client := range others {
		if _, err := client.JoinRoomByID(ctx, c.room); err != nil {
			return fmt.Errorf("joining a room: %w", err)
		}
	}
	return nil
}
