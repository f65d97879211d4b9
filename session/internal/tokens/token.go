// Package tokens keeps a bot signed in: it has the bot's access token, puts it into requests, and gets another one before it ends or when the homeserver
// has ended it.
package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/folder"
)

// Token is a bot's session. One without an access token says with which device the bot is to sign in.
type Token struct {
	Server       string       `json:"server,omitempty"` // what the bot's configuration calls the homeserver
	Homeserver   string       `json:"homeserver"`       // the URL of its client API
	UserID       id.UserID    `json:"user_id"`
	DeviceID     id.DeviceID  `json:"device_id,omitempty"`
	AccessToken  string       `json:"access_token,omitempty"`
	RefreshToken string       `json:"refresh_token,omitempty"`
	Expires      time.Time    `json:"expires,omitzero"` // of the access token, zero where nobody has said
	OAuth        *OAuthClient `json:"oauth,omitempty"`  // nil for a session of Matrix's own login
}

// OAuthClient is what the bot is to an authorization server.
type OAuthClient struct {
	ClientID           string `json:"client_id"`
	TokenEndpoint      string `json:"token_endpoint"`
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`
}

// String is the session without its secrets.
func (t Token) String() string {
	return fmt.Sprintf("%s, device %s, on %s", t.UserID, t.DeviceID, t.Homeserver)
}

// GoString is the session without its secrets.
func (t Token) GoString() string { return t.String() }

// expiresIn sets when the access token ends, so many milliseconds after start. Where the homeserver does not say, it does not end.
func (t *Token) expiresIn(start time.Time, milliseconds number) {
	t.Expires = time.Time{}
	if milliseconds > 0 {
		t.Expires = start.Add(time.Duration(min(float64(milliseconds)*float64(time.Millisecond), float64(longestLife))))
	}
}

// longestLife bounds what a homeserver can say of a token, which would overflow otherwise.
const longestLife = 100 * 365 * 24 * time.Hour

// Files is where a session is kept. It is package folder's Folder.
type Files interface {
	Read(name string) ([]byte, error)
	Write(name string, content []byte) error
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

const (
	fileName = "token.json"
	lockName = "token.lock"
)

// Lock keeps other processes from changing the session, until unlock is called.
func Lock(ctx context.Context, files Files) (unlock func(), err error) {
	return files.Lock(ctx, lockName)
}

// Load reads the session that is kept. found is false where there is none.
func Load(files Files) (token Token, found bool, err error) {
	content, err := files.Read(fileName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Token{}, false, nil
	case err != nil:
		return Token{}, false, fmt.Errorf("session: reading the kept session: %w", err)
	}
	if json.Unmarshal(content, &token) != nil { // whose error could quote a token
		return Token{}, false, fmt.Errorf("session: %w: %s has no session: remove it, and sign in again", folder.ErrDamaged, fileName)
	}
	return token, true, nil
}

// Save keeps a session. The caller has the lock.
func Save(files Files, token Token) error {
	content, err := json.MarshalIndent(token, "", "  ")
	if err == nil {
		err = files.Write(fileName, append(content, '\n'))
	}
	if err != nil {
		return fmt.Errorf("session: keeping the session: %w", err)
	}
	return nil
}
