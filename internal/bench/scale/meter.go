package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix"
)

// traffic is what crossed the wire: requests, and the bytes of their bodies, without headers and compression.
type traffic struct{ requests, up, down float64 }

func (t traffic) minus(o traffic) traffic {
	return traffic{t.requests - o.requests, t.up - o.up, t.down - o.down}
}

func (t traffic) plus(o traffic) traffic {
	return traffic{t.requests + o.requests, t.up + o.up, t.down + o.down}
}

func (t traffic) times(n float64) traffic { return traffic{t.requests * n, t.up * n, t.down * n} }

// meter is a transport that counts what a client sends and gets: the client's own sync, and everything else.
type meter struct {
	next http.RoundTripper

	mu           sync.Mutex
	syncs, other traffic
}

// metered puts a meter under the client.
func metered(client *mautrix.Client) *meter {
	m := &meter{next: client.Client.Transport}
	if m.next == nil {
		m.next = http.DefaultTransport
	}
	client.Client = &http.Client{Transport: m}
	return m
}

// RoundTrip implements [http.RoundTripper].
func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	up := max(0, req.ContentLength)
	resp, err := m.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	m.mu.Lock()
	defer m.mu.Unlock()
	counted := &m.other
	if isSync(req) {
		counted = &m.syncs
	}
	*counted = counted.plus(traffic{1, float64(up), float64(len(body))})
	return resp, nil
}

// isSync tells whether a request is of the client's own sync. A listing of roomkv's is a sync too, whose filter is in the request.
func isSync(req *http.Request) bool {
	path := req.URL.Path
	return strings.HasSuffix(path, "/filter") || strings.HasSuffix(path, "/sync") && !strings.HasPrefix(req.URL.Query().Get("filter"), "{")
}

func (m *meter) read() (syncs, other traffic) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncs, m.other
}

// during is what do takes, without the sync.
func (m *meter) during(do func() error) (traffic, error) {
	_, before := m.read()
	err := do()
	_, after := m.read()
	return after.minus(before), err
}

// fed is how long the handlers of whole responses took that are registered between [fed.before] and [fed.after].
type fed struct {
	began time.Time
	took  time.Duration
	first chan struct{}
	once  sync.Once
}

func (f *fed) before(context.Context, *mautrix.RespSync, string) bool {
	f.began = time.Now()
	return true
}

func (f *fed) after(context.Context, *mautrix.RespSync, string) bool {
	f.once.Do(func() {
		f.took = time.Since(f.began)
		close(f.first)
	})
	return true
}
