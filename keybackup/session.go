package keybackup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	goolm "maunium.net/go/mautrix/crypto/goolm/session"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/id"
)

// sealedSession is a session as the homeserver keeps it (Client-Server API, KeyBackupData).
type sealedSession = mautrix.RespKeyBackupData[backup.EncryptedSessionData[backup.MegolmSessionData]]

// seal encrypts a session for the backup, from its first known message on.
//
// Of two uploads of one session the homeserver keeps the better one: verified, then from an earlier message, then
// forwarded less often. A session that this device made is all of it, so nothing that another device saves, which may
// have been given the session later, takes its place. Of any other session this package does not know whether its device
// is verified.
func (b *Backup) seal(session *crypto.InboundGroupSession) (*mautrix.ReqKeyBackupData, error) {
	first := session.Internal.FirstKnownIndex()
	key, err := export(session.Internal, first)
	if err != nil {
		return nil, wrap(err, "exporting %v", place{session.RoomID, session.Internal.ID()})
	}
	chain := session.ForwardingChains
	if chain == nil {
		chain = []string{} // the field is a required array
	}
	sealed, err := backup.EncryptSessionData(b.key, backup.MegolmSessionData{
		Algorithm:          id.AlgorithmMegolmV1,
		ForwardingKeyChain: chain,
		SenderClaimedKeys:  backup.SenderClaimedKeys{Ed25519: session.SigningKey},
		SenderKey:          session.SenderKey,
		SessionKey:         string(key),
		SharedHistory:      session.SharedHistory,
	})
	if err != nil {
		return nil, wrap(err, "encrypting %v", place{session.RoomID, session.Internal.ID()})
	}
	data, err := json.Marshal(sealed)
	if err != nil {
		return nil, wrap(err, "encoding %v", place{session.RoomID, session.Internal.ID()})
	}
	return &mautrix.ReqKeyBackupData{
		FirstMessageIndex: int(first),
		ForwardedCount:    len(chain),
		IsVerified:        b.isOwn(session),
		SessionData:       data,
	}, nil
}

// isOwn tells whether this device made the session, by what mautrix goes by when it trusts its own messages.
func (b *Backup) isOwn(session *crypto.InboundGroupSession) bool {
	return session.KeySource == id.KeySourceDirect && len(session.ForwardingChains) == 0 &&
		session.SenderKey == b.self.IdentityKey && session.SigningKey == b.self.SigningKey
}

// export gives the session key at a message, in the format of key exports (Client-Server API, session export format).
//
// A crypto store in memory hands out the very session that the machine decrypts with meanwhile. In mautrix's own Olm
// decrypting moves one ratchet of the session, which its Export reads too, and what came of it could be wrong; the other
// ratchet stays where it began.
func export(session olm.InboundGroupSession, message uint32) ([]byte, error) {
	own, ok := session.(*goolm.MegolmInboundSession)
	if !ok {
		return session.Export(message)
	}
	ratchet := own.InitialRatchet
	if message < ratchet.Counter {
		return nil, olm.ErrUnknownMessageIndex
	}
	ratchet.AdvanceTo(message)
	return ratchet.SessionExportMessage(own.SigningKey)
}

// take puts a session from the backup into the crypto store, unless what the store has begins as early.
//
// Nothing of what the homeserver sends is trusted. Anybody who knows the backup's public key can make data for it, and the
// MAC of this backup algorithm covers nothing. The session's ID is its public signing key, so a wrong ratchet decrypts
// nothing; but in the store it would stand in the way of the right one, so it must lead to the same keys as what the store
// has. The data do not say which room they are for, and mautrix's SQL store has a session once: in a store that has
// it for one room, another room would take it away from there. rooms tells of the sessions that the store has.
func (b *Backup) take(ctx context.Context, version id.KeyBackupVersion, at place, sealed *sealedSession, rooms map[id.SessionID]id.RoomID) error {
	if sealed.SessionData.Ephemeral.PublicKey == nil { // on which Decrypt panics
		return fail(ErrCorrupt, "the key backup's data of %v are incomplete", at)
	}
	// The cause stays out of the text of these errors, for it may quote what was decrypted.
	data, err := sealed.SessionData.Decrypt(b.key)
	if err != nil || data.Algorithm != id.AlgorithmMegolmV1 {
		return fail(ErrCorrupt, "the key backup's data of %v cannot be decrypted, or are not of a Megolm session", at)
	}
	restored, err := olm.InboundGroupSessionImport([]byte(data.SessionKey))
	if err != nil || restored.ID() != at.session {
		return fail(ErrCorrupt, "the key backup's data of %v hold no session key, or another session's", at)
	}

	existing, err := b.machine.CryptoStore.GetGroupSession(ctx, at.room, at.session)
	if err != nil && !errors.Is(err, crypto.ErrGroupSessionWithheld) {
		return wrap(err, "reading %v from the crypto store", at)
	}
	if existing == nil {
		if room, ok := rooms[at.session]; ok {
			return fail(ErrCorrupt, "the key backup has session %s for %s, and the crypto store for %s", at.session, at.room, room)
		}
	} else {
		later := max(existing.Internal.FirstKnownIndex(), restored.FirstKnownIndex())
		ours, err := export(existing.Internal, later)
		theirs, err2 := export(restored, later)
		if err != nil || err2 != nil || !bytes.Equal(ours, theirs) {
			return fail(ErrCorrupt, "the key backup's key of %v is not that of the crypto store's", at)
		}
		if existing.Internal.FirstKnownIndex() <= restored.FirstKnownIndex() {
			return nil
		}
	}
	if _, err := b.machine.ImportRoomKeyFromBackup(ctx, version, at.room, at.session, data); err != nil {
		return wrap(err, "writing %v to the crypto store", at)
	}
	return nil
}

// rooms tells for which room the crypto store has each session.
func (b *Backup) rooms(ctx context.Context) (map[id.SessionID]id.RoomID, error) {
	rooms := map[id.SessionID]id.RoomID{}
	err := b.machine.CryptoStore.GetAllGroupSessions(ctx).Iter(func(session *crypto.InboundGroupSession) (bool, error) {
		rooms[session.Internal.ID()] = session.RoomID
		return true, nil
	})
	if err != nil {
		return nil, wrap(err, "reading the crypto store")
	}
	return rooms, nil
}
