package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/inbox"
	"github.com/roomkv/roomkv/session/internal/rooms"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// Bot is a bot that is signed in. Its methods are safe for concurrent use.
type Bot struct {
	// Client is the bot's. Its HTTP client puts the current access token into each request, so that a program can make requests with it as usual. Its
	// AccessToken, Client, Syncer, Store and Crypto are this package's to set. What the homeserver limits (HTTP 429) or does not answer is sent again up to 3 times,
	// as its DefaultHTTPRetries says. [mautrix.WithMaxRetries] sets another number for a context.
	Client *mautrix.Client

	config  Config
	files   *folder.Folder
	base    http.RoundTripper // beneath the keeper's
	keeper  *tokens.Keeper
	secured *secured // nil without encryption
	inbox   *inbox.Inbox
	rooms   *rooms.Rooms
	signals func(ctx context.Context) (context.Context, context.CancelFunc) // that end Run

	mu     sync.Mutex
	stores []*roomkv.Store
	ran    chan struct{} // closed when Run has returned, nil before it is called
	closed chan struct{} // closed by Close
	ending error         // of Close
	once   sync.Once
}

// Store is the memory of a room, which is given as to [roomkv.New]. It follows the bot's sync, and has the bot's key backup; options come after that.
// [Bot.Run] closes it when it ends, and so does [Bot.Close].
//
// It is called before [Bot.Run], and fails with [ErrRunning] after that, for mautrix's Syncer takes nothing new while it syncs. It fails with [ErrFilter] where
// [Config.Filter] hides the store's events, with [ErrClosed] after Close, and as roomkv.New does.
func (b *Bot) Store(room string, options ...roomkv.Option) (*roomkv.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return nil, fail(ErrClosed, "it has no store for %s any more", room)
	}
	if b.ran != nil {
		return nil, fail(ErrRunning, "make the store of %s before Run, or take WithRoom of another store", room)
	}
	var own []roomkv.Option
	if b.secured != nil {
		own = b.secured.options()
	}
	store, err := roomkv.New(b.Client, room, append(own, options...)...)
	if err != nil {
		return nil, err
	}
	if err := store.Follow(); err != nil {
		if b.config.Filter != nil && errors.Is(err, roomkv.ErrInvalidOption) {
			err = fmt.Errorf("session: %w: %w", ErrFilter, err)
		}
		return nil, err
	}
	b.stores = append(b.stores, store)
	return store, nil
}

// Close ends [Bot.Run], sends what stores have yet to send, closes them, and ends what the bot does in the background. It takes up to [Config.Timeout]. A
// second call returns what the first did.
func (b *Bot) Close() error {
	b.once.Do(func() { b.ending = b.close() })
	return b.ending
}

func (b *Bot) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Timeout)
	defer cancel()
	b.mu.Lock()
	close(b.closed)
	ran := b.ran
	b.mu.Unlock()
	if ran != nil {
		select {
		case <-ran:
		case <-ctx.Done():
		}
	}
	failed := []error{b.closeStores(ctx)}
	if b.secured != nil {
		failed = append(failed, b.secured.close())
	}
	failed = append(failed, b.keeper.Close(ctx))
	(&http.Client{Transport: b.base}).CloseIdleConnections()
	return errors.Join(failed...)
}

// storesNow are the stores that the bot has.
func (b *Bot) storesNow() []*roomkv.Store {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.stores)
}

func (b *Bot) isClosed() bool {
	select {
	case <-b.closed:
		return true
	default:
		return false
	}
}
