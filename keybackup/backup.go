package keybackup

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"weak"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/asked"
	"github.com/roomkv/roomkv/internal/matrix"
)

// Backup is an account's server-side key backup, together with the crypto store that sessions are saved from and restored
// to. Its methods are safe for concurrent use, also while the machine is in use.
type Backup struct {
	machine *crypto.OlmMachine
	self    *id.Device
	key     *backup.MegolmBackupKey

	saving    calls[place]
	restoring calls[place]
	asking    calls[struct{}]

	mu      sync.Mutex
	version id.KeyBackupVersion
	asked   asked.Time                 // when the homeserver was last asked, and said that version is the account's backup
	latest  map[id.RoomID]id.SessionID // what was last found to be in version; the crypto store knows the others

	// records guards the field KeyBackupVersion of sessions, for a crypto store in memory gives everybody the same.
	records sync.Mutex
}

// place is where a session is in a backup.
type place struct {
	room    id.RoomID
	session id.SessionID
}

func (p place) String() string { return fmt.Sprintf("session %s of %s", p.session, p.room) }

// Open opens the account's key backup with the account's recovery key, as Element shows it when it sets up secret
// storage; where the account's secret storage has a passphrase, that passphrase does as well. The key must be the one that
// the account's storage is protected with now (the default key), and the storage must hold the backup's key
// (m.megolm_backup.v1). The machine must be loaded, as it is after cryptohelper's Init.
//
// It keeps the backup's key in the crypto store, encrypted with the recovery key as secret storage has it. The first Open of a process that finds
// the key there does not read secret storage, unless the account's backup has another key by now. That is not so with a passphrase.
//
// It fails with [ErrInvalidKey], [ErrWrongKey], [ErrNoSecretStorage], [ErrNoSecret], [ErrNoBackup], [ErrKeyMismatch],
// [ErrUnsupported] or [ErrCorrupt], or with the error of a request. It sends four requests, one where the crypto store has the key, all of them
// reading.
//
// A backup is trusted only if its public key is that of the private key, one of the two ways that the specification
// allows before anything is saved to a backup (Client-Server API, server-side key backups). The other one, a signature, is
// not enough here: what is saved to a backup must be readable again with this key.
func Open(ctx context.Context, machine *crypto.OlmMachine, recoveryKey string) (*Backup, error) {
	if _, again := openedBefore.LoadOrStore(weak.Make(machine), true); !again {
		if key := kept(ctx, machine, recoveryKey); key != nil {
			if opened, err := open(ctx, machine, key); !errors.Is(err, ErrKeyMismatch) {
				return opened, err
			}
		}
	}
	return openStored(ctx, machine, recoveryKey)
}

// openedBefore has the machines for which the backup was opened: who opens it again wants to know what is there now.
var openedBefore sync.Map // of weak.Pointer[crypto.OlmMachine]

// openStored is Open by what secret storage has.
func openStored(ctx context.Context, machine *crypto.OlmMachine, recoveryKey string) (*Backup, error) {
	openedBefore.Store(weak.Make(machine), true)
	stored, err := openStorage(ctx, machine.Client, recoveryKey)
	if err != nil {
		return nil, err
	}
	key, err := stored.backupKey(ctx)
	if err != nil {
		return nil, err
	}
	opened, err := open(ctx, machine, key)
	if err == nil {
		stored.keep(ctx, machine, key)
	}
	return opened, err
}

// OpenWithKey opens the account's key backup with the backup's own private key, 32 bytes, which [ParseKey] reads from
// text. The machine must be loaded.
//
// It fails with [ErrInvalidKey], [ErrNoBackup], [ErrKeyMismatch], which here mostly means that the key is wrong,
// [ErrUnsupported] or [ErrCorrupt], or with the error of the request; there is one.
func OpenWithKey(ctx context.Context, machine *crypto.OlmMachine, key []byte) (*Backup, error) {
	private, err := backup.MegolmBackupKeyFromBytes(key)
	if err != nil {
		return nil, fail(ErrInvalidKey, "the key of a backup is 32 bytes long, this is %d", len(key))
	}
	return open(ctx, machine, private)
}

