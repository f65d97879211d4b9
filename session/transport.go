package session

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// transport is what requests go through, before they have a token.
func (c Config) transport() (http.RoundTripper, error) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	if c.Proxy != "" {
		proxy, err := c.proxy()
		if err != nil {
			return nil, err
		}
		base.Proxy = http.ProxyURL(proxy)
	}
	return base, nil
}

// syncTime is how long mautrix asks the homeserver to hold a sync back.
const syncTime = 30 * time.Second

// bounded bounds each request, up to the end of its answer.
type bounded struct {
	next    http.RoundTripper
	timeout time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	timeout := b.timeout
	if strings.HasSuffix(req.URL.Path, "/sync") {
		timeout += syncTime
	}
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	resp, err := b.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &bounding{resp.Body, sync.OnceFunc(cancel)}
	return resp, nil
}

// bounding is the body of an answer, whose time ends when it is closed.
type bounding struct {
	io.ReadCloser
	cancel func()
}

func (b *bounding) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
