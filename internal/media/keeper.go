// Package media keeps values that are too large for an event in the media repository, encrypted. What the memory holds in their place is
// a reference (see package wire). It decides nothing about what is too large.
package media

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"sync/atomic"
	"unicode/utf8"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/asked"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/lru"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/policy"
	"github.com/roomkv/roomkv/internal/wire"
)

// In bytes.
const (
	defaultMaxValue = 100 << 20 // how large a value may be where neither the store's options nor the homeserver say
	firstStep       = 1 << 20   // how much memory is taken at first for an attachment, at most
)

// maxAttachments is how many attachments are remembered, without what they hold.
const maxAttachments = 4096

// Keeper keeps values in the media repository. It remembers which values this process has uploaded or downloaded, so that none is uploaded
// twice, and how large an upload may be. The zero value is ready, and methods are safe for concurrent use.
type Keeper struct {
	Policy *policy.Policy // nil for the default; set before the first use

	MaxValue int64 // how large a value may be, in bytes; 0 where the homeserver says. It is set before the first use.

	known lru.Cache[place, uploaded]
	limit atomic.Pointer[limit]
}

// place is a value in the place for which it was uploaded. An attachment is not used for another: its keys can be seen by others there, and
// who deletes the one must not delete the other.
type place struct {
	room      id.RoomID
	name      string
	encrypted bool // whether the reference is inside an encrypted event
	digest    [sha256.Size]byte
}

// uploaded is a value in the media repository.
type uploaded struct {
	media  wire.Media
	stored json.RawMessage // the reference, in the state or in an encrypted event
	there  asked.Time      // when the homeserver was last known to have it
}

// limit is the homeserver's answer on how large an upload may be.
type limit struct {
	most  int64 // bytes, 0 where the homeserver does not say
	asked asked.Time
}

// Of says which value an attachment holds. It stands in errors, and tells the attachments of two keys apart.
type Of struct {
	Name, Key string
	Event     id.EventID // that refers to it, empty where none does yet
	Encrypted bool       // whether the reference is inside an encrypted event
}

// Put encrypts a value, brings it to the media repository, and gives what is stored in its place. A value that this
// process has brought there, or read from there, for the same key is not uploaded again while it is there. Put fails with
// [fault.ErrTooLarge], or with the error of a request.
func (k *Keeper) Put(ctx context.Context, r matrix.Room, of Of, text json.RawMessage) (json.RawMessage, error) {
	at := place{r.ID, of.Name, of.Encrypted, Digest(text)}
	if known, ok := k.known.Get(at); ok && k.hasStill(ctx, r, known) {
		k.note(at, known.media, known.stored)
		return known.stored, nil
	}
	if err := k.CheckSize(ctx, r, of.Key, int64(len(text))); err != nil {
		return nil, err
	}
	file := attachment.NewEncryptedFile()
	ciphertext := bytes.Clone(text)
	file.EncryptInPlace(ciphertext)
	var sent mautrix.RespMediaUpload
	err := matrix.Get(ctx, r.Client, matrix.Request{Method: http.MethodPost, URL: r.Client.BuildURL(mautrix.MediaURLPath{"v3", "upload"}), Bytes: ciphertext}, &sent)
	switch {
	case matrix.IsStatus(err, http.StatusRequestEntityTooLarge):
		return nil, fault.Of(fault.ErrTooLarge, err, "the value for key %q in %s has %d bytes, which the homeserver does not take as an upload", of.Key, r.ID, len(text))
	case err != nil:
		return nil, r.Explain(ctx, "upload a value", err)
	case !sent.ContentURI.IsValid():
		return nil, fault.Because(nil, "cannot upload a value for %s: the homeserver's answer names no attachment", r.ID)
	}
	media := wire.Media{EncryptedFileInfo: event.EncryptedFileInfo{EncryptedFile: *file, URL: sent.ContentURI.CUString()}, Size: int64(len(text))}
	stored := media.Stored()
	k.note(at, media, stored)
	return stored, nil
}

// Digest tells values apart. Small ones are the same whatever the order of their names.
func Digest(text json.RawMessage) [sha256.Size]byte {
	if len(text) <= wire.MaxEvent {
		return sha256.Sum256([]byte(wire.Canonical(text)))
	}
	return sha256.Sum256(text)
}

