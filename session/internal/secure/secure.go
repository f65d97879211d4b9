package secure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/keybackup"
)

// Config says whose encryption is opened, and where it is kept.
type Config struct {
	Client *mautrix.Client // signed in; its sync has not begun
	Folder Folder

	RecoveryKey   string // "" is the folder's, or a new one
	OnRecoveryKey func(ctx context.Context, key string) error
	PickleKey     []byte // nil is the folder's, or a new one
	Password      string // for a homeserver that asks for it before it takes cross-signing keys; "" where it is not known

	LockWait time.Duration // how long a start waits for the process before it to end; 0 is 10 seconds
}

const defaultLockWait = 10 * time.Second

// Crypto is the encryption of a client.
type Crypto struct {
	client *mautrix.Client
	folder Folder
	config Config

	unlock  func()
	closeDB func() error
	store   crypto.Store
	pickle  []byte
	machine *crypto.OlmMachine
	backup  *keybackup.Backup
}

// Open gives the client encryption, and sets up for the account what it does not have. It fails with an error of this package, of package
// keybackup, of a request, or of OnRecoveryKey. After an error the client is not to be used.
//
// A start where all is done makes three requests: two for the account's keys, and one for the key backup.
func Open(ctx context.Context, config Config) (opened *Crypto, err error) {
	c := &Crypto{client: config.Client, folder: config.Folder, config: config}
	if c.client.UserID == "" || c.client.DeviceID == "" {
		return nil, fmt.Errorf("%w: the access token has no device; sign in with a password, or leave encryption out", ErrNoDevice)
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(asDamaged(err), c.Close())
	}
	return c, nil
}

func (c *Crypto) open(ctx context.Context) error {
	if err := c.openStore(ctx); err != nil {
		return err
	}
	there, err := c.published(ctx)
	if err != nil {
		return err
	}
	key, err := c.recoveryKey(ctx, there)
	if err != nil {
		return err
	}
	if err := c.start(ctx, there); err != nil {
		return err
	}
	if err := c.crossSigning(ctx, key, there); err != nil {
		return err
	}
	if c.backup, err = c.openBackup(ctx, key); err != nil {
		return err
	}
	return c.handOver(ctx, key)
}

// start loads the device's keys, publishes them where the homeserver does not have them, and makes the client encrypt.
func (c *Crypto) start(ctx context.Context, there *published) error {
	if err := c.reconcile(ctx, there); err != nil {
		return err
	}
	helper, err := cryptohelper.NewCryptoHelper(c.client, c.pickle, c.store)
	if err != nil {
		return err
	}
	if err := helper.Init(ctx); err != nil {
		return fmt.Errorf("loading the keys of device %s: %w", c.client.DeviceID, err)
	}
	c.machine = helper.Machine()
	// The helper does so for stores that it has made itself.
	c.client.Syncer.(mautrix.ExtensibleSyncer).OnEvent(c.client.StateStoreSyncHandler)
	c.client.Crypto = helper
	return nil
}

// openBackup opens the account's key backup, or makes it where there is none.
func (c *Crypto) openBackup(ctx context.Context, key *ssss.Key) (*keybackup.Backup, error) {
	backup, err := keybackup.Open(ctx, c.machine, key.RecoveryKey())
	if errors.Is(err, keybackup.ErrNoBackup) || errors.Is(err, keybackup.ErrNoSecret) {
		_, backup, err = keybackup.SetUp(ctx, c.machine, key.RecoveryKey())
	}
	switch {
	case errors.Is(err, keybackup.ErrWrongKey), errors.Is(err, keybackup.ErrInvalidKey):
		return nil, fmt.Errorf("%w: %w", ErrWrongRecoveryKey, err)
	case errors.Is(err, keybackup.ErrBackupExists):
		return nil, fmt.Errorf("secret storage does not have the key of the account's key backup; reset the key backup in another client: %w", err)
	}
	return backup, err
}

// Machine is mautrix's.
func (c *Crypto) Machine() *crypto.OlmMachine { return c.machine }

// Backup is the account's key backup.
func (c *Crypto) Backup() *keybackup.Backup { return c.backup }

// Close ends the use of the crypto store. The client's sync must have ended.
func (c *Crypto) Close() (err error) {
	if c.machine != nil {
		c.machine.Destroy()
	}
	if c.closeDB != nil {
		err = c.closeDB()
	}
	if c.unlock != nil {
		c.unlock()
	}
	return err
}

// secrets are the types of account data that have the private keys of cross-signing, in secret storage.
var secrets = [...]event.Type{event.AccountDataCrossSigningMaster, event.AccountDataCrossSigningSelf, event.AccountDataCrossSigningUser}
