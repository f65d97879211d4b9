package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// Bot is a bot that is signed in. Its methods are safe for concurrent use.
type Bot struct {
	// Client is the bot's. Its HTTP client puts the current access token into each request, so that a program can make requests with it as usual. Its
	// AccessToken, Client, Syncer, Store and Crypto are this package's to set.
	Client *mautrix.Client

	config  Config
	files   *folder.Folder
	base    http.RoundTripper // beneath the keeper's
	keeper  *tokens.Keeper
	secured *secured // nil without encryption

	mu     sync.Mutex
	stores []*roomkv.Store
	closed chan struct{} // closed by Close
	ending error         // of Close
	once   sync.Once
}

// Store is the memory of a room, which is given as to [roomkv.New]. It follows the bot's sync, and has the bot's key backup; options come after that.
// [Bot.Close] closes it.
//
// Store fails with [ErrFilter] where [Config.Filter] hides the store's events, with [ErrClosed] after Close, and as roomkv.New does.
func (b *Bot) Store(room string, options ...roomkv.Option) (*roomkv.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return nil, fail(ErrClosed, "it has no store for %s any more", room)
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

// Close sends what stores have yet to send, closes them, and ends what the bot does in the background. It takes up to [Config.Timeout]. A second call returns
// what the first did.
func (b *Bot) Close() error {
	b.once.Do(func() { b.ending = b.close() })
	return b.ending
}

func (b *Bot) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Timeout)
	defer cancel()
	b.mu.Lock()
	close(b.closed)
	stores := b.stores
	b.mu.Unlock()
	var failed []error
	for _, store := range stores {
		failed = append(failed, store.Close(ctx))
	}
	if b.secured != nil {
		failed = append(failed, b.secured.close())
	}
	failed = append(failed, b.keeper.Close(ctx))
	(&http.Client{Transport: b.base}).CloseIdleConnections()
	return errors.Join(failed...)
}

func (b *Bot) isClosed() bool {
	select {
	case <-b.closed:
		return true
	default:
		return false
	}
}
