package secure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/id"
)

// sealed are the private keys of cross-signing as secret storage has them, by the type of account data.
type sealed map[string]ssss.EncryptedKeyData

// keptSeeds is under which name the crypto store keeps them, encrypted with the recovery key. It is not a name under which clients share secrets with
// one another: mautrix would give them to other devices.
const keptSeeds id.Secret = "roomkv.cross_signing"

// crossSigning loads the account's cross-signing keys, makes them where there are none, and signs the device with them.
func (c *Crypto) crossSigning(ctx context.Context, key *ssss.Key, there *published) error {
	kept := c.kept(ctx)
	keys, err := kept.open(key)
	if err != nil || !there.are(keys) {
		if kept, err = c.fromStorage(ctx, key, there); err != nil {
			return err
		}
		if keys, err = kept.open(key); err != nil {
			return fmt.Errorf("%w: what secret storage has of them cannot be read: %w", ErrCrossSigning, err)
		}
		if there.master == nil {
			if err := c.publish(ctx, keys); err != nil {
				return err
			}
		} else if !there.are(keys) {
			return c.noSeeds()
		}
		c.keep(ctx, kept)
	}
	if err := c.machine.ImportCrossSigningKeys(keys.Seeds()); err != nil {
		return fmt.Errorf("loading the cross-signing keys: %w", err)
	}
	return c.sign(ctx, keys, there)
}

// fromStorage reads the private keys from secret storage. Where none were published it makes those that are missing there, and all anew, for some of a
// set are of no use.
func (c *Crypto) fromStorage(ctx context.Context, key *ssss.Key, there *published) (sealed, error) {
	confirmed, err := c.openStorage(ctx, key, there)
	if err != nil {
		return nil, err
	}
	found := sealed{}
	for _, secret := range secrets {
		var content ssss.EncryptedAccountDataEventContent
		if err := c.client.GetAccountData(ctx, secret.Type, &content); errors.Is(err, mautrix.MNotFound) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("reading secret storage: %w", err)
		}
		if data, ok := content.Encrypted[key.ID]; ok {
			found[secret.Type] = data
		}
	}
	switch _, err := found.open(key); {
	case len(found) == len(secrets) && errors.Is(err, ssss.ErrKeyDataMACMismatch) && !confirmed:
		return nil, fmt.Errorf("%w: it does not decrypt what is in secret storage", ErrWrongRecoveryKey)
	case len(found) == len(secrets):
		return found, nil
	case there.master != nil:
		return nil, c.noSeeds()
	case !confirmed:
		return nil, fmt.Errorf("%w: nothing in secret storage tells whether it is the right one; reset secret storage in another client", ErrWrongRecoveryKey)
	}
	return c.makeKeys(ctx, key)
}

// makeKeys makes cross-signing keys and puts them into secret storage.
func (c *Crypto) makeKeys(ctx context.Context, key *ssss.Key) (sealed, error) {
	keys, err := c.machine.GenerateCrossSigningKeys()
	if err != nil {
		return nil, err
	}
	made := sealed{}
	seeds := keys.Seeds()
	for i, seed := range [][]byte{seeds.MasterKey, seeds.SelfSigningKey, seeds.UserSigningKey} {
		name := secrets[i].Type
		made[name] = key.Encrypt(name, seed)
		content := ssss.EncryptedAccountDataEventContent{Encrypted: map[string]ssss.EncryptedKeyData{key.ID: made[name]}}
		if err := c.client.SetAccountData(ctx, name, content); err != nil {
			return nil, fmt.Errorf("putting a cross-signing key into secret storage: %w", err)
		}
	}
	return made, nil
}

// open decrypts the private keys.
func (s sealed) open(key *ssss.Key) (*crypto.CrossSigningKeysCache, error) {
	var seeds [len(secrets)][]byte
	for i, secret := range secrets {
		data, ok := s[secret.Type]
		if !ok {
			return nil, fmt.Errorf("%s is missing", secret.Type)
		}
		seed, err := key.Decrypt(secret.Type, data)
		if err != nil {
			return nil, err
		}
		if len(seed) != 32 {
			return nil, fmt.Errorf("%s has %d bytes, a private key has 32", secret.Type, len(seed))
		}
		seeds[i] = seed
	}
	all := crypto.CrossSigningSeeds{MasterKey: seeds[0], SelfSigningKey: seeds[1], UserSigningKey: seeds[2]}
	keys, err := all.Decode()
	return &keys, err
}

