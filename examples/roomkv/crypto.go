package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	_ "modernc.org/sqlite" // pure Go, so that the command needs no C compiler

	"github.com/roomkv/roomkv/keybackup"
)

// session is a login. Its crypto store is opened when the first encrypted room asks for it.
type session struct {
	client *mautrix.Client
	dir    string // where the crypto store is

	borrowed bool // whether it is by an access token that was given

	helper *cryptohelper.CryptoHelper
	lock   *sql.DB
	backup *keybackup.Backup
}

// pickleKey encrypts the crypto store. A key that is not a constant would have to lie beside it, so what protects the
// store is that only its owner can read the folder.
var pickleKey = []byte("roomkv")

// noRooms is a sync that brings the device's own messages, in which the keys are, and nothing else.
const noRooms = `{"room":{"rooms":[],"state":{"not_types":["*"]},"timeline":{"limit":1}},"presence":{"not_types":["*"]},"account_data":{"not_types":["*"]}}`

// maxSyncs bounds how many syncs one command waits for. One brings about a hundred keys.
const maxSyncs = 20

// encrypt makes the client read and write encrypted rooms, and opens the account's key backup where its recovery key is
// given.
func (s *session) encrypt(ctx context.Context, recoveryKey string) error {
	if s.helper == nil {
		if err := s.openStore(ctx); err != nil {
			return err
		}
		if err := s.fetchKeys(ctx); err != nil {
			return err
		}
	}
	if recoveryKey == "" || s.backup != nil {
		return nil
	}
	var err error
	s.backup, err = keybackup.Open(ctx, s.helper.Machine(), recoveryKey)
	return err
}

func (s *session) openStore(ctx context.Context) error {
	if s.client.DeviceID == "" {
		return errors.New("the access token has no device, which an encrypted room needs; log in with a password")
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(s.dir, "crypto-"+url.PathEscape(s.client.DeviceID.String()))
	if err := s.lockStore(ctx, name+".lock"); err != nil {
		return err
	}
	raw, err := openDB(name+".db", "immediate", "foreign_keys(1)", "journal_mode(WAL)", "busy_timeout(5000)")
	if err != nil {
		return err
	}
	store, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		return err
	}
	s.helper, err = cryptohelper.NewCryptoHelper(s.client, pickleKey, store)
	if err != nil {
		return err
	}
	if err := s.helper.Init(ctx); err != nil {
		return fmt.Errorf("opening the crypto store of device %s: %w (a device has one crypto store: use a login of its own, not the bot's token)", s.client.DeviceID, err)
	}
	s.client.Crypto = s.helper
	return nil
}

// lockStore keeps other processes out, for two that encrypted with one device at once would use the same key twice. SQLite
// locks files on every system, and lets go when the process ends.
func (s *session) lockStore(ctx context.Context, name string) error {
	var err error
	if s.lock, err = openDB(name, "exclusive", "busy_timeout(10000)"); err != nil {
		return err
	}
	if _, err := s.lock.BeginTx(ctx, nil); err != nil {
		return fmt.Errorf("another roomkv command has the crypto store of %s's device open; wait for it, or log in beside it with another --profile: %w", s.client.UserID, err)
	}
	return nil
}

// fetchKeys syncs until no more keys come.
func (s *session) fetchKeys(ctx context.Context) error {
	for range maxSyncs {
		since, err := s.client.Store.LoadNextBatch(ctx, s.client.UserID)
		if err != nil {
			return err
		}
		resp, err := s.client.SyncRequest(ctx, 0, since, noRooms, false, "offline")
		if err != nil {
			return fmt.Errorf("fetching keys: %w", err)
		}
		s.helper.Machine().ProcessSyncResponse(ctx, resp, since)
		if err := s.client.Store.SaveNextBatch(ctx, s.client.UserID, resp.NextBatch); err != nil {
			return err
		}
		if len(resp.ToDevice.Events) == 0 {
			return nil
		}
	}
	return nil
}

// close is for when the session is over.
func (s *session) close() error {
	var err error
	if s.helper != nil {
		err = s.helper.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

func (a *app) close() error {
	var err error
	for _, session := range a.sessions {
		err = errors.Join(err, session.close())
	}
	return err
}

// openDB opens a file that only its owner can read.
func openDB(name, lock string, pragmas ...string) (*sql.DB, error) {
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
	query := url.Values{"_txlock": {lock}, "_time_format": {"sqlite"}, "_pragma": pragmas}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.ToSlash(name), RawQuery: query.Encode()}).String())
}
