package wire

import (
	"encoding/json"
	"fmt"

	"maunium.net/go/mautrix/event"
)

// Media is a reference to an attachment that holds a value as JSON text: where it is, the keys to it, its hash, and its
// size in bytes.
type Media struct {
	event.EncryptedFileInfo
	Size int64 `json:"size"`
}

// Stored is the stored form of a value that is in the attachment.
func (m Media) Stored() json.RawMessage {
	return marshal(map[string]Media{mediaMarker: m})
}

// StoredMedia is [Media.Stored] for a reference as it was read.
func StoredMedia(reference json.RawMessage) json.RawMessage {
	return marshal(map[string]json.RawMessage{mediaMarker: reference})
}

// ParseMedia reads a reference; see [Value]. The error is ErrFormat, for one that names no attachment, or keys to none.
func ParseMedia(reference json.RawMessage) (Media, error) {
	var media Media
	if err := json.Unmarshal(reference, &media); err != nil {
		return Media{}, fmt.Errorf("%w: %s is not a reference", ErrFormat, mediaMarker)
	}
	uri, err := media.URL.Parse()
	switch {
	case err != nil || !uri.IsValid():
		return Media{}, fmt.Errorf("%w: %s has no mxc URI", ErrFormat, mediaMarker)
	case media.Size <= 0:
		return Media{}, fmt.Errorf("%w: %s has no size", ErrFormat, mediaMarker)
	}
	if err := media.PrepareForDecryption(); err != nil {
		return Media{}, fmt.Errorf("%w: %s: %w", ErrFormat, mediaMarker, err)
	}
	return media, nil
}
