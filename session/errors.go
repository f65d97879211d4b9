package session

import (
	"errors"
	"fmt"

	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/secure"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// The errors of this package, for [errors.Is]. Each error's text adds what can be done. Where the homeserver refused something, mautrix's error is found
// beneath too, where there is one. No error's text holds a password, a token or a key.
var (
	// ErrInvalidConfig: the [Config], or the environment that [FromEnv] reads, contradicts itself, lacks something, or contradicts what [Config.Dir] keeps.
	ErrInvalidConfig = errors.New("invalid configuration")

	// ErrHomeserver: no homeserver was found at [Config.Homeserver], what answers there is none, or it refuses to sync. At a bot's first start it is also
	// the error where nothing answers, which may pass. It is not the error where what answers says that it is in trouble (HTTP 5xx) or limits requests (429).
	ErrHomeserver = errors.New("no homeserver")

	// ErrWrongPassword: the homeserver does not take the password, or has no such user.
	ErrWrongPassword = tokens.ErrWrongPassword

	// ErrSignedOut: the homeserver has ended the bot's session, and the bot cannot sign in again by itself. Every request fails with it at once, and so does
	// [Bot.Run]. With a password in [Config], and where that has changed with the new one, the next [Open] signs in again.
	ErrSignedOut = tokens.ErrSignedOut

	// ErrInUse: another process uses [Config.Dir], and has not ended within 10 seconds.
	ErrInUse = secure.ErrInUse

	// ErrRecoveryKeyNeeded: the account has secret storage, and its recovery key was not given. It is also the error of a bot that has encryption, no
	// [Config.Dir] and no recovery key.
	ErrRecoveryKeyNeeded = secure.ErrRecoveryKeyNeeded

	// ErrWrongRecoveryKey: the recovery key is not that of the account's secret storage, or none at all.
	ErrWrongRecoveryKey = secure.ErrWrongRecoveryKey

	// ErrCrossSigning: the account has cross-signing keys whose private parts are not in its secret storage, so that the bot's device cannot be signed.
	ErrCrossSigning = secure.ErrCrossSigning

	// ErrNoDevice: the access token has no device, or one whose keys are not in [Config.Dir], so that nothing can be encrypted with it.
	ErrNoDevice = secure.ErrNoDevice

	// ErrDamaged: a file in [Config.Dir] is not as this package has written it. The text says which, and what to remove so that the bot goes on. Without
	// pickle.key, crypto.db is as good as damaged.
	ErrDamaged = folder.ErrDamaged

	// ErrFilter: [Config.Filter] hides what a store needs.
	ErrFilter = errors.New("filter hides the store's events")

	// ErrRunning: [Bot.Store] was called after [Bot.Run]. WithRoom of a store that was made before gives the memory of another room.
	ErrRunning = errors.New("bot runs already")

	// ErrClosed: the bot was closed, or [Bot.Run] was called a second time.
	ErrClosed = errors.New("bot was closed")
)

// fail makes an error of kind, a sentinel of this file.
func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("session: %w: "+format, append([]any{kind}, args...)...)
}