// are tells whether the public keys are those of the private ones.
func (p *published) are(keys *crypto.CrossSigningKeysCache) bool {
	if p.master == nil || p.self == nil || p.user == nil {
		return false
	}
	return p.master.FirstKey() == keys.MasterKey.PublicKey() && p.self.FirstKey() == keys.SelfSigningKey.PublicKey() && p.user.FirstKey() == keys.UserSigningKey.PublicKey()
}

// publish gives the homeserver the public keys. For the first ones it mostly asks for nothing (MSC3967). Where it asks for the password, others
// may have been published meanwhile, which are not to be replaced.
func (c *Crypto) publish(ctx context.Context, keys *crypto.CrossSigningKeysCache) error {
	var refused error
	err := c.machine.PublishCrossSigningKeys(ctx, keys, func(asked *mautrix.RespUserInteractive) any {
		there, err := c.published(ctx)
		switch {
		case err != nil:
			refused = err
		case there.master != nil:
			refused = fmt.Errorf("%w: somebody else has set up %s at the same time; start again", ErrCrossSigning, c.client.UserID)
		case c.config.Password == "":
			refused = fmt.Errorf("%w: the homeserver asks for the password before it takes cross-signing keys; give it, or set up cross-signing in another client", ErrCrossSigning)
		default:
			return passwordAuth(c.client.UserID, c.config.Password, asked.Session)
		}
		return nil
	})
	if refused != nil {
		return refused
	} else if err != nil {
		return fmt.Errorf("publishing the cross-signing keys: %w", err)
	}
	return nil
}

// sign signs the device with the account's key. The account's key is signed with the device where the device outlives the process: a homeserver
// does not forget such a signature with its device.
func (c *Crypto) sign(ctx context.Context, keys *crypto.CrossSigningKeysCache, there *published) error {
	machine, self := c.machine, keys.SelfSigningKey.PublicKey()
	if there.device == nil || !isSigned(there.device, c.client.UserID, self.String(), self) {
		if err := machine.SignOwnDevice(ctx, machine.OwnIdentity()); err != nil {
			return fmt.Errorf("signing the device: %w", err)
		}
	}
	if c.inMemory() || there.master == nil || isSigned(there.master, c.client.UserID, c.client.DeviceID.String(), machine.GetAccount().SigningKey()) {
		return nil // PublishCrossSigningKeys signs what it publishes
	}
	if err := machine.SignOwnMasterKey(ctx); err != nil {
		return fmt.Errorf("signing the account's key: %w", err)
	}
	return nil
}

func isSigned(object any, user id.UserID, keyName string, key id.Ed25519) bool {
	ok, err := signatures.VerifySignatureJSON(object, user, keyName, key)
	return ok && err == nil
}

// kept is what the crypto store keeps of the private keys.
func (c *Crypto) kept(ctx context.Context) sealed {
	var found sealed
	text, err := c.store.GetSecret(ctx, keptSeeds)
	if err != nil || json.Unmarshal([]byte(text), &found) != nil {
		return nil
	}
	return found
}

// keep has the crypto store keep the private keys. That fails nothing: without it the next start reads secret storage.
func (c *Crypto) keep(ctx context.Context, found sealed) {
	text, err := json.Marshal(found)
	if err == nil {
		err = c.store.PutSecret(ctx, keptSeeds, string(text))
	}
	if err != nil {
		c.client.Log.Warn().Err(err).Msg("Could not keep the cross-signing keys in the crypto store")
	}
}

// passwordAuth is what a homeserver asks for that wants to know the password (Client-Server API, user-interactive authentication).
func passwordAuth(user id.UserID, password, session string) any {
	return struct {
		mautrix.BaseAuthData
		Identifier mautrix.UserIdentifier `json:"identifier"`
		Password   string                 `json:"password"`
	}{
		BaseAuthData: mautrix.BaseAuthData{Type: mautrix.AuthTypePassword, Session: session},
		Identifier:   mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: user.String()},
		Password:     password,
	}
}