// Holds tells whether a stored reference names an attachment that holds the text, by what this process has brought there or read, and the
// homeserver still has the attachment.
func (k *Keeper) Holds(ctx context.Context, r matrix.Room, of Of, text, stored json.RawMessage) bool {
	known, ok := k.known.Get(place{r.ID, of.Name, of.Encrypted, Digest(text)})
	return ok && wire.Same(known.stored, stored) && k.hasStill(ctx, r, known)
}

// hasStill tells whether the homeserver still has the attachment, of which it is asked now and then.
func (k *Keeper) hasStill(ctx context.Context, r matrix.Room, known uploaded) bool {
	return known.there.Counts(false, k.Policy.Or().ThereFor) || download(ctx, r, known.media, func(*http.Response, io.Reader) error { return nil }) == nil
}

// note notes that the homeserver has the attachment.
func (k *Keeper) note(at place, media wire.Media, stored json.RawMessage) {
	k.known.Keep(at, uploaded{media, stored, asked.Now(false)}, 1, maxAttachments)
}

// forget is for an attachment that the homeserver turns out not to have: a Put is to replace it, even with the same value.
func (k *Keeper) forget(stored json.RawMessage) {
	k.known.ForgetThose(func(known uploaded) bool { return string(known.stored) == string(stored) })
}

// CheckSize fails with [fault.ErrTooLarge] where a value is larger than the homeserver takes as an upload, or than the store's options
// allow, and with the error of a request where it cannot be known.
func (k *Keeper) CheckSize(ctx context.Context, r matrix.Room, key string, size int64) error {
	most, err := k.maxValue(ctx, r)
	if err == nil && size > most {
		err = fault.Of(fault.ErrTooLarge, nil, "the value for key %q in %s has %d bytes, and at most %d are allowed, by the homeserver for an upload or by WithMaxValue",
			key, r.ID, size, most)
	}
	return err
}

// maxValue is how large a value may be, in bytes.
func (k *Keeper) maxValue(ctx context.Context, r matrix.Room) (int64, error) {
	if k.MaxValue != 0 {
		return k.MaxValue, nil
	}
	known := k.limit.Load()
	if known == nil || !known.asked.Counts(false, k.Policy.Or().UploadLimitFor) {
		config, err := config(ctx, r)
		if err != nil {
			return 0, r.Explain(ctx, "learn how large an upload may be", err)
		}
		known = &limit{config.UploadSize, asked.Now(false)}
		k.limit.Store(known)
	}
	return cmp.Or(known.most, defaultMaxValue), nil
}

// config is empty where the homeserver has neither today's endpoint nor the one that came before v1.11 of the
// specification.
func config(ctx context.Context, r matrix.Room) (config mautrix.RespMediaConfig, err error) {
	for _, url := range []string{
		r.Client.BuildClientURL("v1", "media", "config"),
		r.Client.BuildURL(mautrix.MediaURLPath{"v3", "config"}),
	} {
		err = matrix.Get(ctx, r.Client, matrix.Request{Method: http.MethodGet, URL: url}, &config)
		if !lacksEndpoint(err) {
			return config, err
		}
	}
	return mautrix.RespMediaConfig{}, nil
}

// Get downloads the value that a reference names, and decrypts it. It fails with [fault.ErrCorrupt] where the reference or the attachment is
// damaged, with [fault.ErrTooLarge], with [fault.ErrMissingMedia] where the homeserver does not give the attachment, or with another error of
// a request.
func (k *Keeper) Get(ctx context.Context, r matrix.Room, reference json.RawMessage, of Of) (json.RawMessage, error) {
	media, err := wire.ParseMedia(reference)
	if err != nil {
		return nil, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q: %v", of.Event, r.ID, of.Key, err)
	}
	if err := k.CheckSize(ctx, r, of.Key, media.Size); err != nil {
		return nil, err
	}
	stored := wire.StoredMedia(reference)
	text, err := fetch(ctx, r, media, of)
	if err != nil {
		k.forget(stored)
		return nil, err
	}
	switch err := media.DecryptInPlace(text); {
	case err != nil:
		k.forget(stored)
		return nil, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q: attachment %s is not what was uploaded: %v", of.Event, r.ID, of.Key, media.URL, err)
	case !json.Valid(text) || !utf8.Valid(text):
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s, key %q: attachment %s is not a JSON value", of.Event, r.ID, of.Key, media.URL)
	}
	k.note(place{r.ID, of.Name, of.Encrypted, Digest(text)}, media, stored)
	return text, nil
}
