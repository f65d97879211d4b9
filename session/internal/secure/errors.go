package secure

import "errors"

// The errors of this package, for [errors.Is]. No error's text holds a key or a password.
// errNull is for an answer that is null, where mautrix gives nil.
var errNull = errors.New("the homeserver's answer is null")

var (
	// ErrInUse: another process has the crypto store open.
	ErrInUse = errors.New("the folder is in use")

	// ErrNoDevice: the bot's device cannot encrypt. Its keys are not in the crypto store, or there is no device at all.
	ErrNoDevice = errors.New("no device for encryption")

	// ErrRecoveryKeyNeeded: the account has secret storage, or there is nowhere to keep a new recovery key, and none was given.
	ErrRecoveryKeyNeeded = errors.New("recovery key needed")

	// ErrWrongRecoveryKey: the recovery key is not that of the account's secret storage, or is no recovery key.
	ErrWrongRecoveryKey = errors.New("wrong recovery key")

	// ErrCrossSigning: the account has cross-signing keys, and secret storage does not have their private keys.
	ErrCrossSigning = errors.New("cross-signing cannot be used")
)
