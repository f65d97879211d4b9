package session

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/secure"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// signingIn is what it takes to sign in.
type signingIn struct {
	config Config
	files  *folder.Folder
	client *http.Client // without a token
	now    func() time.Time
}

// signIn gives the session that the folder keeps, or a new one. With a kept one it makes no request.
func (s *signingIn) signIn(ctx context.Context) (tokens.Token, error) {
	unlock, err := tokens.Lock(ctx, s.files)
	if err != nil {
		return tokens.Token{}, err
	}
	defer unlock()
	kept, found, err := tokens.Load(s.files)
	if err != nil {
		return tokens.Token{}, err
	}
	if found {
		if err := s.fits(kept); err != nil {
			return tokens.Token{}, err
		}
	}
	if kept.Homeserver == "" || kept.Server != s.config.Homeserver {
		if err := s.moves(kept); err != nil {
			return tokens.Token{}, err
		}
		if kept.Homeserver, err = findServer(ctx, s.client, s.config.Homeserver); err != nil {
			return tokens.Token{}, err
		}
		kept.Server = s.config.Homeserver
	}
	switch {
	case kept.AccessToken != "":
		return kept, nil
	case s.config.AccessToken != "": // which is not kept
		kept.AccessToken = s.config.AccessToken
		found, err := tokens.Whoami(ctx, s.client, kept)
		if err == nil {
			err = s.fits(found)
		}
		return found, err
	case s.config.Password == "" && s.config.OAuth == nil && found:
		return tokens.Token{}, fail(ErrSignedOut, "the session that Dir kept has ended: give a Password or OAuth to sign in again")
	case s.config.Password == "" && s.config.OAuth == nil:
		return tokens.Token{}, fail(ErrInvalidConfig, "none of Password, AccessToken and OAuth is given, and Dir keeps no session")
	}
	return s.signInAnew(ctx, kept)
}

// signInAnew keeps the device's ID before it signs in, so that a start that is killed meanwhile leaves one device and not several.
func (s *signingIn) signInAnew(ctx context.Context, token tokens.Token) (tokens.Token, error) {
	if token.DeviceID == "" {
		token.DeviceID = s.newDevice()
		if err := tokens.Save(s.files, token); err != nil {
			return tokens.Token{}, err
		}
	}
	var err error
	if s.config.OAuth != nil {
		token, err = oauthSignIn(ctx, s.config, s.client, token)
	} else {
		token, err = s.password().Login(ctx, token)
	}
	if err != nil {
		return tokens.Token{}, err
	}
	if err := s.fits(token); err != nil {
		return tokens.Token{}, err
	}
	return token, tokens.Save(s.files, token)
}

// password is nil where the configuration has none.
func (s *signingIn) password() *tokens.Password {
	if s.config.Password == "" {
		return nil
	}
	return &tokens.Password{Client: s.client, Now: s.now, User: s.config.User, Password: s.config.Password, DeviceName: s.config.DeviceName}
}

// fits makes sure that a session is the configured user's.
func (s *signingIn) fits(token tokens.Token) error {
	switch {
	case token.UserID == "" || s.config.User == "" || tokens.IsUser(s.config.User, token.UserID):
		return nil
	case s.config.AccessToken != "" && token.AccessToken == s.config.AccessToken:
		return fail(ErrInvalidConfig, "the AccessToken is one of %s, and User is %s", token.UserID, s.config.User)
	}
	return fail(ErrInvalidConfig, "Dir keeps a session of %s, and User is %s: give each bot a folder of its own", token.UserID, s.config.User)
}

// moves makes sure that what is kept goes to another server only where the configuration says that this is the same user's.
func (s *signingIn) moves(kept tokens.Token) error {
	if kept.AccessToken == "" || strings.HasPrefix(s.config.User, "@") || strings.EqualFold(s.config.Homeserver, kept.UserID.Homeserver()) {
		return nil
	}
	return fail(ErrInvalidConfig, "Dir keeps a session of %s, and Homeserver is another one than before: give User in full where it is the same account, else a folder of its own", kept.UserID)
}

// newDevice is the ID of a new device. Without a folder it says which bot has made the device, and when.
func (s *signingIn) newDevice() id.DeviceID {
	if s.config.Dir == "" {
		return secure.NewDeviceID(s.config.DeviceName, s.now())
	}
	return id.DeviceID(rand.Text()[:10])
}
