package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/oauth"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// OAuthFlow is how a person approves a sign-in.
type OAuthFlow int

const (
	// OAuthBrowser is for a browser on the machine of the bot, which listens on 127.0.0.1 for the browser to come back.
	OAuthBrowser OAuthFlow = iota

	// OAuthPaste is for a browser anywhere. At the end the person copies the address from it.
	OAuthPaste

	// OAuthDeviceCode is for a browser anywhere. The person enters a short code in it. Not every homeserver has it.
	OAuthDeviceCode
)

// OAuth signs in by OAuth 2: a person approves the bot once, in a browser. The bot keeps its tokens in [Config.Dir], and is not approved again.
type OAuth struct {
	Flow OAuthFlow

	// ShowURL gives a person the URL to open, in [OAuthBrowser]. It may open a browser. It returns at once.
	ShowURL func(ctx context.Context, url string) error

	// AskURL gives a person the URL to open, in [OAuthPaste], and returns the address at which their browser has ended. The page there may be missing.
	AskURL func(ctx context.Context, url string) (string, error)

	// ShowCode gives a person the code to enter, in [OAuthDeviceCode]. It returns at once.
	ShowCode func(ctx context.Context, code UserCode) error

	// Redirect is where the browser ends. "" is a free port of 127.0.0.1. In [OAuthPaste] it can be https on the host of ClientURI.
	Redirect string

	// ClientName is what the person is shown. "" is [Config.DeviceName].
	ClientName string

	// ClientURI is an https page about the bot. "" is that of roomkv.
	ClientURI string

	// ClientID is needed only where the homeserver lets no client register itself. Its administrator gives it.
	ClientID string

	// MetadataURL is where the authorization server's metadata is. "" is where the homeserver has it.
	MetadataURL string
}

// UserCode is what a person needs to approve a sign-in by [OAuthDeviceCode].
type UserCode oauth.UserCode

// check finds the first contradiction.
func (o *OAuth) check() error {
	needs := map[OAuthFlow]string{OAuthBrowser: "ShowURL", OAuthPaste: "AskURL", OAuthDeviceCode: "ShowCode"}
	if needs[o.Flow] == "" {
		return fail(ErrInvalidConfig, "OAuth.Flow is none of OAuthBrowser, OAuthPaste and OAuthDeviceCode")
	}
	for flow, given := range map[OAuthFlow]bool{OAuthBrowser: o.ShowURL != nil, OAuthPaste: o.AskURL != nil, OAuthDeviceCode: o.ShowCode != nil} {
		if given != (flow == o.Flow) {
			return fail(ErrInvalidConfig, "OAuth.Flow needs OAuth.%s, and none of the other callbacks", needs[o.Flow])
		}
	}
	if o.Flow == OAuthDeviceCode && o.Redirect != "" {
		return fail(ErrInvalidConfig, "OAuth.Redirect is of no use with OAuthDeviceCode: leave it out")
	}
	for name, address := range map[string]string{"Redirect": o.Redirect, "ClientURI": o.ClientURI, "MetadataURL": o.MetadataURL} {
		if parsed, err := url.Parse(address); address != "" && (err != nil || parsed.Scheme == "") {
			return fail(ErrInvalidConfig, "OAuth.%s %q is no URL", name, address)
		}
	}
	return nil
}

const clientURI = "https://github.com/roomkv/roomkv"

// app is what the authorization server is told of the bot.
func (o *OAuth) app(deviceName string) oauth.App {
	app := oauth.App{Name: cmp.Or(o.ClientName, deviceName), URI: cmp.Or(o.ClientURI, clientURI)}
	if o.Flow != OAuthDeviceCode {
		app.Redirect = cmp.Or(o.Redirect, oauth.DefaultRedirect)
	}
	return app
}

// oauthSignIn has a person approve the bot. token has the homeserver, and the device to sign in with. The token that it returns is kept by its caller.
func oauthSignIn(ctx context.Context, config Config, client *http.Client, token tokens.Token) (tokens.Token, error) {
	given, err := config.OAuth.approved(ctx, client, token, config)
	if err != nil {
		return tokens.Token{}, oauthError(err)
	}
	token.AccessToken, token.RefreshToken, token.Expires = given.Access, given.Refresh, given.Expires
	token.OAuth = &tokens.OAuthClient{ClientID: given.ClientID, TokenEndpoint: given.TokenEndpoint, RevocationEndpoint: given.RevocationEndpoint}
	found, err := whose(ctx, client, token)
	if err == nil && !tokens.IsUser(config.User, found.UserID) {
		err = fail(ErrInvalidConfig, "it was %s who approved the sign-in, and User is %s: approve it as that user", found.UserID, config.User)
	}
	if err != nil {
		return tokens.Token{}, errors.Join(err, oauth.Revoke(ctx, client, given))
	}
	return found, nil
}

// approved gets the tokens of a new device.
func (o *OAuth) approved(ctx context.Context, client *http.Client, token tokens.Token, config Config) (oauth.Tokens, error) {
	server, err := oauth.Discover(ctx, client, token.Homeserver, o.MetadataURL)
	if err != nil {
		return oauth.Tokens{}, err
	}
	app, who := o.app(config.DeviceName), oauth.Who{ClientID: o.ClientID, Device: token.DeviceID, User: config.fullUser()}
	if who.ClientID == "" {
		if who.ClientID, err = server.Register(ctx, app); err != nil {
			return oauth.Tokens{}, err
		}
	}
	switch o.Flow {
	case OAuthPaste:
		return server.ByPasting(ctx, who, app.Redirect, o.AskURL)
	case OAuthDeviceCode:
		return server.ByDeviceCode(ctx, who, func(ctx context.Context, code oauth.UserCode) error { return o.ShowCode(ctx, UserCode(code)) })
	}
	return server.ByListening(ctx, who, app.Redirect, o.ShowURL)
}

// fullUser is the bot's user ID, "" where the configuration does not say it.
func (c Config) fullUser() id.UserID {
	switch {
	case strings.HasPrefix(c.User, "@"):
		return id.UserID(c.User)
	case strings.Contains(c.Homeserver, "://"):
		return ""
	}
	return id.NewUserID(c.User, c.Homeserver)
}

const (
	whoseTries = 5               // for a homeserver in trouble, for a person has approved already
	whosePause = time.Second / 2 // after the first; it doubles
)

// whose asks whose a new token is.
func whose(ctx context.Context, client *http.Client, token tokens.Token) (tokens.Token, error) {
	wait := whosePause
	for try := 1; ; try++ {
		found, err := tokens.Whoami(ctx, client, token)
		if err == nil || try == whoseTries || errors.Is(err, ErrSignedOut) {
			return found, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return tokens.Token{}, err
		}
		wait *= 2
	}
}

// oauthError gives an error a kind of this package, where a person must mend something.
func oauthError(err error) error {
	var answer *oauth.Error
	switch {
	case errors.Is(err, oauth.ErrDenied), errors.Is(err, oauth.ErrExpired), errors.Is(err, oauth.ErrState), errors.Is(err, oauth.ErrRefused):
		return fail(ErrSignedOut, "%w", err)
	case errors.Is(err, oauth.ErrUnsupported), errors.Is(err, oauth.ErrInsecure):
		return fail(ErrInvalidConfig, "OAuth: %w", err)
	case errors.As(err, &answer) && answer.Status >= 400 && answer.Status < 500 && answer.Status != http.StatusTooManyRequests:
		return fail(ErrInvalidConfig, "OAuth: %w", err)
	}
	return fmt.Errorf("session: signing in by OAuth 2: %w", err)
}
