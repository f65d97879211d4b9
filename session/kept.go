package session

import (
	"errors"
	"io/fs"
	"os"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// Kept is what a [Config.Dir] has of a session, without its secrets.
type Kept struct {
	Homeserver string // as Config.Homeserver was
	URL        string // of the homeserver's client API
	User       id.UserID
	Device     id.DeviceID
	SignedIn   bool // whether [Open] can go on with the session: not where the homeserver has ended it, or where a sign-in was interrupted
}

// ReadDir tells what the folder keeps, so that a program need not ask again who signs in. It makes no request and no folder. Where nothing is kept it
// returns a zero Kept.
func ReadDir(dir string) (Kept, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return Kept{}, nil
	}
	files, err := folder.Open(dir)
	if err != nil {
		return Kept{}, fail(ErrInvalidConfig, "Dir: %w", err)
	}
	token, _, err := tokens.Load(files)
	if err != nil {
		return Kept{}, err
	}
	return Kept{token.Server, token.Homeserver, token.UserID, token.DeviceID, token.AccessToken != ""}, nil
}
