package seal

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// sealer implements [commit.Sealer] with Megolm events of the store's type, each with the content {key: value, …}.
type sealer struct{ Room }

// Check implements [commit.Sealer].
func (s sealer) Check(value commit.Value) error {
	text, err := content([]commit.Value{value})
	if err == nil && len(text) > maxAlone {
		err = fault.Of(fault.ErrTooLarge, nil, "%q in %s would be %d bytes before encryption, and at most about %d fit into an event of %d",
			value.Key, s.ID, len(text), maxAlone, wire.MaxEvent)
	}
	return err
}

// Holds implements [commit.Sealer]. It is not known what is in an event that this process has neither written nor read. One
// that it has can have been redacted since, of which the homeserver is asked where no sync tells.
func (s sealer) Holds(ctx context.Context, stored string, value commit.Value) bool {
	reference, err := wire.Decode(json.RawMessage(stored))
	if err != nil || reference.Event == "" {
		return false
	}
	event, known := s.opened.Get(s.at(reference.Event))
	if !known || !s.Trusts(event.Opened) {
		return false
	}
	inside, err := wire.Seal(json.RawMessage(value.Stored))
	stands, found := wire.Inside(event.Values, value.Key)
	if err != nil || !found || !wire.Same(stands, inside) {
		return false
	}
	if s.Live(s.ID) || event.there.Counts(false, s.Policy.Or().ThereFor) {
		return true
	}
	if _, err = s.Event(ctx, reference.Event); err == nil {
		s.remember(reference.Event, event.Opened)
	}
	return err == nil
}

// Learn implements [commit.Sealer]. It is for references to events that this process knows nothing of. No key is asked or waited for.
func (s sealer) Learn(ctx context.Context, stored []string) bool {
	var missing id.EventID // that the sync has not brought
	events := map[id.EventID]bool{}
	for _, stored := range stored {
		reference, err := wire.Decode(json.RawMessage(stored))
		if err != nil || reference.Event == "" {
			return false
		}
		at := s.at(reference.Event)
		if _, known := s.opened.Get(at); known {
			return false
		}
		events[at.id] = true
		switch _, brought := s.brought.Get(at); {
		case brought || missing == at.id:
		case missing != "":
			return false
		default:
			missing = at.id
		}
	}
	for event := range events {
		if _, err := s.open(ctx, event, s.decryptOnce); err != nil {
			return false
		}
	}
	return true
}

