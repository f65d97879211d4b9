package keybackup

import (
	"context"
	"errors"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// SetUp makes a key backup for an account that has none, and returns the recovery key that [Open] takes. It is the only copy: whoever loses
// it and the crypto store loses what was encrypted.
//
// It is called once for an account; Open is for each start. With existingKey "" the account must have no secret storage, and gets it. If it
// has, because a person set it up in Element for example, existingKey must be that storage's (its passphrase does as well), and the
// backup's key is put there; the other secrets stay as they are. A backup key that is there already is used again. The machine must be
// loaded. SetUp does not set up cross-signing.
//
// It fails with [ErrBackupExists], which is for Open; with [ErrSecretStorageExists] where a recovery key is needed and [ErrNoSecretStorage]
// where one was given for nothing; with [ErrInvalidKey], [ErrWrongKey], [ErrUnsupported] or [ErrCorrupt]; or with the error of a request.
// Where it returns a recovery key beside an error, secret storage may have been made with it: keep the key, and call SetUp with it again.
//
// Nothing in Matrix lets one of two SetUps win, so one at a time may set up an account. Each ends by opening the backup, which mostly tells
// when there were two.
//
// It sends 10 requests, or 9 where secret storage has a backup key.
//
// The new backup is signed by this device, and by the user's master key if the machine has its private part, so that other clients trust it
// (Client-Server API, server-side key backups).
func SetUp(ctx context.Context, machine *crypto.OlmMachine, existingKey string) (recoveryKey string, opened *Backup, err error) {
	_, err = get[description](ctx, machine.Client, versionURL(machine.Client))
	if err == nil {
		return "", nil, fail(ErrBackupExists, "%s has one; Open opens it with the recovery key", machine.Client.UserID)
	} else if !errors.Is(err, mautrix.MNotFound) {
		return "", nil, wrap(err, "looking for a key backup")
	}
	stored, isNew, err := ensureStorage(ctx, machine.Client, existingKey)
	if err != nil {
		return "", nil, err
	}
	key, err := stored.ensureBackupKey(ctx, isNew)
	if err != nil {
		return "", nil, err
	}
	recoveryKey = stored.key.RecoveryKey()
	if isNew { // only now, so that what stopped before this is no storage yet
		content := ssss.DefaultSecretStorageKeyContent{KeyID: stored.key.ID}
		if err := stored.setAccountData(ctx, event.AccountDataSecretStorageDefaultKey.Type, content); err != nil {
			return recoveryKey, nil, wrap(err, "making the new key that of secret storage")
		}
	}
	if err := createVersion(ctx, machine, key); err != nil {
		return recoveryKey, nil, err
	}
	opened, err = openStored(ctx, machine, recoveryKey)
	return recoveryKey, opened, err
}

// ensureStorage opens secret storage, or makes a key for it where there is none.
func ensureStorage(ctx context.Context, client *mautrix.Client, recoveryKey string) (stored *storage, isNew bool, err error) {
	if recoveryKey != "" {
		stored, err = openStorage(ctx, client, recoveryKey)
		return stored, false, err
	}
	keyID, err := defaultKey(ctx, client)
	if err != nil {
		return nil, false, wrap(err, "looking for secret storage")
	} else if keyID != "" {
		return nil, false, fail(ErrSecretStorageExists, "%s has it, with key %q; give its recovery key", client.UserID, keyID)
	}
	key, err := ssss.NewKey("")
	if err == nil {
		err = send(ctx, client, http.MethodPut, keyURL(client, key.ID), key.Metadata)
	}
	if err != nil {
		return nil, false, wrap(err, "making a key for secret storage")
	}
	return &storage{client, key, true}, true, nil
}

func (s *storage) setAccountData(ctx context.Context, name string, content any) error {
	return send(ctx, s.client, http.MethodPut, accountDataURL(s.client, name), content)
}

// ensureBackupKey reads the backup's private key from secret storage, or makes one and puts it there. What it replaces,
// in new storage or where it is not encrypted for this key, is a key to no backup.
func (s *storage) ensureBackupKey(ctx context.Context, isNew bool) (*backup.MegolmBackupKey, error) {
	if !isNew {
		if key, err := s.backupKey(ctx); !errors.Is(err, ErrNoSecret) {
			return key, err
		}
		if !s.verified {
			return nil, fail(ErrCorrupt, "nothing in secret storage tells whether the recovery key is the right one")
		}
	}
	key, err := backup.NewMegolmBackupKey()
	if err != nil {
		return nil, err
	}
	name := event.AccountDataMegolmBackupKey.Type
	content := ssss.EncryptedAccountDataEventContent{Encrypted: map[string]ssss.EncryptedKeyData{s.key.ID: s.key.Encrypt(name, key.Bytes())}}
	if err := s.setAccountData(ctx, name, content); err != nil {
		return nil, wrap(err, "putting the backup's key into secret storage")
	}
	return key, nil
}

// createVersion makes the backup itself. Where an answer is lost it can make two, for the same key, of which the later counts.
func createVersion(ctx context.Context, machine *crypto.OlmMachine, key *backup.MegolmBackupKey) error {
	data, err := authData(machine, key)
	if err != nil {
		return err
	}
	err = send(ctx, machine.Client, http.MethodPost, versionURL(machine.Client), &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1,
		AuthData:  *data,
	})
	if err != nil {
		return wrap(err, "making a key backup")
	}
	return nil
}

// authData describes a backup for the key, signed (Client-Server API, AuthData of m.megolm_backup.v1.curve25519-aes-sha2).
func authData(machine *crypto.OlmMachine, key *backup.MegolmBackupKey) (*backup.MegolmAuthData, error) {
	data := &backup.MegolmAuthData{PublicKey: publicKey(key)}
	user, device := machine.Client.UserID, machine.Client.DeviceID
	signature, err := machine.GetAccount().SignJSON(data)
	if err != nil {
		return nil, err
	}
	signed := signatures.NewSingleSignature(user, id.KeyAlgorithmEd25519, device.String(), signature)
	if machine.CrossSigningKeys != nil && machine.CrossSigningKeys.MasterKey != nil {
		master := machine.CrossSigningKeys.MasterKey
		if signature, err = master.SignJSON(data); err != nil {
			return nil, err
		}
		signed[user][id.NewKeyID(id.KeyAlgorithmEd25519, master.PublicKey().String())] = signature
	}
	data.Signatures = signed
	return data, nil
}
