package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/keybackup"
	"github.com/roomkv/roomkv/session/internal/secure"
)

// secured is what encryption has of its own.
type secured struct {
	crypto   *secure.Crypto
	verifier *secure.Verifier // nil where nobody may verify the bot
}

// openSecure sets the bot's encryption up. The client's Crypto and StateStore are set then.
func openSecure(ctx context.Context, bot *Bot) (*secured, error) {
	config := bot.config
	opened, err := secure.Open(ctx, secure.Config{
		Client: bot.Client, Folder: bot.files, RecoveryKey: config.RecoveryKey, OnRecoveryKey: config.OnRecoveryKey, PickleKey: config.PickleKey,
		Password: config.Password,
	})
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	s := &secured{crypto: opened}
	if config.Verification != nil {
		if s.verifier, err = secure.NewVerifier(ctx, opened, config.Verification.policy()); err != nil {
			return nil, errors.Join(fmt.Errorf("session: %w", err), s.close())
		}
	}
	if config.Dir == "" {
		// What is not removed now is removed at a later start.
		if err := secure.RemoveOldDevices(ctx, bot.Client, config.DeviceName, config.Password); err != nil {
			bot.Client.Log.Warn().Err(err).Msg("Could not remove the devices of earlier starts")
		}
	}
	return s, nil
}

// Backup is the account's key backup, nil without encryption.
func (b *Bot) Backup() *keybackup.Backup {
	if b.secured == nil {
		return nil
	}
	return b.secured.crypto.Backup()
}

// options are those of each store.
func (s *secured) options() []roomkv.Option {
	return []roomkv.Option{roomkv.WithKeyBackup(s.crypto.Backup())}
}

// close ends what encryption does. The sync must have ended.
func (s *secured) close() error {
	if s.verifier != nil {
		s.verifier.Close()
	}
	return s.crypto.Close()
}