func open(ctx context.Context, machine *crypto.OlmMachine, key *backup.MegolmBackupKey) (*Backup, error) {
	now := asked.Now(false)
	version, err := currentVersion(ctx, machine.Client, key)
	if err != nil {
		return nil, err
	}
	latest := map[id.RoomID]id.SessionID{}
	return &Backup{machine: machine, self: machine.OwnIdentity(), key: key, version: version, asked: now, latest: latest}, nil
}

// currentVersion asks for the account's backup and makes sure that it is for the key. mautrix's own check goes on to
// the signatures where the key is another one, and does not stand an answer that is null.
func currentVersion(ctx context.Context, client *mautrix.Client, key *backup.MegolmBackupKey) (id.KeyBackupVersion, error) {
	info, err := get[description](ctx, client, versionURL(client))
	switch {
	case errors.Is(err, mautrix.MNotFound):
		return "", fail(ErrNoBackup, "%s has none on the homeserver; SetUp makes one", client.UserID)
	case err != nil:
		return "", wrap(err, "looking for the key backup")
	case info.Version == "":
		return "", fail(ErrCorrupt, "the homeserver's description of the key backup has no version")
	case info.Algorithm != id.KeyBackupAlgorithmMegolmBackupV1:
		return "", fail(ErrUnsupported, "key backup version %q uses %q", info.Version, info.Algorithm)
	}
	if strings.TrimRight(info.AuthData.PublicKey.String(), "=") != publicKey(key).String() {
		return "", fail(ErrKeyMismatch, "version %q has another public key than that of the given private key", info.Version)
	}
	return info.Version, nil
}

// publicKey is the public key of a backup as its description has it: of Curve25519, whatever the type is called.
func publicKey(key *backup.MegolmBackupKey) id.Ed25519 {
	return id.Ed25519(base64.RawStdEncoding.EncodeToString(key.PublicKey().Bytes()))
}

// Version is the backup version that sessions are saved to. It changes when the backup was replaced by one with the same
// key. Each call of SetUp and each reset in another client makes a new one.
func (b *Backup) Version() id.KeyBackupVersion {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// Save returns nil once the session, which the client's crypto store has, is in the backup, from the first message that
// the store has the key of. So every value that is encrypted with it, before or after, can be read with the backup.
//
// It sends one request a session: none where this Backup or the crypto store knows that the session is in the backup,
// and Saves of one session at the same time share the request. Every 5 minutes a Save sends one more, which asks whether the
// backup is still the account's, for another client can delete or replace it. A caller whose context ends returns the context's
// error at once, and the request ends with the last caller.
//
// It fails with [ErrNoSession], also where the machine's DontStoreOutboundKeys keeps sessions out of the store, with
// [ErrPartialSession] where RatchetKeysOnDecrypt has removed the beginning, or with the error of the request; the session
// is then not in the backup as far as is known, and the next Save tries again. When the homeserver refuses the request,
// Save looks for the reason, which takes one more. It fails with [ErrNoBackup] where the backup was deleted and with
// [ErrKeyMismatch] where it was replaced. Where the new one has the same key, Save goes on with it, and brings those
// sessions of the store that were in the old one too. A Save of a session that was in the backup can return nil for 5 minutes after
// that was deleted, or replaced by one with another key.
func (b *Backup) Save(ctx context.Context, room id.RoomID, session id.SessionID) error {
	if err := b.confirm(ctx); err != nil {
		return err
	}
	at := place{room, session}
	return b.saving.unless(ctx, at, func() bool { return b.knows(at) }, func(ctx context.Context) error { return b.save(ctx, at) })
}

func (b *Backup) knows(at place) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latest[at.room] == at.session && at.session != ""
}

