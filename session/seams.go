package session

import (
	"context"

	"github.com/roomkv/roomkv"
)

// Verification says who may verify the bot's device.
type Verification struct{}

// Invites says which invites the bot accepts.
type Invites struct{}

// secured is what encryption has of its own.
type secured struct{}

// openSecure sets the bot's encryption up: it sets Client.Crypto, Client.Verification and Client.StateStore.
func openSecure(ctx context.Context, bot *Bot) (*secured, error) {
	return nil, fail(ErrInvalidConfig, "encryption is not built yet, set NoEncryption")
}

// options are those of each store.
func (*secured) options() []roomkv.Option { return nil }

// close ends what encryption does.
func (*secured) close() error { return nil }
