package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// errWrongSize is for an attachment that is shorter or longer than it should be.
var errWrongSize = errors.New("another size")

// fetch downloads an attachment, as many bytes as it is said to have.
func fetch(ctx context.Context, r matrix.Room, media wire.Media, of Of) (text []byte, err error) {
	err = download(ctx, r, media, func(resp *http.Response, body io.Reader) (err error) {
		if resp.ContentLength >= 0 && resp.ContentLength != media.Size {
			return errWrongSize
		}
		text, err = readSized(body, media.Size)
		return err
	})
	what := fmt.Sprintf("download attachment %s, the value for key %q", media.URL, of.Key)
	switch {
	case errors.Is(err, errWrongSize):
		return nil, fault.Of(fault.ErrCorrupt, nil, "event %s in %s, key %q: attachment %s does not have the %d bytes that it should",
			of.Event, r.ID, of.Key, media.URL, media.Size)
	case errors.Is(err, mautrix.MNotFound), matrix.IsStatus(err, http.StatusNotFound), matrix.IsStatus(err, http.StatusGone), SaysNo(err):
		return nil, fault.Of(fault.ErrMissingMedia, err, "cannot %s in event %s in %s", what, of.Event, r.ID)
	case err != nil:
		return nil, r.Explain(ctx, what, err)
	}
	return text, nil
}

// SaysNo tells whether the homeserver itself, no proxy before it, answers that it does not give the attachment: it may not, or does
// not get it from the one that has it.
func SaysNo(err error) bool {
	var answer mautrix.HTTPError
	status := matrix.Status(err)
	return errors.As(err, &answer) && answer.RespError != nil && (status == http.StatusForbidden || status >= http.StatusInternalServerError)
}

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
func download(ctx context.Context, r matrix.Room, media wire.Media, read func(resp *http.Response, body io.Reader) error) error {
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

// lacksEndpoint tells whether the homeserver does not know what it was asked for.
func lacksEndpoint(err error) bool {
	return errors.Is(err, mautrix.MUnrecognized) || matrix.IsStatus(err, http.StatusMethodNotAllowed) ||
		matrix.IsStatus(err, http.StatusNotFound) && !errors.Is(err, mautrix.MNotFound)
}
