package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

// Config says who the bot is, how it signs in, and what it keeps. The zero value of each field but User and a way to sign in is a safe default. [FromEnv] reads one from the
// environment.
type Config struct {
	// Homeserver is the name of a server, as it stands in user IDs, or the URL of its client API. "" is the server in User. A name is looked up in
	// the server's .well-known file (Client-Server API, server discovery).
	Homeserver string

	// User is the bot's user ID, or the part of it before the server's name. With AccessToken it can be "", for the token says whose it is.
	User string

	// Password, AccessToken and OAuth are ways to sign in. One of them is given. What [Config.Dir] keeps comes first.
	Password string

	// AccessToken is that of a device that was made elsewhere. It is checked, and not kept.
	AccessToken string

	// OAuth signs in by OAuth 2.
	OAuth *OAuth

	// RecoveryKey is the account's, as Element has shown it when secret storage was set up. For an account that has neither secret storage
	// nor cross-signing, it is the key that they are set up with, which [NewRecoveryKey] makes. "" is the key that Dir keeps. Where Dir has none
	// either, a new account is set up with a new key.
	RecoveryKey string

	// OnRecoveryKey gets the recovery key that this package has made. The key is kept in Dir until OnRecoveryKey has returned nil, and for ever
	// where OnRecoveryKey is nil. Once it has returned nil, each start needs the key as RecoveryKey. It is called again at the next start after an
	// error, which [Open] returns.
	OnRecoveryKey func(ctx context.Context, key string) error

	// Dir is the folder in which the bot keeps its token, its keys and how far it has read. It is made where it does not exist. One process
	// at a time uses it. Another one fails with [ErrInUse] after 10 seconds: in [Open], or with NoEncryption in [Bot.Run]. Without a folder, each start
	// makes a new device.
	Dir string

	// PickleKey encrypts the keys in Dir. nil is a random key that Dir keeps as well.
	PickleKey []byte

	// DeviceName is how people see the bot's device. "" is "roomkv bot". Bots of one account that run without a folder at the same time need
	// different names, for each start removes the devices that earlier starts have left under its name, but for the newest of them.
	DeviceName string

	// NoEncryption leaves encryption out: the bot has neither keys nor a backup, and reads and writes rooms that are not encrypted.
	NoEncryption bool

	// Verification says who may verify the bot's device. nil is nobody.
	Verification *Verification

	// Invites says which invites the bot accepts. The zero value is none.
	Invites Invites

	// LeaveEmpty makes the bot leave each room in which nobody else is left.
	LeaveEmpty bool

	// OwnMessages tells handlers also of the bot's own messages.
	OwnMessages bool

	// OldMessages tells handlers also of messages that were sent before the bot's first start, or before it came into a room, as far as the sync brings
	// them. With a folder, the first start is the first that used it.
	OldMessages bool

	// Filter is the filter of the sync, nil that of [roomkv.Store.Follow]. One that hides what a store needs makes [Bot.Store] fail with ErrFilter.
	Filter *mautrix.Filter

	// Presence is the bot's while it runs. "" is online.
	Presence event.Presence

	// Proxy is the URL of an HTTP or SOCKS5 proxy. "" is what HTTPS_PROXY says.
	Proxy string

	// Timeout bounds each request but the sync, which has half a minute more, and each time that a request is sent again. 0 is one minute.
	Timeout time.Duration

	// Logger gets mautrix's log and this package's. At most one of Logger and Slog is given. Without one, nothing is logged. No secret is logged at
	// any level.
	Logger *zerolog.Logger
	Slog   *slog.Logger
}