// Seal implements [commit.Sealer]. Values that were sent when a later one fails stay in the room, and nothing refers to
// them.
func (s sealer) Seal(ctx context.Context, values []commit.Value) (references map[string]string, err error) {
	if _, ready := machineOf(s.Client.Crypto); !ready {
		return nil, fault.Of(fault.ErrNoCrypto, nil, "nothing was written to %s: %s", s.ID, notReady)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(values, func(a, b commit.Value) int { return strings.Compare(a.Name, b.Name) })
	references = make(map[string]string, len(values))
	for len(values) > 0 {
		n, err := s.share(values)
		if err != nil {
			return nil, err
		}
		text, err := content(values[:n])
		if err != nil {
			return nil, err
		}
		sent, err := s.send(ctx, text)
		if err != nil {
			return nil, err
		}
		for _, value := range values[:n] {
			references[value.Name] = wire.Canonical(wire.Reference(sent))
		}
		values = values[n:]
	}
	return references, nil
}

// share tells how many of the values share an event, the first ones: as many as fit, and at least one.
func (s sealer) share(values []commit.Value) (n int, err error) {
	size := len("{}") - len(",")
	for n, value := range values {
		alone, err := content([]commit.Value{value})
		if err != nil {
			return 0, err
		}
		if size += len(alone) - len("{}") + len(","); size > MaxShared && n > 0 {
			return n, nil
		}
	}
	return len(values), nil
}

// content is canonical JSON, which is what mautrix encrypts (v0.32.0), so that its length is the one that counts.
func content(values []commit.Value) (json.RawMessage, error) {
	inside := make(map[string]json.RawMessage, len(values))
	for _, value := range values {
		var err error
		if inside[wire.Name(value.Key)], err = wire.Seal(json.RawMessage(value.Stored)); err != nil {
			return nil, fault.Of(fault.ErrInvalidValue, err, "the value for key %q", value.Key)
		}
	}
	content, err := json.Marshal(inside)
	if err != nil {
		return nil, fault.Of(fault.ErrInvalidValue, err, "a value cannot be encoded as JSON")
	}
	return json.RawMessage(wire.Canonical(content)), nil
}

// prepare completes what mautrix goes by when it shares a Megolm session: with whom, and for how long the room wants one
// to be used. A state store that has seen no sync yet knows neither, and the session would reach nobody. One of those who
// write at once asks, and the others wait: while mautrix takes in the members the state store has only some of them, or
// none, and mautrix's own in memory must not be read then (v0.31.0).
func (s sealer) prepare(ctx context.Context) error {
	store := s.Client.StateStore
	if store == nil { // then it is none of mautrix's encryption
		return nil
	}
	unlock, err := commit.Lock(ctx, commit.Address{Room: s.ID, Type: event.StateMember.Type})
	if err != nil {
		return err
	}
	defer unlock()
	encrypted, err := store.IsEncrypted(ctx, s.ID)
	if err == nil && !encrypted {
		err = s.learnEncryption(ctx)
	}
	complete := false
	if err == nil {
		complete, err = store.HasFetchedMembers(ctx, s.ID)
	}
	if err == nil && !complete {
		err = s.LearnMembers(ctx)
	}
	if err == nil {
		_, err = guarded(ctx, s.Room.Room, "learn of the user's devices", func() (struct{}, error) { return struct{}{}, s.learnDevices(ctx) })
	}
	return s.Explain(ctx, "learn who is to read the values", err)
}

// send sends content in an encrypted event, once the key to it is where the store's options want it. Each attempt encrypts anew: a
// homeserver that has stored an event and not said so would else have two with one Megolm message, of which clients read one.
func (s sealer) send(ctx context.Context, content json.RawMessage) (sent id.EventID, err error) {
	err = s.TryWrite(ctx, func(ctx context.Context) error {
		sent, err = s.sendOnce(ctx, content)
		return err
	})
	if err != nil {
		return "", err
	}
	opened := &Opened{Sender: s.Client.UserID, Trust: id.TrustStateVerified, size: len(content)}
	if err := json.Unmarshal(content, &opened.Values); err == nil {
		s.remember(sent, opened)
	}
	return sent, nil
}

func (s sealer) sendOnce(ctx context.Context, content json.RawMessage) (id.EventID, error) {
	encrypted, err := s.encrypt(ctx, content)
	if err != nil {
		return "", s.Explain(ctx, "encrypt", err)
	}
	if encrypted == nil || encrypted.Algorithm != id.AlgorithmMegolmV1 || encrypted.SessionID == "" {
		return "", fault.Of(fault.ErrNoCrypto, nil, "the client's Crypto did not encrypt with Megolm for %s, so nothing was written", s.ID)
	}
	if s.Backup != nil {
		if err := s.Backup.Save(ctx, s.ID, encrypted.SessionID); err != nil {
			return "", s.Explain(ctx, fmt.Sprintf("back up session %s, so that nothing was written", encrypted.SessionID), err)
		}
	}
	url := s.Client.BuildClientURL("v3", "rooms", s.ID, "send", event.EventEncrypted.Type, s.Client.TxnID())
	var sent mautrix.RespSendEvent
	// In clear beside the ciphertext, for the push rule .m.rule.suppress_notices: others notify each member of an encrypted event.
	quiet := &event.Content{Parsed: encrypted, Raw: map[string]any{"msgtype": event.MsgNotice}}
	err = matrix.Get(ctx, s.Client, matrix.Request{Method: http.MethodPut, URL: url, JSON: quiet}, &sent)
	switch {
	case matrix.IsStatus(err, http.StatusRequestEntityTooLarge):
		return "", fault.Of(fault.ErrTooLarge, err, "encrypted values for %s, %d bytes before encryption, do not fit into an event", s.ID, len(content))
	case err != nil:
		return "", s.ExplainSend(ctx, "send encrypted values", event.EventEncrypted, err)
	case sent.EventID == "":
		return "", fault.Because(nil, "cannot send encrypted values in %s: the homeserver's answer names no event", s.ID)
	}
	return sent.EventID, nil
}

// ContentType is the type of the event inside an encrypted one.
func ContentType(eventType string) event.Type {
	return event.Type{Type: eventType, Class: event.MessageEventType}
}

// learnEncryption has it know how the room is encrypted.
func (r Room) learnEncryption(ctx context.Context) error {
	found, err := r.State(ctx, event.StateEncryption, "")
	switch {
	case err != nil:
		return err
	case found == nil:
		return fault.Of(fault.ErrNoCrypto, nil, "%s is encrypted, or has encrypted values in its memory, and the homeserver has no %s there, so nothing was written; "+
			"find out why, or write values that the homeserver can read with WithEncryption(false)", r.ID, event.StateEncryption.Type)
	}
	evt := found.Parsed(r.ID, event.StateEncryption)
	if evt == nil {
		return fault.Of(fault.ErrCorrupt, nil, "event %s in %s does not say how the room is encrypted", found.ID, r.ID)
	}
	mautrix.UpdateStateStore(ctx, r.Client.StateStore, evt)
	return nil
}
