package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/session/internal/syncing"
)

// fetchFile has how far FetchKeys has read.
const fetchFile = "keys.since"

// fetchFilter is a sync that brings what was sent to the device, in which keys are, and which devices have changed. It brings nothing of rooms.
const fetchFilter = `{"room":{"rooms":[],"state":{"not_types":["*"]},"timeline":{"limit":1}},"presence":{"not_types":["*"]},"account_data":{"not_types":["*"]}}`

// mostFetches bounds how many requests a FetchKeys makes. One brings about a hundred keys.
const mostFetches = 20

// FetchKeys brings the keys that others have sent to the bot's device, and learns which devices have come and gone. It is for a program that reads and writes
// encrypted rooms for a moment, without [Bot.Run], which does that by itself. It makes one request where nothing was sent, and one more for about a hundred keys.
//
// Without encryption it does nothing. It fails with [ErrRunning] after Run was called, with [ErrClosed] after [Bot.Close], or with the error of a request.
func (b *Bot) FetchKeys(ctx context.Context) error {
	b.mu.Lock()
	ran, closed := b.ran != nil, b.isClosed()
	b.mu.Unlock()
	switch {
	case closed:
		return fail(ErrClosed, "it fetches no keys any more")
	case ran:
		return fail(ErrRunning, "Run fetches keys by itself")
	case b.secured == nil:
		return nil
	}
	kept, err := b.files.Read(fetchFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("session: reading how far keys were fetched: %w", err)
	}
	since := string(kept)
	for range mostFetches {
		resp, err := syncing.Sync(ctx, b.Client, mautrix.ReqSync{Since: since, FilterID: fetchFilter, SetPresence: event.PresenceOffline})
		if since != "" && isBadRequest(err) {
			since = "" // a token that the homeserver does not know, where it has lost its data
			continue
		}
		if err != nil {
			return fmt.Errorf("session: fetching keys: %w", err)
		}
		b.secured.crypto.Machine().ProcessSyncResponse(ctx, resp, since)
		since = resp.NextBatch
		if err := b.files.Write(fetchFile, []byte(since)); err != nil {
			return fmt.Errorf("session: keeping how far keys were fetched: %w", err)
		}
		if len(resp.ToDevice.Events) == 0 {
			return nil
		}
	}
	return nil
}

func isBadRequest(err error) bool {
	var failed mautrix.HTTPError
	return errors.As(err, &failed) && failed.IsStatus(http.StatusBadRequest)
}
