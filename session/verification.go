package session

import (
	"context"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/secure"
)

// Verification says who may verify the bot's device by comparing emojis, as Element does. The bot answers requests and makes none. Who has
// verified it is verified by it, and sees its later devices as verified too.
type Verification struct {
	// Users may verify the bot. Allow may name more. Others are refused.
	Users []id.UserID
	Allow func(user id.UserID) bool

	// Compare tells whether the other side shows the same, for example after asking somebody. It is not called in the sync. Its context ends with
	// [Bot.Close], which waits for it and which it must not call. After an error, or where it is not the same, the verification is cancelled. nil takes all for
	// the same: the other side can be sure of the bot then, and the bot believes the homeserver.
	Compare func(ctx context.Context, shown SAS) (same bool, err error)

	// Done is told of each verification that has ended, and whether it has succeeded. It is not called in the sync, and may call [Bot.Close]. nil is told of
	// none.
	Done func(user id.UserID, device id.DeviceID, verified bool)
}

// SAS is the short authentication string that both sides of a verification show: emojis, or numbers where the other side has none.
type SAS struct {
	User     id.UserID
	Device   id.DeviceID
	Emojis   []rune
	Names    []string // of the emojis, in English
	Decimals []int
}

// NewRecoveryKey makes a recovery key for [Config.RecoveryKey]. It is the only copy: keep it.
func NewRecoveryKey() string { return secure.NewRecoveryKey() }

// policy is that of package secure.
func (v *Verification) policy() secure.Policy {
	policy := secure.Policy{Allow: func(user id.UserID) bool { return slices.Contains(v.Users, user) || v.Allow != nil && v.Allow(user) }, Done: v.Done}
	if v.Compare != nil {
		policy.Compare = func(ctx context.Context, shown secure.SAS) (bool, error) { return v.Compare(ctx, SAS(shown)) }
	}
	return policy
}
