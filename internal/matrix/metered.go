package matrix

import (
	"cmp"
	"context"
	"io"
	"net/http"

	"github.com/roomkv/roomkv/internal/meter"
)

// metered has the requests of a client counted that are made in a context in which something counts. The client is the caller's copy.
func metered(ctx context.Context, client *http.Client) *http.Client {
	if meter.Counted(ctx) {
		client.Transport = meteredTransport{cmp.Or(client.Transport, http.DefaultTransport)}
	}
	return client
}

// meteredTransport counts each request that goes to its next, also those of a redirect, and those that mautrix makes again with a new token.
type meteredTransport struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t meteredTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	meter.Count(req.Context(), meter.Counts{Requests: 1, Sent: max(0, req.ContentLength)})
	resp, err := t.next.RoundTrip(req)
	if err == nil && resp.Body != nil {
		resp.Body = meteredBody{resp.Body, req.Context()}
	}
	return resp, err
}

// meteredBody counts what is read of the body of an answer.
type meteredBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b meteredBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	meter.Count(b.ctx, meter.Counts{Received: int64(n)})
	return n, err
}
