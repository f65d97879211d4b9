package session

import (
	"context"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// OAuth says how to sign in by OAuth 2.
type OAuth struct{}

// Verification says who may verify the bot's device.
type Verification struct{}

// oauthSignIn signs in by OAuth 2. token has the homeserver, and the device to sign in with. The token that it returns is kept by its caller.
func oauthSignIn(ctx context.Context, config Config, client tokens.Doer, token tokens.Token) (tokens.Token, error) {
	return tokens.Token{}, fail(ErrInvalidConfig, "OAuth is not built yet")
}

// secured is what encryption has of its own.
type secured struct{}

// openSecure sets the bot's encryption up: it sets Client.Crypto, Client.Verification and Client.StateStore.
func openSecure(ctx context.Context, bot *Bot) (*secured, error) {
	return nil, fail(ErrInvalidConfig, "encryption is not built yet, set NoEncryption")
}

// options are those of each store.
func (*secured) options() []roomkv.Option { return nil }

// close ends what encryption does.
func (*secured) close() error { return nil }
