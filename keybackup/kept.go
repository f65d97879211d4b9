package keybackup

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/crypto/utils"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

// keptKey is under which name the crypto store keeps the backup's key, encrypted with secret storage's. It is not the name under which clients
// share that key with one another: mautrix would give it to other devices.
const keptKey id.Secret = "roomkv.backup_key"

// kept is the backup's key as the crypto store keeps it, nil where it has none for the recovery key.
func kept(ctx context.Context, machine *crypto.OlmMachine, recoveryKey string) *backup.MegolmBackupKey {
	var sealed ssss.EncryptedKeyData
	own := utils.DecodeBase58RecoveryKey(trim(recoveryKey))
	text, err := machine.CryptoStore.GetSecret(ctx, keptKey)
	if own == nil || err != nil || json.Unmarshal([]byte(text), &sealed) != nil {
		return nil
	}
	raw, err := (&ssss.Key{Key: own}).Decrypt(event.AccountDataMegolmBackupKey.Type, sealed)
	if err != nil {
		return nil
	}
	key, err := backup.MegolmBackupKeyFromBytes(raw)
	if err != nil {
		return nil
	}
	return key
}

// keep has the crypto store keep the backup's key. That fails nothing: without it the next process reads secret storage.
func (s *storage) keep(ctx context.Context, machine *crypto.OlmMachine, key *backup.MegolmBackupKey) {
	text, err := json.Marshal(s.key.Encrypt(event.AccountDataMegolmBackupKey.Type, key.Bytes()))
	if err == nil {
		err = machine.CryptoStore.PutSecret(ctx, keptKey, string(text))
	}
	if err != nil {
		matrix.Logger(ctx, machine.Log).Warn().Err(err).Msg("Could not keep the key of the key backup in the crypto store")
	}
}
