package roomkv

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

// aroundDuplicate is how many encrypted events around one are searched for another with the same ciphertext. Dendrite stores both
// at about the same time.
const aroundDuplicate = 50

// decryptDuplicate decrypts an event that the client has the key to and rejects: it has decrypted another event with the same
// ciphertext before, and takes this one for a replay. Two such events are there where a homeserver was given one twice, at the same
// time (Dendrite) or again after a crash. It gives nil where there is no other that can be decrypted.
//
// The protection against replays guards nothing here. Whoever repeats a ciphertext in another event, for the state to name that, can
// have the state name the first one.
func (r roomState) decryptDuplicate(ctx context.Context, evt *event.Event) *event.Event {
	filter, err := json.Marshal(mautrix.FilterPart{Types: []event.Type{event.EventEncrypted}})
	if err != nil {
		return nil
	}
	body, err := r.request(ctx, http.MethodGet, r.client.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", r.room, "context", evt.ID},
		map[string]string{"limit": strconv.Itoa(aroundDuplicate), "filter": string(filter)},
	), nil)
	var around struct {
		Before []*event.Event `json:"events_before"`
		After  []*event.Event `json:"events_after"`
	}
	if err != nil || json.Unmarshal(body, &around) != nil {
		return nil
	}
	content := evt.Content.AsEncrypted()
	for _, other := range append(around.Before, around.After...) {
		if other == nil || other.ID == evt.ID || other.Sender != evt.Sender || other.RoomID != "" && other.RoomID != r.room ||
			other.Type.Type != event.EventEncrypted.Type || other.StateKey != nil || other.Content.ParseRaw(event.EventEncrypted) != nil {
			continue
		}
		if same := other.Content.AsEncrypted(); same.SessionID != content.SessionID || !bytes.Equal(same.MegolmCiphertext, content.MegolmCiphertext) {
			continue
		}
		other.RoomID = r.room
		if decrypted, err := r.client.Crypto.Decrypt(ctx, other); err == nil {
			return decrypted
		}
	}
	return nil
}
