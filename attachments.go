package roomkv

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/lru"
)

const (
	// maxAttachments is how many attachments are remembered, without what they hold.
	maxAttachments = 4096

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

// attachments remembers which values this process has uploaded or downloaded, so that none is uploaded twice, and how large
// an upload may be. The zero value is ready, and methods are safe for concurrent use.
type attachments struct {
	mu    sync.Mutex
	known lru.Cache[attachmentID, uploaded]

	most  int64 // bytes, 0 where the homeserver does not say
	asked time.Time
}

func (a *attachments) get(at attachmentID) (known uploaded, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known.Get(at)
}

// put notes that the homeserver has the attachment.
func (a *attachments) put(at attachmentID, stored json.RawMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known.Most = maxAttachments
	a.known.Put(at, uploaded{stored: stored, there: time.Now()})
}

// forget is for an attachment that the homeserver turns out not to have.
func (a *attachments) forget(stored json.RawMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var gone []attachmentID
	for at, known := range a.known.All {
		if string(known.stored) == string(stored) {
			gone = append(gone, at)
		}
	}
	for _, at := range gone {
		a.known.Forget(at)
	}
}

func (a *attachments) limit() (most int64, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.most, !a.asked.IsZero() && time.Since(a.asked) < limitAgain
}

func (a *attachments) setLimit(most int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.most, a.asked = most, time.Now()
}
