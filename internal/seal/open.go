package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// Trusts tells whether the event comes from a device that the store's options accept.
func (r Room) Trusts(event *Opened) bool {
	return r.MinTrust == nil || event.Trust >= *r.MinTrust
}

// Open decrypts an event that the state refers to. It fails with [fault.ErrUndecryptable] where the event or its key is missing or was
// redacted, with [fault.ErrCorrupt] where it is not an encrypted event of the room with keys and values, or with the error of a request.
func (r Room) Open(ctx context.Context, at id.EventID) (*Opened, error) {
	if known, ok := r.opened.Get(r.at(at)); ok && r.Trusts(known.Opened) { // else it may be trusted by now
		return known.Opened, nil
	}
	return r.open(ctx, at, r.decrypt)
}

func (r Room) open(ctx context.Context, at id.EventID, decrypt func(ctx context.Context, evt *event.Event) (*event.Event, error)) (*Opened, error) {
	if r.Client.Crypto == nil {
		return nil, fault.Of(fault.ErrUndecryptable, nil, "event %s in %s: the client has no Crypto", at, r.ID)
	}
	if _, ready := machineOf(r.Client.Crypto); !ready {
		return nil, fault.Of(fault.ErrUndecryptable, nil, "event %s in %s: %s", at, r.ID, notReady)
	}
	evt, err := r.Event(ctx, at)
	if err != nil {
		return nil, err
	}
	decrypted, err := decrypt(ctx, evt)
	if err != nil {
		return nil, err
	}
	if decrypted == nil || decrypted.Type.Type != r.Type || decrypted.StateKey != nil {
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s is referred to and is not of type %s inside", at, r.ID, r.Type)
	}
	if info := decrypted.Mautrix; info.TrustState == id.TrustStateVerified && info.TrustSource == nil && evt.Sender != r.Client.UserID {
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s was encrypted by this device, and the homeserver says that %s sent it", at, r.ID, evt.Sender)
	}
	opened := &Opened{Sender: evt.Sender, Trust: decrypted.Mautrix.TrustState, size: len(decrypted.Content.VeryRaw)}
	if json.Unmarshal(decrypted.Content.VeryRaw, &opened.Values) != nil || opened.Values == nil {
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s holds something else than keys and values", at, r.ID)
	}
	r.remember(at, opened)
	r.Encrypted(r.ID)
	return opened, nil
}

// Event gets an encrypted event, as the sync has brought it or from the homeserver. It fails as [Room.Open] does.
func (r Room) Event(ctx context.Context, at id.EventID) (*event.Event, error) {
	evt := new(event.Event)
	if brought, ok := r.brought.Get(r.at(at)); !ok || json.Unmarshal(brought, evt) != nil {
		var err error
		evt, err = r.GetEvent(ctx, at, 0)
		if errors.Is(err, mautrix.MNotFound) { // a homeserver that lags behind finds it later
			if wait, _ := r.miss(at.String()); wait > 0 {
				evt, err = r.GetEvent(ctx, at, wait)
			}
		}
		switch {
		case errors.Is(err, mautrix.MForbidden) && r.HasLeft(ctx):
			return nil, r.NotJoined("read values", err)
		case errors.Is(err, mautrix.MNotFound), errors.Is(err, mautrix.MForbidden):
			return nil, fault.Of(fault.ErrUndecryptable, err, "event %s in %s is not there, or may not be seen", at, r.ID)
		case err != nil:
			return nil, r.Explain(ctx, fmt.Sprintf("read event %s", at), err)
		}
	}
	switch {
	case evt == nil || evt.ID != at || evt.RoomID != "" && evt.RoomID != r.ID:
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s is referred to in %s and is not in that room", at, r.ID)
	case evt.Type.Type == event.EventEncrypted.Type && len(evt.Content.Raw) == 0:
		return nil, fault.Of(fault.ErrUndecryptable, fault.ErrRedacted, "event %s in %s was redacted", at, r.ID)
	}
	unreadable := evt.Content.ParseRaw(event.EventEncrypted)
	if unreadable != nil || evt.Type.Type != event.EventEncrypted.Type || evt.StateKey != nil || evt.Content.AsEncrypted().Algorithm != id.AlgorithmMegolmV1 {
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s is referred to and is not encrypted with Megolm", at, r.ID)
	}
	evt.RoomID = r.ID
	return evt, nil
}

// decrypt waits for the event's session where that is missing, unless it was waited for just now.
func (r Room) decrypt(ctx context.Context, evt *event.Event) (*event.Event, error) {
	decrypted, err := r.decryptOnce(ctx, evt)
	if err == nil {
		return decrypted, nil
	}
	if errors.Is(err, errPanicked) {
		return nil, fault.Of(fault.ErrUndecryptable, err, "%v", err)
	}
	content := evt.Content.AsEncrypted()
	undecryptable := func(why string, causes ...error) error {
		return fault.Of(fault.ErrUndecryptable, errors.Join(append(causes, err)...), "event %s in %s, session %s: %s", evt.ID, r.ID, content.SessionID, why)
	}
	// The backup may know the session from an earlier message on, so it is asked in any case.
	if r.Backup != nil {
		found, failed := r.Backup.Restore(ctx, r.ID, content.SessionID)
		if failed != nil {
			return nil, undecryptable("the session's key was not got from the backup", failed)
		}
		if found {
			if decrypted, err = r.decryptOnce(ctx, evt); err == nil {
				return decrypted, nil
			}
		}
	}
	//lint:ignore SA1019 mautrix asks by them and still sends them
	senderKey, device := content.SenderKey, content.DeviceID
	has := func(wait time.Duration) bool {
		return r.Client.Crypto.WaitForSession(ctx, r.ID, senderKey, content.SessionID, wait)
	}
	if has(0) && !sessionWithheld(err) {
		if decrypted = r.decryptDuplicate(ctx, evt); decrypted != nil {
			return decrypted, nil
		}
		return nil, undecryptable("the key that the client has does not decrypt it")
	}
	wait, ask := r.miss(content.SessionID.String())
	if ask {
		r.Client.Crypto.RequestSession(ctx, r.ID, senderKey, content.SessionID, evt.Sender, device)
	}
	// The sync brings keys only when its handlers have returned.
	inSync := ctx.Value(mautrix.SyncTokenContextKey) != nil
	for end := time.Now().Add(wait); !inSync && time.Now().Before(end) && ctx.Err() == nil && has(time.Until(end)); time.Sleep(r.Policy.Or().WithheldPause) {
		if decrypted, err = r.decryptOnce(ctx, evt); err == nil {
			return decrypted, nil
		}
		if !sessionWithheld(err) {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, undecryptable("the session's key has not come yet", err)
	}
	if sessionWithheld(err) {
		return nil, undecryptable("a device has withheld the session's key, which was asked for; what is answered comes with the client's sync")
	}
	return nil, undecryptable("the session's key is missing and was asked for; the answer comes with the client's sync")
}

// sessionWithheld tells whether the client has no session because a device has said that it does not send one, which mautrix's
// WaitForSession takes for a session (v0.32.0). The session can still come: who had no one-time key to send it with sends it when asked.
func sessionWithheld(err error) bool { return errors.Is(err, &event.RoomKeyWithheldEventContent{}) }
