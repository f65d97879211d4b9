// Package keybackup keeps the Megolm sessions that a bot encrypts with in its account's server-side key backup, so
// that what it wrote into encrypted rooms outlives the crypto store: a new device that has the account's recovery key,
// and where keys are sealed their secret, reads it all again.
//
// [Open] takes the recovery key that Element shows, [OpenWithKey] the backup's own key, and [SetUp] makes secret
// storage and a backup for an account that has none. The homeserver never sees a key: sessions are sealed for the
// backup's public key before they are sent.
//
//	helper, err := cryptohelper.NewCryptoHelper(client, pickleKey, "crypto.db")
//	err = helper.Init(ctx)
//	backup, err := keybackup.Open(ctx, helper.Machine(), recoveryKey)
//
// The backup is the one that Element and other clients use (m.megolm_backup.v1.curve25519-aes-sha2), so they read what
// is saved here, and the other way round.
//
// Whoever has the recovery key and the account reads everything. The homeserver cannot read the backup, but it can lose it,
// and it can hand out something else: a backup does not tell who put a session there. So mautrix gives what was
// decrypted with a restored session the trust id.TrustStateBackup, and no more.
//
// This package imports mautrix/crypto, which needs libolm, or the build tag goolm.
package keybackup
