package keybackup

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/roomkv/roomkv/internal/matrix"
)

// The errors of this package, for [errors.Is]. Each error's text adds what can be done, or the room, the session and
// the backup version. Where the homeserver refused something, mautrix's error is found beneath too, for example
// [mautrix.MUnknownToken]. No error's text holds a key.
var (
	// ErrInvalidKey: what was given as a key is not one: mistyped, cut off, or something else.
	ErrInvalidKey = errors.New("invalid key")

	// ErrWrongKey: the recovery key, or the passphrase, is not that of the account's secret storage.
	ErrWrongKey = errors.New("wrong recovery key")

	// ErrNoSecretStorage: the account has no secret storage, or none that is marked as the default.
	ErrNoSecretStorage = errors.New("no secret storage")

	// ErrNoSecret: the account's secret storage does not hold the backup's key.
	ErrNoSecret = errors.New("no backup key in secret storage")

	// ErrNoBackup: the account has no key backup, or has none any more.
	ErrNoBackup = errors.New("no key backup")

	// ErrKeyMismatch: the account's key backup is for another key. Nothing is saved to it, for it could not be
	// read again. Where that happens after the backup was opened, somebody has replaced it.
	ErrKeyMismatch = errors.New("key backup is for another key")

	// ErrUnsupported: secret storage or the backup uses an algorithm that this package does not know.
	ErrUnsupported = errors.New("unsupported algorithm")

	// ErrSecretStorageExists: the account has secret storage, and its recovery key was not given.
	ErrSecretStorageExists = errors.New("secret storage exists")

	// ErrBackupExists: the account has a key backup.
	ErrBackupExists = errors.New("key backup exists")

	// ErrNoSession: the crypto store does not have the session.
	ErrNoSession = errors.New("no such session")

	// ErrPartialSession: this device made the session, and the crypto store no longer has its beginning, so some of
	// what was encrypted with it could not be read with the backup.
	ErrPartialSession = errors.New("session without its beginning")

	// ErrCorrupt: what the homeserver has is not what it should be.
	ErrCorrupt = errors.New("corrupt data")
)

// fail makes an error of kind, a sentinel of this file.
func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("keybackup: %w: "+format, append([]any{kind}, args...)...)
}

// wrap says what failed with err. An answer of the homeserver that is no error and cannot be decoded is ErrCorrupt.
func wrap(err error, doing string, args ...any) error {
	doing = fmt.Sprintf(doing, args...)
	if errors.Is(err, matrix.ErrAnswer) {
		return fail(ErrCorrupt, "%s: %w", doing, err)
	}
	return fmt.Errorf("keybackup: %s: %w", doing, err)
}

// refused tells whether a request failed by the homeserver's word: not on the way there or back, and not for the moment, but that
// Dendrite has one answer for both.
func refused(err error) bool {
	status := matrix.Status(err)
	return status >= 400 && status <= http.StatusInternalServerError && status != http.StatusTooManyRequests
}