func (b *Backup) save(ctx context.Context, at place) error {
	found, err := b.machine.CryptoStore.GetGroupSession(ctx, at.room, at.session)
	switch {
	case err != nil && !errors.Is(err, crypto.ErrGroupSessionWithheld):
		return wrap(err, "reading %v from the crypto store", at)
	case (err != nil || found == nil) && b.machine.DontStoreOutboundKeys:
		return fail(ErrNoSession, "the crypto store does not have %v, for the machine does not store what it encrypts with (DontStoreOutboundKeys)", at)
	case err != nil || found == nil:
		return fail(ErrNoSession, "the crypto store does not have %v", at)
	}
	return b.inVersion(ctx, func(ctx context.Context, version id.KeyBackupVersion) error {
		if b.recorded(found) != version {
			if first := found.Internal.FirstKnownIndex(); first > 0 && b.isOwn(found) {
				return fail(ErrPartialSession, "%v begins at message %d; the machine must not ratchet its keys (RatchetKeysOnDecrypt), and the room's next session will do", at, first)
			}
			sealed, err := b.seal(found)
			if err != nil {
				return err
			}
			if err := send(ctx, b.machine.Client, http.MethodPut, keysURL(b.machine.Client, version, at.room, at.session), sealed); err != nil {
				return wrap(err, "saving %v", at)
			}
			b.record(ctx, version, at)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.version == version {
			b.latest[at.room] = at.session
		}
		return nil
	})
}

// inVersion calls f with the current version of the backup. Where the homeserver refuses what f asks of it, inVersion finds
// out whether that is for the version, and calls f once more with the one that took its place.
//
// It does not go by the answer: for a backup that was deleted Synapse has 404 and Dendrite 500, and the current_version in
// Synapse's 403 M_WRONG_ROOM_KEYS_VERSION is not the current one.
//
// A fault that may pass is tried again after that, for with Dendrite's 500 that would last as long as the backup is gone.
func (b *Backup) inVersion(ctx context.Context, f func(ctx context.Context, version id.KeyBackupVersion) error) error {
	return matrix.Try(ctx, matrix.Client{Client: b.machine.Client}, func(ctx context.Context) error {
		version := b.Version()
		err := f(ctx, version)
		if err == nil || !refused(err) {
			return err
		}
		next, now := b.follow(ctx, version)
		switch {
		case errors.Is(now, ErrNoBackup) || errors.Is(now, ErrKeyMismatch) || errors.Is(now, ErrUnsupported):
			return now
		case now != nil:
			return fmt.Errorf("%w; before that: %v", now, err)
		case next == version:
			return err
		}
		return f(ctx, next)
	})
}

// confirm fails where the account's backup is no longer the one that was opened, of which the homeserver is asked now and then. It
// goes on with one that has the same key.
func (b *Backup) confirm(ctx context.Context) error {
	return b.asking.unless(ctx, struct{}{}, b.isConfirmed, func(ctx context.Context) error {
		_, err := b.follow(ctx, b.Version())
		return err
	})
}

func (b *Backup) isConfirmed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked.Counts(false, current)
}

