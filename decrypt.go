package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/lru"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// maxOpened is how much of decrypted events is remembered, in bytes of their contents, and maxBroughtSize how much of
	// encrypted ones that the sync brought and nobody has asked for yet.
	maxOpened      = 16 << 20
	maxBroughtSize = 2 << 20

	// waitAgain is how long a Megolm session is not waited for that was waited for in vain, nor asked for, and maxMissing
	// how many such sessions are remembered.
	waitAgain  = time.Minute
	maxMissing = 1024

	// withheldPause is between two looks for a session that was withheld.
	withheldPause = 100 * time.Millisecond
)

// value is a value with what is known of where it was.
type value struct {
	key       string
	json      json.RawMessage
	encrypted bool
	sender    id.UserID     // of the encrypted event
	trust     id.TrustState // of the device that encrypted it
}

// value reads what is stored under a name in the event from.
func (r roomState) value(ctx context.Context, name string, stored json.RawMessage, from id.EventID) (value, error) {
	key, named := wire.KeyOf(name)
	read, err := wire.Decode(stored)
	switch {
	case err != nil:
		return value{key: key}, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, key, err)
	case read.Event != "":
		return r.sealed(ctx, name, read.Event)
	case read.Fields != nil && named:
		return r.fields(ctx, key, read.Fields, from)
	case !named:
		return value{}, fault.Of(ErrCorrupt, nil, "event %s in %s: what stands under %s is not in an encrypted event", from, r.ID, name)
	}
	if err := r.trustsState(ctx); err != nil {
		return value{key: key}, fault.Of(ErrUntrusted, err, "event %s in %s, key %q: the value is not encrypted", from, r.ID, key)
	}
	text, err := r.text(ctx, read, media.Of{Name: name, Key: key, Event: from})
	return value{key: key, json: text}, err
}

// sealed reads the value that an encrypted event holds for a name. A state event can refer to any event, so nothing about
// that one is taken for granted.
func (r roomState) sealed(ctx context.Context, name string, from id.EventID) (value, error) {
	key, _ := wire.KeyOf(name)
	read := value{key: key, encrypted: true}
	event, err := r.open(ctx, from)
	if err != nil {
		return read, fmt.Errorf("%w (key %s)", err, describe(key, name))
	}
	read.sender, read.trust = event.sender, event.trust
	inside, found := json.RawMessage(nil), false
	if read.key, inside, found = r.inside(event, name); !found {
		return read, fault.Of(ErrCorrupt, nil, "event %s in %s is referred to and does not hold the key %s", from, r.ID, describe(read.key, name))
	}
	if !r.trusts(event) {
		return read, fault.Of(ErrUntrusted, nil, "event %s in %s, key %q: %s sent it from a device whose trust is %s, below %s", from, r.ID, read.key, event.sender, event.trust, r.core.minTrust)
	}
	content, err := wire.Unseal(inside)
	if err != nil {
		return read, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, read.key, err)
	}
	read.json, err = r.text(ctx, content, media.Of{Name: name, Key: read.key, Event: from, Encrypted: true})
	return read, err
}

// inside is what an event holds for a name, as it stands there, and for which key, which is known of a plain name in any case.
func (r roomState) inside(event *opened, name string) (key string, inside json.RawMessage, found bool) {
	if key, named := wire.KeyOf(name); named {
		inside, found = wire.Inside(event.values, key)
		return key, inside, found
	}
	for inner, text := range event.values {
		if k, ok := wire.KeyOf(inner); ok && inner == wire.Name(k) && r.name(k) == name {
			key, inside, found = k, text, true
		}
	}
	return key, inside, found
}

// describe names a key in an error, by what stands for it where that is all there is.
func describe(key, name string) string {
	if _, named := wire.KeyOf(name); !named && key == "" {
		return "of " + name
	}
	return fmt.Sprintf("%q", key)
}

// trusts tells whether the event comes from a device that the store's options accept.
func (r roomState) trusts(event *opened) bool {
	return r.core.minTrust == nil || event.trust >= *r.core.minTrust
}

