package session

import (
	"context"

	"github.com/roomkv/roomkv/session/internal/tokens"
)

// OAuth says how to sign in by OAuth 2.
type OAuth struct{}

// oauthSignIn signs in by OAuth 2. token has the homeserver, and the device to sign in with. The token that it returns is kept by its caller.
func oauthSignIn(ctx context.Context, config Config, client tokens.Doer, token tokens.Token) (tokens.Token, error) {
	return tokens.Token{}, fail(ErrInvalidConfig, "OAuth is not built yet")
}
