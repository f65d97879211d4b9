package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// maxUpgrades is how many upgrades of one room are followed. Two rooms can name each other.
const maxUpgrades = 100

// write does what changes the memory, and does it again in the room's replacement where the room was upgraded meanwhile.
func (s *Store) write(ctx context.Context, keys []string, do func(state roomState) error) error {
	written := false
	for {
		state, err := s.state(ctx, keys...)
		if err == nil {
			err = do(state)
		}
		again := s.core.followUpgrades && (errors.Is(err, errMeanwhile) || errors.Is(err, errWritten))
		if again {
			written = written || errors.Is(err, errWritten)
			continue
		}
		if written && err != nil {
			return fault.Of(ErrRoomUpgraded, err, "it is not known whether the write was done before the memory was moved from the old room, for it cannot be done again: %s",
				strings.TrimPrefix(err.Error(), "roomkv: "))
		}
		return err
	}
}

// guard is a memory that is written only where that counts: in a room that was not upgraded.
type guard struct {
	memory.Memory
	room roomState
}

// Commit implements [memory.Memory].
func (g guard) Commit(ctx context.Context, change memory.Change) error {
	return g.room.guarded(ctx, func() error { return g.Memory.Commit(ctx, change) })
}

// Remove implements [memory.Memory].
func (g guard) Remove(ctx context.Context, names []string, done func(name string)) error {
	return g.room.guarded(ctx, func() error { return g.Memory.Remove(ctx, names, done) })
}

// guarded does a write.
func (r roomState) guarded(ctx context.Context, write func() error) error {
	if err := r.alive(ctx); err != nil {
		return err
	}
	err := write()
	if err != nil && !errors.Is(err, ErrForbidden) { // which an upgraded room's power levels can be the reason for
		return err
	}
	if upgraded := r.stillAlive(ctx); upgraded != nil {
		return upgraded
	}
	return err
}

// home is the room where the memory is now, after any number of upgrades, with the memory moved there. Where a replacement
// cannot be used, it is the last room that can, and dead says why.
func (r roomState) home(ctx context.Context) (roomState, error) {
	for range maxUpgrades {
		next := r.core.upgrades.entered(r.ID)
		if next == "" {
			stone, err := r.tombstone(ctx, askAgain)
			if err != nil {
				return r, err
			}
			if stone == nil {
				return r.settled(ctx, maxUpgrades)
			}
			if err := r.enter(ctx, stone); err != nil {
				if ctx.Err() != nil {
					return r, ctx.Err()
				}
				home, failed := r.settled(ctx, maxUpgrades)
				home.dead = err
				return home, failed
			}
			next = stone.replacement
		}
		r = r.in(next)
	}
	return r, fault.Of(ErrRoomUpgraded, nil, "%s is the last of %d rooms that were each replaced by the next", r.ID, maxUpgrades)
}

// enter joins the room's replacement, and finds out whether it is that.
func (r roomState) enter(ctx context.Context, stone *tombstone) error {
	unlock, err := r.core.upgrades.lock(ctx, r.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.core.upgrades.entered(r.ID) == stone.replacement {
		return nil
	}
	if err := r.core.upgrades.rejection(r.ID, stone); err != nil {
		return err
	}
	if err := r.core.upgrades.failure(r.ID); err != nil {
		return err
	}
	if err = r.join(ctx, stone); err == nil {
		r.core.upgrades.in(r.ID, func(about *upgrade) { about.entered, about.failed = stone.replacement, nil })
		return nil
	}
	none := errors.Is(err, errNoReplacement)
	err = r.replaced(stone.replacement, err)
	switch {
	case none:
		r.core.upgrades.reject(r.ID, stone, err)
	case ctx.Err() == nil:
		r.core.upgrades.fail(r.ID, err)
	}
	return err
}

// errNoReplacement is beneath the error of a room that does not name the one as its predecessor that names it as its replacement.
var errNoReplacement = errors.New("no replacement")

// replaced is the error of what would be written to a room whose replacement cannot be used.
func (r roomState) replaced(by id.RoomID, why error) error {
	return fault.Of(ErrRoomUpgraded, why, "%s was replaced by %s, to which the store cannot move, so nothing was written: %s",
		r.ID, by, strings.TrimPrefix(why.Error(), "roomkv: "))
}

// join joins the replacement, and leaves it again where it is none: a tombstone can name any room, and a room any predecessor,
// but only an upgrade makes each name the other.
func (r roomState) join(ctx context.Context, stone *tombstone) error {
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
		err = fault.Of(ErrRoomUpgraded, errNoReplacement, "that room does not name %s as its predecessor", r.ID)
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

func (r roomState) created(ctx context.Context) (creation, error) {
	evt, err := r.State(ctx, event.StateCreate, "")
	if err == nil && evt == nil {
		err = fault.Of(ErrCorrupt, nil, "%s has no %s event", r.ID, event.StateCreate.Type)
	}
	if err != nil {
		return creation{}, err
	}
	var content event.CreateEventContent
	if json.Unmarshal(evt.Content, &content) != nil { // somebody else's idea of a room, which replaces none
		return creation{sender: evt.Sender, time: evt.Time}, nil
	}
	return creation{evt.Sender, evt.Time, content.GetPredecessor().RoomID}, nil
}

// settled makes sure that the memory is in the room that its predecessors had. Where it cannot be moved there, it gives the room
// that has it, and dead says why.
func (r roomState) settled(ctx context.Context, most int) (roomState, error) {
	if r.core.upgrades.settled(r.ID) {
		return r, nil
	}
	unlock, err := r.core.upgrades.lock(ctx, r.ID)
	if err != nil {
		return r, err
	}
	defer unlock()
	if r.core.upgrades.settled(r.ID) {
		return r, nil
	}
	create, err := r.created(ctx)
	if err != nil {
		return r, err
	}
	if create.predecessor == "" || most == 0 {
		r.core.upgrades.settle(r.ID, true)
		return r, nil
	}
	old := r.in(create.predecessor)
	stone, err := old.tombstone(ctx, askAgain)
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case errors.Is(err, ErrNotJoined), errors.Is(err, ErrForbidden):
		r.core.upgrades.settle(r.ID, true) // nothing can be read there
		return r, nil
	case err != nil:
		return r, err
	case stone == nil || stone.replacement != r.ID:
		r.core.upgrades.settle(r.ID, false) // not yet, while the room is being upgraded
		return r, nil
	}
	if old, err = old.settled(ctx, most-1); err != nil {
		return r, err
	}
	if err = old.dead; err == nil {
		err = r.core.upgrades.failure(old.ID)
	}
	if err == nil {
		err = r.moveFrom(ctx, old, stone, create)
		switch {
		case ctx.Err() != nil:
			return r, ctx.Err()
		case err == nil:
			r.core.upgrades.settle(r.ID, true)
			return r, nil
		}
		err = old.replaced(r.ID, err)
		r.core.upgrades.fail(old.ID, err)
	}
	old.dead = err
	return old, nil
}

// mustStayEncrypted fails where values that were encrypted in the old room would be stored in the clear.
func (r roomState) mustStayEncrypted(ctx context.Context, old roomState) error {
	if !r.core.Encrypt {
		return nil
	}
	was, err := old.IsEncrypted(ctx, true)
	if err != nil || !was {
		return err
	}
	is, err := r.IsEncrypted(ctx, true)
	if err == nil && !is {
		err = fault.Of(ErrNoCrypto, nil, "%s is encrypted, and its replacement %s is not", old.ID, r.ID)
	}
	if err != nil {
		return fmt.Errorf("%w; nothing was moved", err)
	}
	return nil
}