// trustsState fails where values must come from a trusted device and so must not stand in the state, which anybody with
// the power to send it can write.
func (r roomState) trustsState(ctx context.Context) error {
	if r.core.minTrust == nil {
		return nil
	}
	encrypted, err := r.core.encrypted.isEncrypted(ctx, r, true)
	if err == nil && encrypted {
		err = errors.New("the room is encrypted")
	}
	return err
}

// eventAt is an event in a room: in old room versions a homeserver can give two events one ID.
type eventAt struct {
	room id.RoomID
	id   id.EventID
}

func (r roomState) at(event id.EventID) eventAt { return eventAt{r.ID, event} }

// opened is what an encrypted event holds, which does not change.
type opened struct {
	values map[string]json.RawMessage // by name; see [wire.Unseal]
	sender id.UserID
	trust  id.TrustState // when it was decrypted
	size   int

	there atomic.Int64 // when the homeserver was last known to have it, in Unix nanoseconds
}

// openedEvents remembers encrypted events, which never change, and which sessions are missing. The zero value is ready, and
// methods are safe for concurrent use.
type openedEvents struct {
	mu      sync.Mutex
	events  lru.Cache[eventAt, *opened]
	brought lru.Cache[eventAt, json.RawMessage] // as the sync brought them
	missing lru.Cache[id.SessionID, time.Time]  // when a session was last waited for in vain
}

// get is nil where the event is not known.
func (o *openedEvents) get(at eventAt) *opened {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, _ := o.events.Get(at)
	return known
}

func (o *openedEvents) put(at eventAt, event *opened) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Forget(at)
	o.events.Most, o.events.Size = maxOpened, func(event *opened) int { return event.size }
	event.there.Store(time.Now().UnixNano())
	o.events.Put(at, event)
}

func (o *openedEvents) bring(at eventAt, text json.RawMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Most, o.brought.Size = maxBroughtSize, func(text json.RawMessage) int { return len(text) }
	o.brought.Put(at, text)
}

// forget is for an event that was redacted.
func (o *openedEvents) forget(at eventAt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.brought.Forget(at)
	o.events.Forget(at)
}

func (o *openedEvents) broughtAs(at eventAt) json.RawMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, _ := o.brought.Get(at)
	return text
}

// miss tells how long the session is to be waited for, at most so long, and whether it must be asked for first: one of
// those who want it asks, and who comes later waits as long as that one.
func (o *openedEvents) miss(session id.SessionID, most time.Duration) (wait time.Duration, ask bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.missing.Get(session); ok && time.Since(at) < max(most, waitAgain) {
		return most - time.Since(at), false
	}
	o.missing.Most = maxMissing
	o.missing.Put(session, time.Now())
	return most, true
}

// open decrypts an event that the state refers to.
func (r roomState) open(ctx context.Context, at id.EventID) (*opened, error) {
	if known := r.core.opened.get(r.at(at)); known != nil && r.trusts(known) { // else it may be trusted by now
		return known, nil
	}
	if r.Client.Crypto == nil {
		return nil, fault.Of(ErrUndecryptable, nil, "event %s in %s: the client has no Crypto", at, r.ID)
	}
	if _, ready := machineOf(r.Client.Crypto); !ready {
		return nil, fault.Of(ErrUndecryptable, nil, "event %s in %s: %s", at, r.ID, notReady)
	}
	evt, err := r.encryptedEvent(ctx, at)
	if err != nil {
		return nil, err
	}
	decrypted, err := r.decrypt(ctx, evt)
	if err != nil {
		return nil, err
	}
	if decrypted == nil || decrypted.Type.Type != r.eventType.Type || decrypted.StateKey != nil {
		return nil, fault.Of(ErrCorrupt, nil, "event %s in %s is referred to and is not of type %s inside", at, r.ID, r.eventType.Type)
	}
	if info := decrypted.Mautrix; info.TrustState == id.TrustStateVerified && info.TrustSource == nil && evt.Sender != r.Client.UserID {
		return nil, fault.Of(ErrCorrupt, nil, "event %s in %s was encrypted by this device, and the homeserver says that %s sent it", at, r.ID, evt.Sender)
	}
	opened := &opened{sender: evt.Sender, trust: decrypted.Mautrix.TrustState, size: len(decrypted.Content.VeryRaw)}
	if json.Unmarshal(decrypted.Content.VeryRaw, &opened.values) != nil || opened.values == nil {
		return nil, fault.Of(ErrCorrupt, nil, "event %s in %s holds something else than keys and values", at, r.ID)
	}
	r.core.opened.put(r.at(at), opened)
	r.core.encrypted.set(r.ID, true, false)
	return opened, nil
}

