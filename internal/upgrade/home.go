// Package upgrade follows rooms that were upgraded: it finds the room where a memory is by now, moves it there, and keeps writes out of rooms that
// were replaced.
package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
)

// maxUpgrades is how many upgrades of one room are followed. Two rooms can name each other.
const maxUpgrades = 100

// Find is the room where the memory is now, after any number of upgrades, with the memory moved there. Where a replacement
// cannot be used, it is the last room that can, and dead says why.
func (r Home) Find(ctx context.Context) (Home, error) {
	for range maxUpgrades {
		next, failed := r.rooms.of(r.ID).entered, error(nil)
		if next == "" {
			stone, err := r.tombstone(ctx, r.Policy.AnswerFor)
			if err != nil {
				return r, err
			}
			if stone != nil {
				next, failed = stone.replacement, r.enter(ctx, stone)
			}
			if stone == nil || failed != nil {
				home, err := r.settled(ctx, maxUpgrades)
				home.dead = cmp.Or(failed, home.dead)
				return home, cmp.Or(ctx.Err(), err)
			}
		}
		r = r.in(next)
	}
	return r, fault.Of(fault.ErrRoomUpgraded, nil, "%s is the last of %d rooms that were each replaced by the next", r.ID, maxUpgrades)
}

// enter joins the room's replacement, and finds out whether it is that.
func (r Home) enter(ctx context.Context, stone *tombstone) error {
	unlock, err := r.lockHome(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	about := r.rooms.of(r.ID)
	if about.entered == stone.replacement {
		return nil
	}
	if err := about.failed.of(stone); err != nil {
		return err
	}
	err = r.join(ctx, stone)
	if err == nil {
		r.rooms.in(r.ID, func(about *upgrade) { about.entered, about.failed = stone.replacement, failure{} })
		return nil
	}
	none := errors.Is(err, errNoReplacement)
	err = r.replaced(stone.replacement, err)
	if none || ctx.Err() == nil {
		r.rooms.fail(r.Room, stone, err, none)
	}
	return err
}

// lockHome lets one goroutine of an account at a time enter the room's replacement, or move its predecessors' memory.
func (r Home) lockHome(ctx context.Context) (unlock func(), err error) {
	return commit.Lock(ctx, commit.Address{Room: r.ID, Type: event.StateCreate.Type, StateKey: r.Client.UserID.String()})
}

// errNoReplacement is beneath the error of a room that does not name the one as its predecessor that names it as its replacement.
var errNoReplacement = errors.New("no replacement")

// replaced is the error of what would be written to a room whose replacement cannot be used.
func (r Home) replaced(by id.RoomID, why error) error {
	return fault.Of(fault.ErrRoomUpgraded, why, "%s was replaced by %s, to which the store cannot move, so nothing was written: %s",
		r.ID, by, strings.TrimPrefix(why.Error(), "roomkv: "))
}

// join joins the replacement, and leaves it again where it is none: a tombstone can name any room, and a room any predecessor,
// but only an upgrade makes each name the other.
func (r Home) join(ctx context.Context, stone *tombstone) error {
	next := r.in(stone.replacement)
	joined := false
	if next.HasLeft(ctx) {
		// Once, for who may not join now is not going to wait for it.
		if err := next.Enter(mautrix.WithMaxRetries(ctx, 0), stone.sender.Homeserver()); err != nil {
			return next.Explain(ctx, "join", err)
		}
		joined = true
	}
	create, err := next.created(ctx)
	if err == nil && create.predecessor != r.ID {
		err = fault.Of(fault.ErrRoomUpgraded, errNoReplacement, "that room does not name %s as its predecessor", r.ID)
	}
	if err != nil && joined && ctx.Err() == nil {
		if failed := next.Leave(ctx); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// creation is how a room began.
type creation struct {
	sender      id.UserID
	time        int64     // Unix milliseconds
	predecessor id.RoomID // empty where there is none
}

// created asks once, for a room's first event does not change.
func (r Home) created(ctx context.Context) (creation, error) {
	if known := r.rooms.of(r.ID).created; known != nil {
		return *known, nil
	}
	evt, err := r.State(ctx, event.StateCreate, "")
	if err == nil && evt == nil {
		err = fault.Of(fault.ErrCorrupt, nil, "%s has no %s event", r.ID, event.StateCreate.Type)
	}
	if err != nil {
		return creation{}, err
	}
	create := creation{sender: evt.Sender, time: evt.Time}
	var content event.CreateEventContent
	if json.Unmarshal(evt.Content, &content) == nil { // else it is somebody else's idea of a room, which replaces none
		create.predecessor = content.GetPredecessor().RoomID
	}
	r.rooms.in(r.ID, func(about *upgrade) { about.created = &create })
	return create, nil
}

// settled makes sure that the memory is in the room that its predecessors had, the oldest first. Where it cannot be moved on, it
// gives the room that has it, and dead says why.
func (r Home) settled(ctx context.Context, most int) (Home, error) {
	if most == 0 || r.rooms.of(r.ID).moved {
		return r, nil
	}
	next, err := r.predecessor(ctx)
	if err != nil || next == nil {
		return r, err
	}
	old, err := next.old.settled(ctx, most-1)
	if err == nil && old.dead == nil {
		old.dead = next.once(ctx)
	}
	if err != nil || old.dead != nil {
		return old, cmp.Or(ctx.Err(), err)
	}
	return r, nil
}

// predecessor is the migration from the room that this one replaces, nil where there is none, or none yet.
func (r Home) predecessor(ctx context.Context) (*migration, error) {
	create, err := r.created(ctx)
	if err != nil {
		return nil, err
	}
	old := r.in(create.predecessor)
	var stone *tombstone
	if old.ID != "" {
		stone, err = old.tombstone(ctx, r.Policy.AnswerFor)
	}
	switch {
	case old.ID == "", errors.Is(err, fault.ErrNotJoined), errors.Is(err, fault.ErrForbidden): // nothing can be read there
		r.rooms.in(r.ID, func(about *upgrade) { about.moved = true })
		return nil, nil
	case err != nil || stone == nil || stone.replacement != r.ID: // not yet, while the room is being upgraded
		return nil, err
	}
	return &migration{Home: r, old: old, stone: stone, create: create}, nil
}
