package roomkv

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// maxInline is what a value and its name may take of the state, in bytes, before the value goes to the media repository.
	maxInline = 48 << 10

	// defaultMaxValue is how large a value may be where neither the store's options nor the homeserver say, in bytes.
	defaultMaxValue = 100 << 20
)

// keep gives the form in which a value is stored that is given as it would stand in an event: that very form where it can
// stand there, else a reference to the attachment that now holds the value. What is a reference already stays one.
func (r roomState) keep(ctx context.Context, name, key string, stored json.RawMessage) (json.RawMessage, error) {
	text, encrypted, err := r.outside(ctx, name, key, stored)
	if err != nil || text == nil {
		return stored, err
	}
	return r.upload(ctx, name, key, text, encrypted)
}

// keepAll is keep for values by key, none of which is uploaded where one is too large.
func (r roomState) keepAll(ctx context.Context, stored map[string]json.RawMessage, names []string, keyOf map[string]string) (map[string]json.RawMessage, error) {
	type out struct {
		name, key string
		text      json.RawMessage
		encrypted bool
	}
	var outs []out
	for _, name := range names {
		key := keyOf[name]
		if err := r.checkLarge(ctx, name, key, stored[key]); err != nil {
			return nil, err
		}
		text, encrypted, err := r.outside(ctx, name, key, stored[key])
		if err != nil {
			return nil, err
		}
		if text != nil {
			outs = append(outs, out{name, key, text, encrypted})
		}
	}
	if len(outs) == 0 {
		return stored, nil
	}
	kept := maps.Clone(stored)
	for _, out := range outs {
		var err error
		if kept[out.key], err = r.upload(ctx, out.name, out.key, out.text, out.encrypted); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// outside gives the text of a value that is too large for an event, nil where it is not, and whether the reference to it
// will be encrypted. Whether it really is, is decided when that is sent.
func (r roomState) outside(ctx context.Context, name, key string, stored json.RawMessage) (text json.RawMessage, encrypted bool, err error) {
	const longest = len(`%41`) // what a byte of a key can become inside an encrypted event, where one of a value becomes two at most
	nameSize := wire.EntrySize(name, "") + len(key)
	if longest*(nameSize+len(stored)) < maxShared || nameSize+2*wire.MediaSize > maxInline { // the latter is too large in any case
		return nil, false, nil
	}
	sealer, err := place{roomState: r}.Sealer(ctx, true)
	if err != nil {
		return nil, false, err
	}
	if !r.isLarge(sealer != nil, name, key, stored) {
		return nil, false, nil
	}
	read, err := wire.Decode(stored)
	if err != nil || len(read.JSON) < 2*wire.MediaSize {
		return nil, false, nil // a reference, or nothing would be gained
	}
	return read.JSON, sealer != nil, nil
}

// isLarge tells whether a value is too large for the state or, where it is encrypted, for an event that others can share. Inside
// that it is spelled in another way.
func (r roomState) isLarge(encrypted bool, name, key string, stored json.RawMessage) bool {
	if !encrypted {
		return wire.EntrySize(name, "")+len(stored) > maxInline
	}
	if len(stored) > maxInline { // as text of JSON that would be a little less, but for a value so large that does not matter
		return true
	}
	content, err := sealer{r}.content([]commit.Value{{Name: name, Key: key, Stored: string(stored)}})
	return err == nil && len(content) > maxShared
}

// upload encrypts a value, brings it to the media repository, and gives what is stored in its place. A value that this
// process has brought there, or read from there, for the same key is not uploaded again while it is there.
func (r roomState) upload(ctx context.Context, name, key string, text json.RawMessage, encrypted bool) (json.RawMessage, error) {
	at := attachmentID{r.ID, name, encrypted, digest(text)}
	if known, ok := r.core.media.get(at); ok && r.hasStill(ctx, known) {
		r.core.media.put(at, known.stored)
		return known.stored, nil
	}
	if err := r.checkSize(ctx, key, int64(len(text))); err != nil {
		return nil, err
	}
	file := attachment.NewEncryptedFile()
	ciphertext := bytes.Clone(text)
	file.EncryptInPlace(ciphertext)
	var sent mautrix.RespMediaUpload
	err := matrix.Get(ctx, r.Client, matrix.Request{Method: http.MethodPost, URL: r.Client.BuildURL(mautrix.MediaURLPath{"v3", "upload"}), Bytes: ciphertext}, &sent)
	switch {
	case matrix.IsStatus(err, http.StatusRequestEntityTooLarge):
		return nil, fault.Of(ErrTooLarge, err, "the value for key %q in %s has %d bytes, which the homeserver does not take as an upload", key, r.ID, len(text))
	case err != nil:
		return nil, r.Explain(ctx, "upload a value", err)
	case !sent.ContentURI.IsValid():
		return nil, fault.Because(nil, "cannot upload a value for %s: the homeserver's answer names no attachment", r.ID)
	}
	media := wire.Media{EncryptedFileInfo: event.EncryptedFileInfo{EncryptedFile: *file, URL: sent.ContentURI.CUString()}, Size: int64(len(text))}
	stored := media.Stored()
	r.core.media.put(at, stored)
	return stored, nil
}

// digest tells values apart. Small ones are the same whatever the order of their names.
func digest(text json.RawMessage) [sha256.Size]byte {
	if len(text) <= wire.MaxEvent {
		return sha256.Sum256([]byte(wire.Canonical(text)))
	}
	return sha256.Sum256(text)
}

// hasStill tells whether the homeserver still has the attachment, of which it is asked now and then.
func (r roomState) hasStill(ctx context.Context, known uploaded) bool {
	if time.Since(known.there) < askAgain {
		return true
	}
	read, err := wire.Decode(known.stored)
	if err != nil {
		return false
	}
	media, err := wire.ParseMedia(read.Media)
	if err != nil {
		return false
	}
	return r.download(ctx, media, func(*http.Response, io.Reader) error { return nil }) == nil
}

// checkSize fails where a value is larger than the homeserver takes as an upload, or than the store's options allow.
func (r roomState) checkSize(ctx context.Context, key string, size int64) error {
	most, err := r.maxValue(ctx)
	if err == nil && size > most {
		err = fault.Of(ErrTooLarge, nil, "the value for key %q in %s has %d bytes, and at most %d are allowed, by the homeserver for an upload or by WithMaxValue",
			key, r.ID, size, most)
	}
	return err
}

// checkLarge fails where a value that is to be stored is larger than it may be. The homeserver's limit is of those that are uploaded.
func (r roomState) checkLarge(ctx context.Context, name, key string, stored json.RawMessage) error {
	if most := r.core.settings.maxValue; most > 0 && int64(len(stored)) > most {
		if read, err := wire.Decode(stored); err == nil && read.JSON != nil {
			return r.checkSize(ctx, key, int64(len(read.JSON)))
		}
	}
	text, _, err := r.outside(ctx, name, key, stored)
	if err == nil && text != nil {
		err = r.checkSize(ctx, key, int64(len(text)))
	}
	return err
}

// maxValue is how large a value may be, in bytes.
func (r roomState) maxValue(ctx context.Context) (int64, error) {
	most, known := r.core.media.limit()
	if !known && r.core.settings.maxValue == 0 {
		config, err := r.mediaConfig(ctx)
		if err != nil {
			return 0, r.Explain(ctx, "learn how large an upload may be", err)
		}
		most = config.UploadSize
		r.core.media.setLimit(most)
	}
	return cmp.Or(r.core.settings.maxValue, most, defaultMaxValue), nil
}

// mediaConfig is empty where the homeserver has neither today's endpoint nor the one that came before v1.11 of the
// specification.
func (r roomState) mediaConfig(ctx context.Context) (config mautrix.RespMediaConfig, err error) {
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

// lacksEndpoint tells whether the homeserver does not know what it was asked for.
func lacksEndpoint(err error) bool {
	return errors.Is(err, mautrix.MUnrecognized) || matrix.IsStatus(err, http.StatusMethodNotAllowed) ||
		matrix.IsStatus(err, http.StatusNotFound) && !errors.Is(err, mautrix.MNotFound)
}

// attachmentOf says what a value in an attachment is, for errors and to know it again.
type attachmentOf struct {
	name, key string
	event     id.EventID
	encrypted bool // whether the reference was
}

// text is the JSON text of what was read, which may be elsewhere.
func (r roomState) text(ctx context.Context, read wire.Value, of attachmentOf) (json.RawMessage, error) {
	if read.Media == nil || r.keysOnly {
		return read.JSON, nil
	}
	media, err := wire.ParseMedia(read.Media)
	if err != nil {
		return nil, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: %v", of.event, r.ID, of.key, err)
	}
	if err := r.checkSize(ctx, of.key, media.Size); err != nil {
		return nil, err
	}
	stored := wire.StoredMedia(read.Media)
	text, err := r.fetch(ctx, media, of)
	if err != nil {
		r.core.media.forget(stored) // a Put is to replace it, even with the same value
		return nil, err
	}
	switch err := media.DecryptInPlace(text); {
	case err != nil:
		r.core.media.forget(stored)
		return nil, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: attachment %s is not what was uploaded: %v", of.event, r.ID, of.key, media.URL, err)
	case !json.Valid(text) || !utf8.Valid(text):
		return nil, fault.Of(ErrCorrupt, nil, "event %s in %s, key %q: attachment %s is not a JSON value", of.event, r.ID, of.key, media.URL)
	}
	r.core.media.put(attachmentID{r.ID, of.name, of.encrypted, digest(text)}, stored)
	return text, nil
}

// errWrongSize is for an attachment that is shorter or longer than it should be.
var errWrongSize = errors.New("another size")

// fetch downloads an attachment, as many bytes as it is said to have.
func (r roomState) fetch(ctx context.Context, media wire.Media, of attachmentOf) (text []byte, err error) {
	err = r.download(ctx, media, func(resp *http.Response, body io.Reader) (err error) {
		if resp.ContentLength >= 0 && resp.ContentLength != media.Size {
			return errWrongSize
		}
		text, err = readSized(body, media.Size)
		return err
	})
	if errors.Is(err, errWrongSize) {
		return nil, r.wrongSize(media, of)
	}
	what := fmt.Sprintf("download attachment %s, the value for key %q", media.URL, of.key)
	switch {
	case errors.Is(err, mautrix.MNotFound), matrix.IsStatus(err, http.StatusNotFound), matrix.IsStatus(err, http.StatusGone), saysNo(err):
		return nil, fault.Of(ErrMissingMedia, err, "cannot %s in event %s in %s", what, of.event, r.ID)
	case err != nil:
		return nil, r.Explain(ctx, what, err)
	}
	return text, nil
}

// saysNo tells whether the homeserver itself, no proxy before it, answers that it does not give the attachment: it may not, or does
// not get it from the one that has it.
func saysNo(err error) bool {
	var answer mautrix.HTTPError
	return errors.As(err, &answer) && answer.RespError != nil && answer.Response != nil &&
		(answer.Response.StatusCode == http.StatusForbidden || answer.Response.StatusCode >= http.StatusInternalServerError)
}

func (r roomState) wrongSize(media wire.Media, of attachmentOf) error {
	return fault.Of(ErrCorrupt, nil, "event %s in %s, key %q: attachment %s does not have the %d bytes that it should", of.event, r.ID, of.key, media.URL, media.Size)
}

// firstStep is how much memory is taken at first for an attachment, at most, in bytes.
const firstStep = 1 << 20

// readSized reads a body that should have that many bytes. Whoever may write state says how many, so memory is taken as they come: at
// most four times as much as has come.
func readSized(body io.Reader, size int64) (text []byte, err error) {
	step := size
	for step > firstStep {
		step = (step + 3) / 4
	}
	for ; ; step = min(4*step, size) {
		text = append(make([]byte, 0, step), text...)
		n, err := io.ReadFull(body, text[len(text):step])
		text = text[:len(text)+n]
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil, errWrongSize
		case err != nil:
			return nil, err
		case step < size:
			continue
		}
		if n, _ := body.Read(make([]byte, 1)); n > 0 {
			return nil, errWrongSize
		}
		return text, nil
	}
}

// download reads an attachment. Homeservers from before v1.11 of the specification have only the endpoint without authentication.
func (r roomState) download(ctx context.Context, media wire.Media, read func(resp *http.Response, body io.Reader) error) error {
	uri, err := media.URL.Parse()
	if err != nil {
		return err
	}
	for _, url := range []string{
		r.Client.BuildClientURL("v1", "media", "download", uri.Homeserver, uri.FileID),
		r.Client.BuildURL(mautrix.MediaURLPath{"v3", "download", uri.Homeserver, uri.FileID}),
	} {
		_, err = matrix.Do(ctx, r.Client, matrix.Request{Method: http.MethodGet, URL: url, Limit: media.Size + 1, Elsewhere: true, Read: read})
		if !lacksEndpoint(err) {
			return err
		}
	}
	return err
}
