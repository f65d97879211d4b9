package faults_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/faults"
)

const whole = `{"next_batch":"s1","rooms":{"join":{"!room":{"timeline":{"events":[{"type":"a","state_key":"","n":1},{"type":"m"},{"type":"a","state_key":"","n":2}]}}}},"to_device":{"events":[]}}`

// echo is a server that counts and keeps what it was sent.
type echo struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
}

func newEcho(t *testing.T) *echo {
	e := &echo{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.bodies = append(e.bodies, string(body))
		n := len(e.bodies)
		e.mu.Unlock()
		_, _ = io.WriteString(w, strings.ReplaceAll(whole, "s1", fmt.Sprint("s", n)))
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *echo) got() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.bodies...)
}

// ask makes one request with the fault, and gives its status, its body and whether the connection failed.
func ask(t *testing.T, e *echo, transport *faults.Transport, method, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, strings.NewReader("content"))
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func always(fault faults.Fault) faults.Decide {
	return func(int, *http.Request) faults.Fault { return fault }
}

func TestKinds(t *testing.T) {
	for _, test := range []struct {
		fault     faults.Fault
		delivered int
		status    int
		body      string // a part of it
		err       error
	}{
		{faults.Fault{}, 1, 200, whole, nil},
		{faults.Fault{Kind: faults.Drop}, 0, 0, "", syscall.ECONNREFUSED},
		{faults.Fault{Kind: faults.Hang, Wait: time.Millisecond}, 0, 0, "", syscall.ECONNRESET},
		{faults.Fault{Kind: faults.Lose}, 1, 0, "", syscall.ECONNRESET},
		{faults.Fault{Kind: faults.Twice}, 2, 200, "next_batch", nil},
		{faults.Fault{Kind: faults.Late, Wait: time.Millisecond}, 1, 504, "<html>", nil},
		{faults.Fault{Kind: faults.Truncated, Part: 0.5}, 1, 200, whole[:len(whole)/2], nil},
		{faults.Fault{Kind: faults.Reset, Part: 0.5}, 1, 200, whole[:len(whole)/2], syscall.ECONNRESET},
		{faults.Fault{Kind: faults.SlowBody, Wait: 20 * time.Millisecond}, 1, 200, whole, nil},
		{faults.Fault{Kind: faults.Slow, Wait: time.Millisecond}, 1, 200, whole, nil},
		{faults.Fault{Kind: faults.Slow, Wait: time.Millisecond, Sent: true}, 1, 200, whole, nil},
		{faults.Fault{Kind: faults.Limited}, 0, 429, "M_LIMIT_EXCEEDED", nil},
		{faults.Fault{Kind: faults.LimitedHeader, Wait: time.Millisecond}, 0, 429, "M_LIMIT_EXCEEDED", nil},
		{faults.Fault{Kind: faults.LimitedBody, Wait: time.Millisecond}, 0, 429, `"retry_after_ms":1`, nil},
		{faults.Fault{Kind: faults.LimitedBoth, Wait: time.Millisecond}, 0, 429, `"retry_after_ms":1`, nil},
		{faults.Fault{Kind: faults.Timeout}, 0, 408, "", nil},
		{faults.Fault{Kind: faults.Internal, Sent: true}, 1, 500, "M_UNKNOWN", nil},
		{faults.Fault{Kind: faults.BadGateway}, 0, 502, "M_UNKNOWN", nil},
		{faults.Fault{Kind: faults.Unavailable}, 0, 503, "", nil},
		{faults.Fault{Kind: faults.GatewayLate, Sent: true}, 1, 504, "<html>", nil},
		{faults.Fault{Kind: faults.Cloudflare, Status: 522}, 0, 522, "<html>", nil},
		{faults.Fault{Kind: faults.HTML, Sent: true}, 1, 200, "<html>", nil},
		{faults.Fault{Kind: faults.HTMLGateway}, 0, 502, "<html>", nil},
		{faults.Fault{Kind: faults.Partitioned, Wait: time.Minute}, 0, 0, "", syscall.ECONNREFUSED},
		{faults.Fault{Kind: faults.Partitioned, Wait: time.Minute, Sent: true}, 1, 0, "", syscall.ECONNRESET},
		{faults.Fault{Kind: faults.Suspended, Wait: time.Millisecond}, 1, 200, whole, nil},
	} {
		t.Run(fmt.Sprintf("%s, sent %t", test.fault.Kind, test.fault.Sent), func(t *testing.T) {
			e := newEcho(t)
			transport := faults.New(nil, always(test.fault), nil)
			transport.Begin()
			status, body, err := ask(t, e, transport, http.MethodPut, "/state")
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
			} else {
				require.NoError(t, err)
			}
			transport.Wait()
			assert.Equal(t, test.status, status)
			assert.Contains(t, body, test.body)
			assert.Len(t, e.got(), test.delivered)
			for _, got := range e.got() {
				assert.Equal(t, "content", got)
			}
			if test.fault.Kind != faults.None {
				assert.Equal(t, 1, transport.Count(test.fault.Kind))
			}
		})
	}
}