// follow asks for the version that is the account's backup now, and makes it the one that sessions are saved to.
func (b *Backup) follow(ctx context.Context, version id.KeyBackupVersion) (next id.KeyBackupVersion, err error) {
	now := asked.Now(false)
	if next, err = currentVersion(ctx, b.machine.Client, b.key); err != nil {
		return "", err
	}
	if next != version {
		if err := b.moveTo(ctx, version, next); err != nil {
			return "", err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == next {
		b.asked = now
	}
	return next, nil
}

// moveTo makes next the version that sessions are saved to, once those that were in the version before it are there too.
func (b *Backup) moveTo(ctx context.Context, version, next id.KeyBackupVersion) error {
	wereIn := func(recorded id.KeyBackupVersion) bool { return recorded == version }
	if _, err := b.saveAll(ctx, next, wereIn); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == version {
		b.version = next
		clear(b.latest)
	}
	return nil
}

// SaveAll saves every session that the crypto store has and the backup has not, and tells how many that were. It is for
// an account that has values from before its backup, and for a backup that was made anew. Where nothing is missing,
// it sends no request, else one for a hundred sessions.
//
// It fails as [Backup.Save] does, except that a session without its beginning is saved as it is. What was saved by then
// stays saved.
func (b *Backup) SaveAll(ctx context.Context) (saved int, err error) {
	err = b.inVersion(ctx, func(ctx context.Context, version id.KeyBackupVersion) error {
		more, err := b.saveAll(ctx, version, func(id.KeyBackupVersion) bool { return true })
		saved += more
		return err
	})
	return saved, err
}

// saveAll saves the sessions that the crypto store's records place in a version other than this one, "" being none. Where there are none it
// sends nothing: Dendrite takes a request without sessions for one that changes the version's auth_data.
func (b *Backup) saveAll(ctx context.Context, version id.KeyBackupVersion, which func(recorded id.KeyBackupVersion) bool) (saved int, err error) {
	b.records.Lock()
	missing, err := b.machine.CryptoStore.GetGroupSessionsWithoutKeyBackupVersion(ctx, version).AsList()
	b.records.Unlock()
	if err != nil {
		return 0, wrap(err, "reading the crypto store")
	}
	missing = slices.DeleteFunc(missing, func(found *crypto.InboundGroupSession) bool { return !which(b.recorded(found)) })
	for part := range slices.Chunk(missing, batch) {
		request := &mautrix.ReqKeyBackup{Rooms: map[id.RoomID]mautrix.ReqRoomKeyBackup{}}
		for _, found := range part {
			sealed, err := b.seal(found)
			if err != nil {
				return saved, err
			}
			if _, ok := request.Rooms[found.RoomID]; !ok {
				request.Rooms[found.RoomID] = mautrix.ReqRoomKeyBackup{Sessions: map[id.SessionID]mautrix.ReqKeyBackupData{}}
			}
			request.Rooms[found.RoomID].Sessions[found.Internal.ID()] = *sealed
		}
		if err := send(ctx, b.machine.Client, http.MethodPut, keysURL(b.machine.Client, version), request); err != nil {
			return saved, wrap(err, "saving sessions")
		}
		for _, found := range part {
			b.record(ctx, version, place{found.RoomID, found.Internal.ID()})
		}
		saved += len(part)
	}
	return saved, nil
}

// recorded is the backup version that a session of the crypto store was last saved to or restored from.
func (b *Backup) recorded(found *crypto.InboundGroupSession) id.KeyBackupVersion {
	b.records.Lock()
	defer b.records.Unlock()
	return found.KeyBackupVersion
}

// record notes in the crypto store that a session is in the backup. That fails nothing, for it is: without the note the
// session is saved once more by the next process.
//
// mautrix's StoreGroupSession would not do: it drops what is no better than what the store has. The session is read
// again, as what the machine keeps with it may have changed since, or it may have been removed.
func (b *Backup) record(ctx context.Context, version id.KeyBackupVersion, at place) {
	b.records.Lock()
	defer b.records.Unlock()
	found, err := b.machine.CryptoStore.GetGroupSession(ctx, at.room, at.session)
	if err == nil && found != nil {
		found.KeyBackupVersion = version
		err = b.machine.CryptoStore.PutGroupSession(ctx, found)
	}
	if err != nil {
		matrix.Logger(ctx, b.machine.Log).Warn().Err(err).Stringer("room_id", at.room).Stringer("session_id", at.session).
			Msg("Could not note in the crypto store that a session is in the key backup")
	}
}

// Restore brings a session from the backup into the client's crypto store, and tells whether the backup has it. A session
// in the store that begins earlier stays.
//
// It sends one request, or, where the backup does not have the session, a second one, which asks whether the backup is
// still there. Restores of one session at the same time share them. A caller whose context ends returns the context's
// error at once.
//
// It fails with [ErrCorrupt] where the data are not those of this session: they cannot be decrypted, or hold another
// session, or contradict the session that the store has; the store then stays as it was. It fails with [ErrNoBackup] and
// [ErrKeyMismatch] as [Backup.Save] does, and where the backup was replaced by one with the same key, it looks there.
func (b *Backup) Restore(ctx context.Context, room id.RoomID, session id.SessionID) (found bool, err error) {
	at := place{room, session}
	return b.restoring.do(ctx, at, func(ctx context.Context) (bool, error) {
		err := b.inVersion(ctx, func(ctx context.Context, version id.KeyBackupVersion) error { return b.restore(ctx, version, at) })
		if errors.Is(err, mautrix.MNotFound) {
			return false, nil
		}
		return err == nil, err
	})
}

func (b *Backup) restore(ctx context.Context, version id.KeyBackupVersion, at place) error {
	sealed, err := get[sealedSession](ctx, b.machine.Client, keysURL(b.machine.Client, version, at.room, at.session))
	if err != nil {
		return wrap(err, "restoring %v", at)
	}
	rooms, err := b.rooms(ctx)
	if err != nil {
		return err
	}
	return b.take(ctx, version, at, &sealed, rooms)
}

// RestoreAll brings every session of the backup into the client's crypto store, as [Backup.Restore] does, in one request,
// and tells how many sessions the backup has that the store now has. Those that cannot be restored are left out;
// the error then tells how many these are and is the first one's, in most cases ErrCorrupt.
func (b *Backup) RestoreAll(ctx context.Context) (restored int, err error) {
	err = b.inVersion(ctx, func(ctx context.Context, version id.KeyBackupVersion) error {
		restored, err = b.restoreAll(ctx, version)
		return err
	})
	return restored, err
}

func (b *Backup) restoreAll(ctx context.Context, version id.KeyBackupVersion) (restored int, err error) {
	rooms, err := b.rooms(ctx)
	if err != nil {
		return 0, err
	}
	there, failed := false, 0
	var first error
	err = matrix.Stream(ctx, matrix.Client{Client: b.machine.Client}, keysURL(b.machine.Client, version), matrix.MaxWhole, func(decoder *matrix.Decoder) error {
		there, restored, failed, first = false, 0, 0, nil
		sessions := func(room string, decoder *matrix.Decoder) error {
			return matrix.Members{"sessions": matrix.Objects(func(session string, decoder *matrix.Decoder) error {
				at := place{id.RoomID(room), id.SessionID(session)}
				err := b.takeNext(ctx, version, at, decoder, rooms)
				if err == nil {
					restored++
					rooms[at.session] = at.room
				} else if failed++; failed == 1 {
					first = err
				}
				return ctx.Err()
			})}.Read(decoder)
		}
		return matrix.Members{"rooms": func(decoder *matrix.Decoder) error {
			there = true
			return matrix.Objects(sessions)(decoder)
		}}.Read(decoder)
	})
	switch {
	case ctx.Err() != nil:
		return restored, ctx.Err()
	case err != nil:
		return restored, wrap(err, "restoring the key backup")
	case !there:
		return 0, fail(ErrCorrupt, "the homeserver's answer for the whole key backup is empty")
	case failed > 0:
		return restored, fmt.Errorf("%w; of %d sessions in the key backup, %d were not restored", first, failed+restored, failed)
	}
	return restored, nil
}

// takeNext is take for a session that is read next.
func (b *Backup) takeNext(ctx context.Context, version id.KeyBackupVersion, at place, decoder *matrix.Decoder, rooms map[id.SessionID]id.RoomID) error {
	var text json.RawMessage
	if err := decoder.Decode(&text); err != nil {
		return err
	}
	var sealed sealedSession
	if json.Unmarshal(text, &sealed) != nil {
		return fail(ErrCorrupt, "the key backup's data of %v are none", at)
	}
	return b.take(ctx, version, at, &sealed, rooms)
}
