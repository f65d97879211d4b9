package matrix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"maunium.net/go/mautrix"
)

// Request is a request to a homeserver.
type Request struct {
	Method string
	URL    string
	JSON   any    // the body, where it is not nil
	Bytes  []byte // the body, where it is no JSON
	Limit  int64  // how large the answer may be, in bytes; [MaxSmall] where it is 0

	// Elsewhere: the homeserver may redirect the request, which is then made without the user's token. Else a redirect is an error.
	Elsewhere bool

	// Fresh: no cache may answer. Synapse lets caches keep what needs no login for an hour.
	Fresh bool

	// Read reads the body of the answer, which is else returned. It can be called again, where an answer breaks off. Its error is
	// final.
	Read func(resp *http.Response, body io.Reader) error
}

// Do makes a request, and again as [Try] does, and returns the body of the answer. Neither is logged.
func Do(ctx context.Context, client Client, req Request) (answer []byte, err error) {
	err = Try(ctx, client, func(ctx context.Context) error {
		answer, err = once(ctx, client.Client, req)
		return err
	})
	return answer, err
}

// Get makes a request whose answer is JSON. It fails with [ErrAnswer] where that is no JSON, or does not go into the value.
func Get(ctx context.Context, client Client, req Request, into any) error {
	answer, err := Do(ctx, client, req)
	if err != nil {
		return err
	}
	if json.Unmarshal(answer, into) != nil { // whose error can quote the answer
		return ErrAnswer
	}
	return nil
}

// Stream makes a request whose answer is JSON that is read while it arrives, and anew where it breaks off: read begins from the start then.
// The limit is in bytes. Errors about what was read are [ErrAnswer], without a word of it; other errors of read end the request.
func Stream(ctx context.Context, client Client, url string, limit int64, read func(*Decoder) error) error {
	_, err := Do(ctx, client, Request{Method: http.MethodGet, URL: url, Limit: limit, Read: decoded(read)})
	return err
}

func once(ctx context.Context, client *mautrix.Client, req Request) (answer []byte, err error) {
	var unread error // by Read, in whose error can be what was read, which mautrix would log
	limit := cmp.Or(req.Limit, MaxSmall)
	full := mautrix.FullRequest{Method: req.Method, URL: req.URL, RequestJSON: req.JSON, SensitiveContent: true, MaxAttempts: 1}
	if full.Client = straight(client.Client); req.Elsewhere {
		full.Client = anonymous(client.Client)
	}
	full.Client = metered(ctx, full.Client)
	if req.Bytes != nil {
		full.RequestBytes, full.Headers = req.Bytes, http.Header{"Content-Type": {"application/octet-stream"}}
	}
	if req.Fresh {
		full.Headers = http.Header{"Cache-Control": {"no-cache"}}
	}
	full.Handler = func(sent *http.Request, resp *http.Response, _ any, _ int64) ([]byte, error) {
		body := &body{ctx: ctx, from: resp.Body, missing: resp.ContentLength, limit: limit, left: limit}
		var text []byte
		if req.Read != nil {
			unread = req.Read(resp, body)
		} else {
			text, unread = io.ReadAll(body)
		}
		switch {
		case errors.Is(body.failed, ErrAnswer):
			return nil, body.failed
		case body.failed != nil:
			return nil, mautrix.HTTPError{Request: sent, Response: resp, Message: "failed to read response body", WrappedError: body.failed}
		}
		return text, nil
	}
	answer, err = client.MakeFullRequest(ctx, full)
	return answer, cmp.Or(err, unread)
}

// body is that of an answer. It remembers why it could not be read, whatever its reader makes of that.
type body struct {
	ctx     context.Context
	from    io.Reader
	missing int64 // how many bytes are to come, below zero where that is not known
	limit   int64 // how many there may be
	left    int64 // how many more there may be
	failed  error
}

func (b *body) Read(p []byte) (n int, err error) {
	b.failed = cmp.Or(b.failed, b.ctx.Err())
	if b.failed == nil && b.left >= b.missing {
		n, err = b.from.Read(p[:min(int64(len(p)), b.left+1)])
		b.left -= int64(n)
		b.missing -= int64(n)
	}
	switch {
	case b.failed != nil:
	case b.left < max(0, b.missing):
		b.failed = fmt.Errorf("%w: it is larger than %d bytes: %w", ErrAnswer, b.limit, mautrix.ErrBodyReadReachedLimit)
	case err == io.EOF && b.missing > 0: // which not every transport finds out
		b.failed = fmt.Errorf("it broke off: %w", io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF:
		b.failed = fmt.Errorf("it broke off: %w", err)
	}
	return n, cmp.Or(b.failed, err)
}
