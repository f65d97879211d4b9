package media

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	// maxAttachments is how many attachments are remembered, without what they hold.
	maxAttachments = 4096

	// askAgain is how long the homeserver's word counts that it has an attachment.
	askAgain = 10 * time.Second

	// limitAgain is how long the homeserver's word counts on how large an upload may be.
	limitAgain = time.Hour
)

// attachmentID is a value in the place for which it was uploaded. An attachment is not used for another: its keys can be seen
// by others there, and who deletes the one must not delete the other.
type attachmentID struct {
	room      id.RoomID
	name      string
	encrypted bool // whether the reference is inside an encrypted event
	digest    [sha256.Size]byte
}

// uploaded is what the state, or an encrypted event, holds of a value in the media repository.
type uploaded struct {
	stored json.RawMessage
	there  time.Time // when the homeserver was last known to have it
}

func (k *Keeper) find(at attachmentID) (known uploaded, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known.Get(at)
}

// note notes that the homeserver has the attachment.
func (k *Keeper) note(at attachmentID, stored json.RawMessage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known.Most = maxAttachments
	k.known.Put(at, uploaded{stored: stored, there: time.Now()})
}

// forget is for an attachment that the homeserver turns out not to have.
func (k *Keeper) forget(stored json.RawMessage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var gone []attachmentID
	for at, known := range k.known.All {
		if string(known.stored) == string(stored) {
			gone = append(gone, at)
		}
	}
	for _, at := range gone {
		k.known.Forget(at)
	}
}

func (k *Keeper) limit() (most int64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.most, !k.asked.IsZero() && time.Since(k.asked) < limitAgain
}

func (k *Keeper) setLimit(most int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.most, k.asked = most, time.Now()
}