func TestSyncKinds(t *testing.T) {
	e := newEcho(t)
	next := faults.None
	transport := faults.New(nil, func(int, *http.Request) faults.Fault { return faults.Fault{Kind: next} }, nil)
	transport.Begin()
	const full = `{"timeline":{"events":[{"type":"a","state_key":"","n":1},{"type":"m"},{"type":"a","state_key":"","n":2}]}}`
	const cut = `{"state":{"events":[{"type":"a","state_key":"","n":2}]},"timeline":{"events":[],"limited":true}}`
	sync := func(kind faults.Kind) string {
		next = kind
		status, body, err := ask(t, e, transport, http.MethodGet, "/sync?since=s&timeout=30000")
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		return body
	}
	for _, test := range []struct {
		kind  faults.Kind
		batch string
		room  string
	}{
		{faults.SyncRepeats, "s1", full}, // there is none before it
		{faults.None, "s2", full},
		{faults.SyncRepeats, "s2", full},
		{faults.None, "s3", full},
		{faults.SyncStale, "s1", full},
		{faults.SyncTwice, "s5", full},
		{faults.SyncLimited, "s6", cut},
	} {
		body := sync(test.kind)
		assert.Contains(t, body, fmt.Sprintf(`"next_batch":"%s"`, test.batch), test.kind)
		assert.Contains(t, body, test.room, test.kind)
		assert.Contains(t, body, "to_device", test.kind)
	}
	assert.Equal(t, 1, transport.Count(faults.SyncRepeats))
}

func TestKilledAsksForIt(t *testing.T) {
	e := newEcho(t)
	killed := make(chan time.Duration, 1)
	transport := faults.New(nil, always(faults.Fault{Kind: faults.Killed, Wait: time.Hour}), func(down time.Duration) { killed <- down })
	transport.Begin()
	_, _, err := ask(t, e, transport, http.MethodPut, "/state")
	require.NoError(t, err)
	assert.Equal(t, time.Hour, <-killed)
	transport = faults.New(nil, always(faults.Fault{Kind: faults.KilledAfter}), func(down time.Duration) { killed <- down })
	transport.Begin()
	_, _, err = ask(t, e, transport, http.MethodPut, "/state")
	require.ErrorIs(t, err, syscall.ECONNRESET)
	assert.Zero(t, <-killed)
	assert.Len(t, e.got(), 2)
}

func TestHealEndsWhatLasts(t *testing.T) {
	for _, fault := range []faults.Fault{{Kind: faults.Hang, Wait: time.Hour}, {Kind: faults.Suspended, Wait: time.Hour}, {Kind: faults.Slow, Wait: time.Hour}} {
		e := newEcho(t)
		transport := faults.New(nil, always(fault), nil)
		transport.Begin()
		time.AfterFunc(10*time.Millisecond, transport.Heal)
		_, _, _ = ask(t, e, transport, http.MethodGet, "/state")
		status, _, err := ask(t, e, transport, http.MethodGet, "/state")
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, 1, transport.Requests())
	}
}

// What a plan does to a request depends on nothing but the seed and the index.
func TestPlanIsTheSameEachTime(t *testing.T) {
	put, err := http.NewRequest(http.MethodPut, "http://x/state", nil)
	require.NoError(t, err)
	sync, err := http.NewRequest(http.MethodGet, "http://x/sync?since=1&timeout=30000", nil)
	require.NoError(t, err)
	plan := faults.Plan{Seed: 7, Kinds: faults.Kinds, Rate: 0.5, Pace: 1}
	seen := map[faults.Kind]bool{}
	for index := range 2000 {
		for _, req := range []*http.Request{put, sync} {
			fault := plan.Decide(index, req)
			assert.Equal(t, fault, plan.Decide(index, req))
			assert.LessOrEqual(t, fault.Wait, time.Minute)
			if fault.Kind.OfSync() {
				assert.True(t, faults.IsSync(req))
			}
			if fault.Kind.OfWrites() {
				assert.True(t, faults.IsWrite(req))
			}
			seen[fault.Kind] = true
		}
	}
	assert.Len(t, seen, len(faults.Kinds)+1)
	another := faults.Plan{Seed: 8, Kinds: faults.Kinds, Rate: 0.5, Pace: 1}
	same := 0
	for index := range 2000 {
		if plan.Decide(index, put) == another.Decide(index, put) {
			same++
		}
	}
	assert.Less(t, same, 1200)
}
