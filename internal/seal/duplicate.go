package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/matrix"
)

// decryptDuplicate decrypts an event that the client has the key to and rejects: it has decrypted another event with the same
// ciphertext before, and takes this one for a replay. Two such events are there where a homeserver was given one twice, at the same
// time (Dendrite) or again after a crash. It gives nil where there is no other that can be decrypted.
//
// The protection against replays guards nothing here. Whoever repeats a ciphertext in another event, for the state to name that, can
// have the state name the first one.
func (r Room) decryptDuplicate(ctx context.Context, evt *event.Event) *event.Event {
	filter, err := json.Marshal(mautrix.FilterPart{Types: []event.Type{event.EventEncrypted}})
	if err != nil {
		return nil
	}
	url := r.Client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", r.ID, "context", evt.ID},
		map[string]string{"limit": strconv.Itoa(aroundDuplicate), "filter": string(filter)})
	var same []*event.Event
	find := matrix.Events(func(other *matrix.Event) error {
		if found := r.duplicate(evt, other); found != nil && len(same) < aroundDuplicate {
			same = append(same, found)
		}
		return nil
	})
	err = matrix.Stream(ctx, r.Client, url, matrix.MaxPage, func(decoder *matrix.Decoder) error {
		same = nil
		return matrix.Members{"events_before": find, "events_after": find}.Read(decoder)
	})
	if err != nil {
		return nil
	}
	for _, other := range same {
		if decrypted, err := r.decryptOnce(ctx, other); err == nil {
			return decrypted
		}
	}
	return nil
}

// duplicate is the other event where that has the same ciphertext, else nil.
func (r Room) duplicate(evt *event.Event, other *matrix.Event) *event.Event {
	if other == nil || other.ID == evt.ID || other.Sender != evt.Sender || other.Type != event.EventEncrypted.Type || other.StateKey != nil {
		return nil
	}
	found := other.Parsed(r.ID, event.EventEncrypted)
	if found == nil {
		return nil
	}
	content, theirs := evt.Content.AsEncrypted(), found.Content.AsEncrypted()
	if theirs.SessionID != content.SessionID || !bytes.Equal(theirs.MegolmCiphertext, content.MegolmCiphertext) {
		return nil
	}
	return found
}
