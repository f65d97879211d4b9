package secure

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/crypto/utils"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/session/internal/folder"
)

// NewRecoveryKey makes a recovery key (Client-Server API, recovery key).
func NewRecoveryKey() string { return utils.EncodeBase58RecoveryKey(random(32)) }

// recoveryKey is the key that was given, or the folder's, or a new one where the account has neither secret storage nor cross-signing. A new one is in
// the folder before the homeserver gets anything.
func (c *Crypto) recoveryKey(ctx context.Context, there *published) (*ssss.Key, error) {
	text := c.config.RecoveryKey
	if text == "" {
		kept, err := c.folder.Read(recoveryFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading %s: %w", recoveryFile, err)
		}
		text = string(kept)
	}
	if text == "" {
		made, err := c.makeRecoveryKey(ctx, there)
		if err != nil {
			return nil, err
		}
		text = made
	}
	raw := utils.DecodeBase58RecoveryKey(strings.Join(strings.Fields(text), ""))
	if raw == nil && c.config.RecoveryKey == "" {
		return nil, fmt.Errorf("%w: %s has no recovery key: remove it, and give the key of %s", folder.ErrDamaged, recoveryFile, c.client.UserID)
	}
	if raw == nil {
		return nil, fmt.Errorf("%w: a recovery key is 48 letters and digits in groups of four, and its last byte is a check on the others", ErrWrongRecoveryKey)
	}
	return &ssss.Key{Key: raw}, nil
}

func (c *Crypto) makeRecoveryKey(ctx context.Context, there *published) (string, error) {
	keyID, err := c.defaultKey(ctx)
	switch {
	case err != nil:
		return "", err
	case keyID != "":
		return "", fmt.Errorf("%w: %s has secret storage; give its recovery key", ErrRecoveryKeyNeeded, c.client.UserID)
	case there.master != nil:
		return "", c.noSeeds()
	case c.inMemory():
		return "", fmt.Errorf("%w: make one with NewRecoveryKey, keep it, and give it at each start; without a folder a new one would be lost", ErrRecoveryKeyNeeded)
	}
	made := NewRecoveryKey()
	if err := c.folder.Write(recoveryFile, []byte(made+"\n")); err != nil {
		return "", fmt.Errorf("keeping the new recovery key: %w", err)
	}
	return made, nil
}

// handOver tells of a recovery key that was made here, and forgets it once somebody else has it.
func (c *Crypto) handOver(ctx context.Context, key *ssss.Key) error {
	if c.config.OnRecoveryKey == nil {
		return nil
	}
	kept, err := c.folder.Read(recoveryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("reading %s: %w", recoveryFile, err)
	}
	made := strings.TrimSpace(string(kept))
	if made != key.RecoveryKey() {
		return nil
	}
	if err := c.config.OnRecoveryKey(ctx, made); err != nil {
		return fmt.Errorf("handing over the recovery key, which %s keeps until that is done: %w", recoveryFile, err)
	}
	return c.folder.Remove(recoveryFile)
}

// openStorage completes the key with its name in the account's secret storage, and makes secret storage with it where there is none. It tells
// whether the description of the key has confirmed it.
func (c *Crypto) openStorage(ctx context.Context, key *ssss.Key, there *published) (confirmed bool, err error) {
	if key.ID, err = c.defaultKey(ctx); err != nil {
		return false, err
	}
	if key.ID == "" {
		return true, c.makeStorage(ctx, key, there)
	}
	var description ssss.KeyMetadata
	err = c.client.GetAccountData(ctx, event.AccountDataSecretStorageKey.Type+"."+key.ID, &description)
	switch {
	case errors.Is(err, mautrix.MNotFound):
		return false, fmt.Errorf("%w: secret storage's key %q is not described on the homeserver; reset secret storage in another client", ErrWrongRecoveryKey, key.ID)
	case err != nil:
		return false, fmt.Errorf("looking for the key of secret storage: %w", err)
	case description.Algorithm != ssss.AlgorithmAESHMACSHA2:
		return false, fmt.Errorf("%w: the key of secret storage, %q, is for %q, which is not known here", ErrWrongRecoveryKey, key.ID, description.Algorithm)
	}
	_, err = description.VerifyRecoveryKey(key.ID, key.RecoveryKey())
	switch {
	case errors.Is(err, ssss.ErrUnverifiableKey): // the specification allows a description without a check
		return false, nil
	case errors.Is(err, ssss.ErrIncorrectSSSSKey):
		return false, fmt.Errorf("%w: it does not fit secret storage's key %q; give the one that %s has now", ErrWrongRecoveryKey, key.ID, c.client.UserID)
	case err != nil:
		return false, fmt.Errorf("the description of secret storage's key %q: %w", key.ID, err)
	}
	return true, nil
}

// makeStorage has no name to choose: it follows from the key. So a start that was killed in it, and the next, make one key and not two.
func (c *Crypto) makeStorage(ctx context.Context, key *ssss.Key, there *published) error {
	if there.master != nil {
		return c.noSeeds()
	}
	described, err := ssss.WrapKey(key.Key, nil)
	if err != nil {
		return err
	}
	name := sha256.Sum256(append([]byte("roomkv secret storage "), key.Key...))
	key.ID, key.Metadata = base64.RawURLEncoding.EncodeToString(name[:24]), described.Metadata
	if err := c.client.SetAccountData(ctx, event.AccountDataSecretStorageKey.Type+"."+key.ID, key.Metadata); err != nil {
		return fmt.Errorf("making secret storage: %w", err)
	}
	content := ssss.DefaultSecretStorageKeyContent{KeyID: key.ID}
	if err := c.client.SetAccountData(ctx, event.AccountDataSecretStorageDefaultKey.Type, content); err != nil {
		return fmt.Errorf("making the recovery key that of secret storage: %w", err)
	}
	return nil
}

// defaultKey is the name of secret storage's key, "" where there is none.
func (c *Crypto) defaultKey(ctx context.Context) (string, error) {
	var content ssss.DefaultSecretStorageKeyContent
	err := c.client.GetAccountData(ctx, event.AccountDataSecretStorageDefaultKey.Type, &content)
	if err != nil && !errors.Is(err, mautrix.MNotFound) {
		return "", fmt.Errorf("looking for secret storage: %w", err)
	}
	return content.KeyID, nil
}

func (c *Crypto) noSeeds() error {
	return fmt.Errorf("%w: %s has cross-signing keys whose private keys are not in its secret storage; reset cross-signing in another client", ErrCrossSigning, c.client.UserID)
}
