package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// Password signs in with a password.
type Password struct {
	Client     Doer
	Now        func() time.Time
	User       string // a user ID, or its localpart
	Password   string
	DeviceName string // what people see, where the device is new
}

// Login signs in with the device that token names. Where the homeserver refuses the password, the error is an [ErrWrongPassword].
func (p *Password) Login(ctx context.Context, token Token) (Token, error) {
	var resp mautrix.RespLogin
	start := p.Now()
	err := postJSON(ctx, p.Client, clientAPI(token.Homeserver, "v3/login"), mautrix.ReqLogin{
		Type:                     mautrix.AuthTypePassword,
		Identifier:               mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: p.User},
		Password:                 p.Password,
		DeviceID:                 token.DeviceID,
		InitialDeviceDisplayName: p.DeviceName,
		RefreshToken:             true,
	}, &resp)
	var answer *Answer
	switch {
	case errors.As(err, &answer) && !answer.Passing() && answer.Code == mautrix.MForbidden.ErrCode:
		return Token{}, fmt.Errorf("session: %w: the homeserver does not let %s in with it: %w", ErrWrongPassword, p.User, err)
	case errors.As(err, &answer) && (answer.Status == http.StatusNotFound || answer.Status == http.StatusBadRequest || answer.Status == http.StatusForbidden):
		return Token{}, fmt.Errorf("session: the homeserver lets nobody in with a password, or %s not: %w: %w", p.User, errRefused, err)
	case err != nil:
		return Token{}, fmt.Errorf("session: signing in as %s: %w", p.User, err)
	case resp.AccessToken == "" || resp.UserID == "" || resp.DeviceID == "":
		return Token{}, fmt.Errorf("session: signing in as %s: the homeserver's answer has no access token, user or device", p.User)
	case !IsUser(p.User, resp.UserID):
		return Token{}, fmt.Errorf("session: signing in as %s: the homeserver has signed in another user, %s", p.User, resp.UserID)
	}
	token.UserID, token.DeviceID, token.AccessToken, token.RefreshToken = resp.UserID, resp.DeviceID, resp.AccessToken, resp.RefreshToken
	token.expiresIn(start, number(resp.ExpiresInMS))
	return token, nil
}

// IsUser tells whether user, a user ID or its localpart, is that one. Homeservers find users without regard to case.
func IsUser(user string, found id.UserID) bool {
	if !strings.HasPrefix(user, "@") {
		return strings.EqualFold(user, found.Localpart())
	}
	return strings.EqualFold(user, found.String())
}

// Whoami finds out whose the access token is.
func Whoami(ctx context.Context, client Doer, token Token) (Token, error) {
	var resp mautrix.RespWhoami
	err := Get(ctx, client, clientAPI(token.Homeserver, "v3/account/whoami"), token.AccessToken, &resp)
	var answer *Answer
	switch {
	case errors.As(err, &answer) && answer.Code == mautrix.MUnknownToken.ErrCode:
		return Token{}, &signedOut{"the homeserver does not know the access token, or has ended it: give another one", err}
	case err != nil:
		return Token{}, fmt.Errorf("session: asking whose the access token is: %w", err)
	case resp.UserID == "":
		return Token{}, errors.New("session: asking whose the access token is: the homeserver's answer has no user")
	}
	token.UserID, token.DeviceID = resp.UserID, resp.DeviceID
	return token, nil
}
