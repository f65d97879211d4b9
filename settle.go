package roomkv

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// settleTimeout is how long a write whose caller has given up is waited for.
	settleTimeout = 10 * time.Second

	// maxAnswer bounds the answer to a write, in bytes. It is an event ID or an error.
	maxAnswer = 1 << 20
)

// settling is a transport for writes. One whose context ends gives its caller the context's error at once, but the
// request goes on: the homeserver may carry it out all the same, and whoever writes to the same dict next must
// read what came of it first.
type settling struct {
	next    http.RoundTripper
	pending *sync.WaitGroup // the requests that have not ended
}

// settlingClient is client with writes that pending counts.
func settlingClient(client *http.Client, pending *sync.WaitGroup) *http.Client {
	settled := *client
	settled.Transport = settling{cmp.Or(client.Transport, http.DefaultTransport), pending}
	return &settled
}

// RoundTrip implements [http.RoundTripper].
func (s settling) RoundTrip(req *http.Request) (*http.Response, error) {
	type result struct {
		resp *http.Response
		err  error
	}
	ended := make(chan result, 1)
	s.pending.Go(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(req.Context()))
		defer cancel()
		defer context.AfterFunc(req.Context(), func() { time.AfterFunc(settleTimeout, cancel) })()
		resp, err := s.next.RoundTrip(req.WithContext(ctx))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			_ = resp.Body.Close()
			resp.Body = io.NopCloser(bytes.NewReader(body))
		}
		ended <- result{resp, err}
	})
	select {
	case r := <-ended:
		if r.err != nil {
			return nil, r.err
		}
		return r.resp, nil
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}
