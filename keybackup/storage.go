package keybackup

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/crypto/utils"
	"maunium.net/go/mautrix/event"
)

// storage is an account's secret storage (Client-Server API, secrets), unlocked.
type storage struct {
	client   *mautrix.Client
	key      *ssss.Key
	verified bool // the description of the key confirms it; it need not say anything
}

// openStorage unlocks the account's secret storage with its recovery key or passphrase.
func openStorage(ctx context.Context, client *mautrix.Client, secret string) (*storage, error) {
	var description ssss.KeyMetadata
	keyID, err := defaultKey(ctx, client)
	if err == nil && keyID != "" {
		description, err = get[ssss.KeyMetadata](ctx, client, keyURL(client, keyID))
	}
	switch {
	case errors.Is(err, mautrix.MNotFound) || err == nil && keyID == "":
		return nil, fail(ErrNoSecretStorage, "%s has none; SetUp makes it", client.UserID)
	case err != nil:
		return nil, wrap(err, "looking for secret storage")
	case description.Algorithm != ssss.AlgorithmAESHMACSHA2:
		return nil, fail(ErrUnsupported, "the key of secret storage, %q, is for %q", keyID, description.Algorithm)
	}
	key, err := description.VerifyRecoveryKey(keyID, trim(secret))
	if errors.Is(err, ssss.ErrInvalidRecoveryKey) && description.Passphrase != nil && secret != "" {
		passphrase := description.Passphrase
		if passphrase.Iterations < 1 || passphrase.Iterations > maxIterations || passphrase.Bits != 0 && passphrase.Bits != 8*keySize {
			return nil, fail(ErrUnsupported, "the passphrase of secret storage takes %d iterations to a key of %d bits", passphrase.Iterations, passphrase.Bits)
		}
		key, err = description.VerifyPassphrase(keyID, secret)
	}
	switch {
	case err == nil:
		return &storage{client, key, description.MAC != "" && description.IV != ""}, nil
	case errors.Is(err, ssss.ErrUnverifiableKey):
		return &storage{client, key, false}, nil
	case errors.Is(err, ssss.ErrIncorrectSSSSKey):
		return nil, fail(ErrWrongKey, "it does not fit secret storage's key %q", keyID)
	case errors.Is(err, ssss.ErrInvalidRecoveryKey):
		return nil, fail(ErrInvalidKey, "a recovery key is 48 letters and digits in groups of four, and its last byte is a check on the others")
	case errors.Is(err, ssss.ErrUnsupportedPassphraseAlgorithm):
		return nil, fail(ErrUnsupported, "the passphrase of secret storage: %w", err)
	}
	return nil, fail(ErrCorrupt, "the description of secret storage's key %q: %w", keyID, err)
}

// defaultKey is the ID of the key that the account's secret storage is protected with, empty where there is none.
func defaultKey(ctx context.Context, client *mautrix.Client) (keyID string, err error) {
	found, err := get[ssss.DefaultSecretStorageKeyContent](ctx, client, accountDataURL(client, event.AccountDataSecretStorageDefaultKey.Type))
	if errors.Is(err, mautrix.MNotFound) {
		return "", nil
	}
	return found.KeyID, err
}

// keyURL is that of the description of secret storage's key.
func keyURL(client *mautrix.Client, keyID string) string {
	return accountDataURL(client, event.AccountDataSecretStorageKey.Type+"."+keyID)
}

// backupKey reads the backup's private key.
func (s *storage) backupKey(ctx context.Context) (*backup.MegolmBackupKey, error) {
	secret, err := get[ssss.EncryptedAccountDataEventContent](ctx, s.client, accountDataURL(s.client, event.AccountDataMegolmBackupKey.Type))
	switch {
	case errors.Is(err, mautrix.MNotFound):
		return nil, fail(ErrNoSecret, "%s has no %s", s.client.UserID, event.AccountDataMegolmBackupKey.Type)
	case err != nil:
		return nil, wrap(err, "reading the backup's key from secret storage")
	}
	raw, err := secret.Decrypt(event.AccountDataMegolmBackupKey.Type, s.key)
	switch {
	case errors.Is(err, ssss.ErrNotEncryptedForKey):
		return nil, fail(ErrNoSecret, "%s is not encrypted for secret storage's key %q", event.AccountDataMegolmBackupKey.Type, s.key.ID)
	case errors.Is(err, ssss.ErrKeyDataMACMismatch) && !s.verified:
		return nil, fail(ErrWrongKey, "it does not decrypt %s", event.AccountDataMegolmBackupKey.Type)
	case err != nil:
		return nil, fail(ErrCorrupt, "%s cannot be decrypted", event.AccountDataMegolmBackupKey.Type)
	}
	key, err := backup.MegolmBackupKeyFromBytes(raw)
	if err != nil {
		return nil, fail(ErrCorrupt, "%s holds %d bytes, the key of a backup is %d", event.AccountDataMegolmBackupKey.Type, len(raw), keySize)
	}
	return key, nil
}

// ParseKey reads a backup's private key from text: base64, as tools show it, or the form that recovery keys have (which, in
// accounts without secret storage, are the key of the backup itself). It fails with [ErrInvalidKey].
func ParseKey(text string) ([]byte, error) {
	text = trim(text)
	if key := utils.DecodeBase58RecoveryKey(text); key != nil {
		return key, nil
	}
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(key) != keySize {
		return nil, fail(ErrInvalidKey, "it is neither the base64 of %d bytes nor a recovery key", keySize)
	}
	return key, nil
}

// trim removes the spaces that make a key easier to read, and others that come with copying it.
func trim(key string) string { return strings.Join(strings.Fields(key), "") }
