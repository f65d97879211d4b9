package session

import (
	"context"
	"errors"
	"net/http"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/session/internal/oauth"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// SignOut ends the bot's session: the homeserver forgets the device, and [Config.Dir] the token. Then it closes the bot, as [Bot.Close] does. What Dir has of
// keys stays, so that a bot that signs in again reads what this one could. A session that has ended already is no error. Where the homeserver cannot be
// asked, nothing is done.
func (b *Bot) SignOut(ctx context.Context) error {
	if err := b.endSession(ctx); err != nil && !errors.Is(err, mautrix.MUnknownToken) {
		return err
	}
	return errors.Join(b.Close(), b.forgetToken(ctx))
}

// endSession ends the session in the way in which it began.
func (b *Bot) endSession(ctx context.Context) error {
	token := b.keeper.Token()
	if token.OAuth == nil {
		_, err := b.Client.Logout(ctx)
		return err
	}
	client := &http.Client{Transport: &bounded{b.base, b.config.Timeout}, CheckRedirect: straight}
	return oauth.Revoke(ctx, client, oauth.Tokens{
		Access: token.AccessToken, Refresh: token.RefreshToken, ClientID: token.OAuth.ClientID, RevocationEndpoint: token.OAuth.RevocationEndpoint,
	})
}

func (b *Bot) forgetToken(ctx context.Context) error {
	unlock, err := tokens.Lock(ctx, b.files)
	if err != nil {
		return err
	}
	defer unlock()
	return tokens.Save(b.files, tokens.Token{})
}
