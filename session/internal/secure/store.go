package secure

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/sqlstatestore"
	"modernc.org/sqlite" // pure Go, so that a bot needs no C compiler
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/roomkv/roomkv/session/internal/folder"
)

// Folder is where a bot keeps what outlives its process, or a folder in memory.
type Folder interface {
	Path() string                            // "" in memory
	Read(name string) ([]byte, error)        // fails with fs.ErrNotExist where there is none
	Write(name string, content []byte) error // is atomic
	Remove(name string) error                // is no error where there is none
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// The files of this package.
const (
	dbFile       = "crypto.db"
	pickleFile   = "pickle.key"
	recoveryFile = "recovery.key"
	lockFile     = "crypto.lock"
)

// inMemory tells whether what is kept is lost with the process.
func (c *Crypto) inMemory() bool { return c.folder.Path() == "" }

// openStore opens the crypto store, and the store of rooms' states that goes with it.
func (c *Crypto) openStore(ctx context.Context) (err error) {
	if c.inMemory() {
		c.pickle = random(32)
		c.store = newMemoryStore()
		if c.client.StateStore == nil {
			c.client.StateStore = mautrix.NewMemoryStateStore()
		}
		return nil
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	if c.pickle, err = c.pickleKey(); err != nil {
		return fmt.Errorf("reading %s: %w", pickleFile, err)
	}
	if err := c.openDB(ctx); err != nil {
		return fmt.Errorf("opening %s: %w", dbFile, err)
	}
	return nil
}

// anew is how a bot goes on without what its crypto store had.
const anew = "remove " + dbFile + " and token.json, and start with the password and the recovery key: the bot makes another device, and reads its values by the key backup"

// asDamaged makes an error one of kind [folder.ErrDamaged] where SQLite says that the file is no database, or not a whole one.
func asDamaged(err error) error {
	var said *sqlite.Error
	if errors.As(err, &said) && slices.Contains([]int{sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB}, said.Code()&0xff) {
		return fmt.Errorf("%w: %s: %w", folder.ErrDamaged, anew, err)
	}
	return err
}

// lock keeps other processes out, for two that encrypted with one device at once would use the same key twice.
func (c *Crypto) lock(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, cmp.Or(c.config.LockWait, defaultLockWait))
	defer cancel()
	unlock, err := c.folder.Lock(waiting, lockFile)
	if err == nil {
		c.unlock = unlock
		return nil
	}
	if ctx.Err() == nil && waiting.Err() != nil {
		return fmt.Errorf("%w: another process of this bot has %s open; end it, or give this one a folder of its own", ErrInUse, dbFile)
	}
	return fmt.Errorf("locking %s: %w", lockFile, err)
}

// pickleKey is what the crypto store is encrypted with.
func (c *Crypto) pickleKey() ([]byte, error) {
	if len(c.config.PickleKey) > 0 {
		return c.config.PickleKey, nil
	}
	kept, err := c.folder.Read(pickleFile)
	if errors.Is(err, fs.ErrNotExist) {
		kept = random(32)
		err = c.folder.Write(pickleFile, kept)
	}
	return kept, err
}

func (c *Crypto) openDB(ctx context.Context) error {
	raw, err := openFile(filepath.Join(c.folder.Path(), dbFile))
	if err != nil {
		return err
	}
	c.closeDB = raw.Close
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		return err
	}
	state := sqlstatestore.NewSQLStateStore(db, nil, false)
	if err := state.Upgrade(ctx); err != nil {
		return err
	}
	c.client.StateStore = state
	store := crypto.NewSQLCryptoStore(db, nil, "", c.client.DeviceID, c.pickle)
	if err := store.DB.Upgrade(ctx); err != nil {
		return err
	}
	c.store = store
	of, err := store.FindDeviceID(ctx)
	if err != nil || of == "" || of == c.client.DeviceID {
		return err
	}
	return forgetDevice(ctx, store)
}

// forgetDevice removes what belongs to a device that is gone. The Megolm sessions stay, with which values are read.
func forgetDevice(ctx context.Context, store *crypto.SQLCryptoStore) error {
	return store.DB.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, table := range []string{"crypto_megolm_outbound_session_shared", "crypto_megolm_outbound_session", "crypto_olm_session", "crypto_account"} {
			if _, err := store.DB.Exec(ctx, "DELETE FROM "+table); err != nil {
				return err
			}
		}
		return nil
	})
}

// openFile opens a database that only its owner can read.
func openFile(name string) (*sql.DB, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would make it readable for all
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	query := url.Values{"_txlock": {"immediate"}, "_time_format": {"sqlite"}, "_pragma": {"foreign_keys(1)", "journal_mode(WAL)", "busy_timeout(5000)"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.ToSlash(name), RawQuery: query.Encode()}).String())
}

// reconcile makes the crypto store and the homeserver agree on whether the device's keys are published. A start that was killed between their upload
// and its answer has left them there.
func (c *Crypto) reconcile(ctx context.Context, there *published) error {
	account, err := c.store.GetAccount(ctx)
	if err != nil {
		return fmt.Errorf("%w: the device's keys in %s cannot be read with the pickle key: give the one from before (without one it is in %s), or %s: %w", folder.ErrDamaged, dbFile, pickleFile, anew, err)
	}
	if account == nil {
		if there.device != nil {
			return fmt.Errorf("%w: the keys of device %s are not in %s; sign in as another device: remove token.json, and give a password or OAuth in place of an access token", ErrNoDevice, c.client.DeviceID, dbFile)
		}
		return nil // mautrix makes one, and keeps it before it uploads
	}
	if there.device != nil && there.device.Keys.GetEd25519(c.client.DeviceID) != account.SigningKey() {
		return fmt.Errorf("%w: device %s has other keys on the homeserver than in %s; sign in as another device: %s", ErrNoDevice, c.client.DeviceID, dbFile, anew)
	}
	shared := there.device != nil // not so where the device was removed, and signed in again under its ID
	if account.Shared == shared {
		return nil
	}
	account.Shared = shared
	return c.store.PutAccount(ctx, account)
}

// published is what the homeserver has of the account's keys.
type published struct {
	device             *mautrix.DeviceKeys // of the client's device, nil where it has none
	master, self, user *mautrix.CrossSigningKeys
}

func (c *Crypto) published(ctx context.Context) (*published, error) {
	user, device := c.client.UserID, c.client.DeviceID
	found, err := c.client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: mautrix.DeviceIDList{device}}})
	if err == nil && found == nil {
		err = errNull
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the account's keys: %w", err)
	}
	there := &published{
		master: signingKey(found.MasterKeys, user), self: signingKey(found.SelfSigningKeys, user), user: signingKey(found.UserSigningKeys, user),
	}
	if keys, ok := found.DeviceKeys[user][device]; ok && len(keys.Keys) > 0 {
		there.device = &keys
	}
	return there, nil
}

func signingKey(of map[id.UserID]mautrix.CrossSigningKeys, user id.UserID) *mautrix.CrossSigningKeys {
	if key, ok := of[user]; ok && len(key.Keys) > 0 {
		return &key
	}
	return nil
}

func random(size int) []byte {
	text := make([]byte, size)
	_, _ = rand.Read(text) // does not fail (crypto/rand)
	return text
}
