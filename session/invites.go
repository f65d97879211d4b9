package session

import (
	"context"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/rooms"
)

// Invites says which invites the bot accepts. One that it does not accept stays as it is. A join that fails is tried again, less and less often, for about
// a day and also after a restart, and five times where the homeserver refuses it.
type Invites struct {
	// Allow and Deny name users by their IDs, servers by their names, which are those of the users who invite, rooms by their IDs, and everybody by "*".
	// An invite that both name is not accepted.
	Allow, Deny []string

	// Func decides on invites that neither list names. nil accepts none. It may take its time, and is asked again after a restart meanwhile.
	Func func(ctx context.Context, invite Invite) bool
}

// Invite is an invite to a room.
type Invite struct {
	Room     id.RoomID
	RoomName string // "" where the invite does not tell
	Inviter  id.UserID
	Direct   bool // whether the room is to be a direct chat
}

// check finds entries that name nobody.
func (i Invites) check() error {
	for _, entry := range slices.Concat(i.Allow, i.Deny) {
		user, room := strings.HasPrefix(entry, "@"), strings.HasPrefix(entry, "!")
		if _, _, err := id.UserID(entry).Parse(); entry == "" || strings.ContainsAny(entry, "# /") || user && err != nil || !user && !room && entry != "*" && strings.Contains(entry, "*") {
			return fail(ErrInvalidConfig, "Invites has %q, which is no user ID, as @alice:example.org, no server's name, no room ID, as !…, and not *", entry)
		}
	}
	return nil
}

// none tells whether no invite is accepted.
func (i Invites) none() bool { return len(i.Allow) == 0 && i.Func == nil }

// accepts decides on an invite.
func (i Invites) accepts(ctx context.Context, invite rooms.Invite) bool {
	names := func(entry string) bool {
		return entry == "*" || entry == invite.Inviter.String() || entry == invite.Room.String() || strings.EqualFold(entry, invite.Inviter.Homeserver())
	}
	switch {
	case slices.ContainsFunc(i.Deny, names):
		return false
	case slices.ContainsFunc(i.Allow, names):
		return true
	}
	return i.Func != nil && i.Func(ctx, Invite(invite))
}
