package upgrade

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// Beneath the error of a write that found the room upgraded: errMeanwhile where nothing was written, errWritten where that may
// have been.
var (
	errMeanwhile = errors.New("the room was upgraded meanwhile")
	errWritten   = errors.New("the room was upgraded before what was written, or after")
)

// Retry does a write, and does it again where the room was upgraded meanwhile and the memory goes along: do then writes to the replacement.
func (u *Rooms) Retry(do func() error) error {
	written := false
	for {
		err := do()
		if u.Follow && (errors.Is(err, errMeanwhile) || errors.Is(err, errWritten)) {
			written = written || errors.Is(err, errWritten)
			continue
		}
		if written && err != nil {
			return fault.Of(fault.ErrRoomUpgraded, err, "it is not known whether the write was done before the memory was moved from the old room, for it cannot be done again: %s",
				strings.TrimPrefix(err.Error(), "roomkv: "))
		}
		return err
	}
}

// Guard is a memory of the room that is written only where that counts: in a room that was not upgraded. The error is else ErrRoomUpgraded.
func (r Home) Guard(m memory.Memory) memory.Memory { return guard{m, r} }

type guard struct {
	memory.Memory
	room Home
}

// Commit implements [memory.Memory].
func (g guard) Commit(ctx context.Context, change memory.Change) error {
	return g.room.write(ctx, func() error { return g.Memory.Commit(ctx, change) })
}

// Remove implements [memory.Memory].
func (g guard) Remove(ctx context.Context, names []string, done func(name string)) error {
	return g.room.write(ctx, func() error { return g.Memory.Remove(ctx, names, done) })
}

func (r Home) write(ctx context.Context, do func() error) error {
	if err := r.alive(ctx); err != nil {
		return err
	}
	err := do()
	if err != nil && !errors.Is(err, fault.ErrForbidden) { // which an upgraded room's power levels can be the reason for
		return err
	}
	if upgraded := r.stillAlive(ctx); upgraded != nil {
		return upgraded
	}
	return err
}

// Watchable fails with ErrRoomUpgraded where the room was upgraded, for what changes then changes elsewhere. The homeserver is asked where it was
// not for so long and no sync tells.
func (r Home) Watchable(ctx context.Context, within time.Duration) error {
	stone, err := r.tombstone(ctx, within)
	if err == nil && stone != nil {
		err = fault.Of(fault.ErrRoomUpgraded, r.dead, "%s was replaced by %s, and nothing changes there any more; open that, or watch again with WithRoomUpgrades", r.ID, stone.replacement)
	}
	return err
}

// alive fails with fault.ErrRoomUpgraded where nothing may be written to the room.
func (r Home) alive(ctx context.Context) error {
	if r.dead != nil {
		return r.dead
	}
	stone, err := r.tombstone(ctx, r.Policy.AnswerFor)
	if err == nil && stone != nil {
		err = fault.Of(fault.ErrRoomUpgraded, errMeanwhile, "%s was replaced by %s, so nothing was written; open that, or use WithRoomUpgrades", r.ID, stone.replacement)
	}
	return err
}

// stillAlive is alive after a write. One that was stored before there was a tombstone is among what is moved, for whoever moves
// reads the memory when he has seen that. So with WithRoomUpgrades the homeserver is asked again. A look back does not tell:
// homeservers choose the tombstone's place in the list when the upgrade begins and store it when that is nearly done. Nor does
// a sync, which can be behind a look back that has shown what was written.
func (r Home) stillAlive(ctx context.Context) error {
	within := r.Policy.AnswerFor
	if r.rooms.Follow {
		within = 0
	} else if about := r.rooms.of(r.ID); about.isKnown() {
		return nil
	}
	stone, err := r.tombstone(ctx, within)
	switch {
	case err != nil:
		return fault.Because(err, "it is not known whether %s was upgraded before what was written there was stored: %v", r.ID, err)
	case stone != nil:
		return fault.Of(fault.ErrRoomUpgraded, errWritten, "%s was replaced by %s, and what was written may have been stored in the old room; open the new one, or use WithRoomUpgrades", r.ID, stone.replacement)
	}
	return nil
}