// encryptedEvent gets an event, as the sync has brought it or from the homeserver.
func (r roomState) encryptedEvent(ctx context.Context, at id.EventID) (*event.Event, error) {
	evt := new(event.Event)
	if brought := r.core.opened.broughtAs(r.at(at)); brought == nil || json.Unmarshal(brought, evt) != nil {
		var err error
		evt, err = r.getEvent(ctx, at)
		switch {
		case errors.Is(err, mautrix.MForbidden) && r.HasLeft(ctx):
			return nil, r.NotJoined("read values", err)
		case errors.Is(err, mautrix.MNotFound), errors.Is(err, mautrix.MForbidden):
			return nil, fault.Of(ErrUndecryptable, err, "event %s in %s is not there, or may not be seen", at, r.ID)
		case err != nil:
			return nil, r.Explain(ctx, fmt.Sprintf("read event %s", at), err)
		}
	}
	switch {
	case evt == nil || evt.ID != at || evt.RoomID != "" && evt.RoomID != r.ID:
		return nil, fault.Of(ErrCorrupt, nil, "event %s is referred to in %s and is not in that room", at, r.ID)
	case evt.Type.Type == event.EventEncrypted.Type && len(evt.Content.Raw) == 0:
		return nil, fault.Of(ErrUndecryptable, ErrRedacted, "event %s in %s was redacted", at, r.ID)
	}
	unreadable := evt.Content.ParseRaw(event.EventEncrypted)
	if unreadable != nil || evt.Type.Type != event.EventEncrypted.Type || evt.StateKey != nil || evt.Content.AsEncrypted().Algorithm != id.AlgorithmMegolmV1 {
		return nil, fault.Of(ErrCorrupt, nil, "event %s in %s is referred to and is not encrypted with Megolm", at, r.ID)
	}
	evt.RoomID = r.ID
	return evt, nil
}

// getEvent asks again for an event that is not there.
func (r roomState) getEvent(ctx context.Context, at id.EventID) (evt *event.Event, err error) {
	url := r.Client.BuildClientURL("v3", "rooms", r.ID, "event", at)
	err = matrix.UntilThere(ctx, 3, func() error {
		return matrix.Get(ctx, r.Client, matrix.Request{Method: http.MethodGet, URL: url, Limit: matrix.MaxEvent}, &evt)
	})
	return evt, err
}

// decrypt waits for the event's session where that is missing, unless it was waited for just now.
func (r roomState) decrypt(ctx context.Context, evt *event.Event) (*event.Event, error) {
	decrypted, err := r.decryptOnce(ctx, evt)
	if err == nil {
		return decrypted, nil
	}
	if errors.Is(err, errPanicked) {
		return nil, fault.Of(ErrUndecryptable, err, "%v", err)
	}
	content := evt.Content.AsEncrypted()
	undecryptable := func(why string, causes ...error) error {
		return fault.Of(ErrUndecryptable, errors.Join(append(causes, err)...), "event %s in %s, session %s: %s", evt.ID, r.ID, content.SessionID, why)
	}
	// The backup may know the session from an earlier message on, so it is asked in any case.
	if r.core.backup != nil {
		found, failed := r.core.backup.Restore(ctx, r.ID, content.SessionID)
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
	wait, ask := r.core.opened.miss(content.SessionID, r.core.keyWait)
	if !r.waitUntil.IsZero() {
		wait = min(wait, time.Until(r.waitUntil))
	}
	if ask {
		r.Client.Crypto.RequestSession(ctx, r.ID, senderKey, content.SessionID, evt.Sender, device)
	}
	// The sync brings keys only when its handlers have returned.
	inSync := ctx.Value(mautrix.SyncTokenContextKey) != nil
	for end := time.Now().Add(wait); !inSync && time.Now().Before(end) && ctx.Err() == nil && has(time.Until(end)); time.Sleep(withheldPause) {
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
