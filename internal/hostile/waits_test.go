package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
)

// saying is a homeserver's answer.
func saying(req *http.Request, status int, header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Request: req, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

// broken is a body that ends too early.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// asking is a homeserver, or what stands before it.
type asking = func(*http.Request) (*http.Response, error)

// fault is what a homeserver does in place of its work.
type fault func(req *http.Request, homeserver asking) (*http.Response, error)

func says(status int, header http.Header, body string) fault {
	return func(req *http.Request, _ asking) (*http.Response, error) {
		return saying(req, status, header, body), nil
	}
}

func retryAfter(text string) http.Header { return http.Header{"Retry-After": {text}} }

// inNineSeconds names a moment, in whole seconds.
func inNineSeconds(req *http.Request, _ asking) (*http.Response, error) {
	return saying(req, 429, retryAfter(time.Now().Add(9*time.Second).UTC().Format(http.TimeFormat)), `{}`), nil
}

func resets(*http.Request, asking) (*http.Response, error) {
	return nil, errors.New("connection reset by the test")
}

// breaksOff does its work, and its answer ends in the middle of its body.
func breaksOff(req *http.Request, homeserver asking) (*http.Response, error) {
	resp, err := homeserver(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.ContentLength = int64(len(body))
	resp.Body = io.NopCloser(broken{bytes.NewReader(body[:len(body)/2])})
	return resp, err
}

// refusesHalf refuses, and breaks off.
func refusesHalf(req *http.Request, _ asking) (*http.Response, error) {
	resp := saying(req, 403, nil, `{"errcode":"M_FORB`)
	resp.Body = io.NopCloser(broken{resp.Body})
	return resp, nil
}

// passing are faults that pass, and how long it is waited after the first of them.
var passing = map[string]struct {
	fault fault
	wait  time.Duration
}{
	"500 ms, in the body":    {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","error":"","retry_after_ms":500}`), 500 * time.Millisecond},
	"35 s, in the body":      {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","error":"","retry_after_ms":35000}`), 35 * time.Second},
	"35 s, in the header":    {says(429, retryAfter("35"), `{"errcode":"M_LIMIT_EXCEEDED","error":"","retry_after_ms":7}`), 35 * time.Second},
	"a date in the header":   {inNineSeconds, 8 * time.Second},
	"a header that is wrong": {says(429, retryAfter("soon"), `{}`), 4 * time.Second},
	"a time below zero":      {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":-7}`), 4 * time.Second},
	"a time without end":     {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1e300}`), 10 * time.Minute},
	"a time that is a text":  {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":"7"}`), 4 * time.Second},
	"no time":                {says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED"}`), 4 * time.Second},
	"408":                    {says(408, nil, ``), 4 * time.Second},
	"500":                    {says(500, nil, `{"errcode":"M_UNKNOWN","error":"internal"}`), 4 * time.Second},
	"502":                    {says(502, nil, `<html>`), 4 * time.Second},
	"503 and when":           {says(503, retryAfter("2"), `<html>`), 2 * time.Second},
	"504":                    {says(504, nil, ``), 4 * time.Second},
	"520":                    {says(520, nil, ``), 4 * time.Second},
	"525":                    {says(525, nil, ``), 4 * time.Second},
	"530":                    {says(530, nil, ``), 4 * time.Second},
	"no answer":              {resets, 4 * time.Second},
	"half an answer":         {breaksOff, 4 * time.Second},
	"half a refusal":         {refusesHalf, 4 * time.Second},
}

// Each request of each operation is made again where that can help, after as long as the homeserver asks, and what was asked for is done.
func TestPassingFaultsAreWaitedOut(t *testing.T) {
	eachOperation(t, func(t *testing.T, _ string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) {
		for name, pass := range passing {
			h, store := memory().open(t)
			var failed sync.Map
			h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
				at := req.Method + req.URL.Path
				if strings.Contains(at, "/send/") || strings.Contains(at, "/sendToDevice/") || strings.Contains(at, "/redact/") { // each attempt is another transaction
					at = at[:strings.LastIndex(at, "/")]
				}
				if _, already := failed.LoadOrStore(at, true); already {
					return homeserver(req)
				}
				return pass.fault(req, homeserver)
			}
			began := time.Now()
			require.NoError(t, do(t.Context(), store), name)
			assert.GreaterOrEqual(t, time.Since(began), pass.wait, name)
		}
	})
}

// A request is made as often as it is said, and no oftener.
func TestFaultsThatStay(t *testing.T) {
	for name, stay := range passing {
		for retries, often := range map[int]int{-1: 4, 0: 1, 2: 3} {
			synctest.Test(t, func(t *testing.T) {
				h, store := memories["perkey"]().open(t)
				asked := 0
				h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
					asked++
					return stay.fault(req, homeserver)
				}
				err := store.Get(mautrix.WithMaxRetries(t.Context(), retries), "there", new(int))
				require.Error(t, err, name)
				assert.Equal(t, often, asked, "%s, %d", name, retries)
				assert.NotContains(t, err.Error(), "html")
				assert.NotErrorIs(t, err, roomkv.ErrNotFound)
			})
		}
	}
}

// Another attempt would be in vain.
func TestRefusalsAreFinal(t *testing.T) {
	for _, status := range []int{304, 400, 401, 403, 404, 405, 413, 418, 501, 505, 531} {
		synctest.Test(t, func(t *testing.T) {
			h, store := memories["perkey"]().open(t)
			began, asked := time.Now(), 0
			h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "/there") {
					asked++
					return saying(req, status, http.Header{"Location": {req.URL.String()}}, `{"errcode":"M_UNKNOWN","error":"no"}`), nil
				}
				return homeserver(req)
			}
			require.Error(t, store.Get(t.Context(), "there", new(int)), status)
			assert.Equal(t, 1, asked, status)
			assert.Zero(t, time.Since(began), status)
		})
	}
}

// Whose time runs out during a wait is told what was waited for, whoever made the request.
func TestDeadlineInAWait(t *testing.T) {
	eachOperation(t, func(t *testing.T, _ string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) {
		h, store := memory().open(t)
		h.between = says(429, nil, `{"errcode":"M_LIMIT_EXCEEDED","error":"secret","retry_after_ms":35000}`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := do(ctx, store)
		assert.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, mautrix.MLimitExceeded)
		assert.ErrorContains(t, err, "the homeserver asked to wait 35s (M_LIMIT_EXCEEDED (HTTP 429))")
		assert.NotContains(t, err.Error(), "secret")
	})
}

// The client's own settings count.
func TestTheClientSaysHowOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHomeserver(false)
		client := h.client(t)
		client.DefaultHTTPRetries, client.DefaultHTTPBackoff, client.MaxHTTPBackoff = 4, time.Second, 3*time.Second
		status, asked := 503, 0
		h.between = func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
			asked++
			return saying(req, status, nil, ""), nil
		}
		began := time.Now()
		require.Error(t, open(t, client).Get(t.Context(), "key", new(int)))
		assert.Equal(t, 5, asked)
		assert.Equal(t, 9*time.Second, time.Since(began))

		status, asked, client.IgnoreRateLimit = 429, 0, true
		require.Error(t, open(t, client).Get(t.Context(), "key", new(int)))
		assert.Equal(t, 1, asked)
	})
}
