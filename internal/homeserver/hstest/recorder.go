package hstest

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"slices"
	"sync"

	"maunium.net/go/mautrix"
)

// Request is one request as it crossed the wire, with its response.
type Request struct {
	Method   string
	Path     string // escaped, without the query
	Query    string
	Body     []byte
	Status   int // 0 where no response came
	Response []byte
}

// Recorder is a transport that counts and keeps every request of a client. Its methods are safe for
// concurrent use.
type Recorder struct {
	next http.RoundTripper

	mu       sync.Mutex
	requests []Request
}

// Record puts a Recorder under client.
func Record(client *mautrix.Client) *Recorder {
	recorder := &Recorder{next: cmp.Or(client.Client.Transport, http.DefaultTransport)}
	recorded := *client.Client
	recorded.Transport = recorder
	client.Client = &recorded
	return recorder
}

// RoundTrip implements [http.RoundTripper].
func (r *Recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	record := Request{Method: req.Method, Path: req.URL.EscapedPath(), Query: req.URL.RawQuery}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		_ = req.Body.Close()
		record.Body = body
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, record)
	}()
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	record.Status = resp.StatusCode
	if record.Response, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(record.Response))
	return resp, nil
}

// Count is the number of requests since the last Reset.
func (r *Recorder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

// Requests are those since the last Reset, in the order in which their responses came.
func (r *Recorder) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Reset forgets every request.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}
