package roomkv

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/commit"
)

// Nor does a store that nobody uses.
func TestStoresAreCollected(t *testing.T) {
	collected := make(chan bool)
	func() {
		client, err := mautrix.NewClient("http://localhost", "", "")
		require.NoError(t, err)
		store, err := New(client, "!room:example.org")
		require.NoError(t, err)
		store.core.Room("!room:example.org").Dict("").View()
		runtime.AddCleanup(store.core, func(bool) { close(collected) }, true)
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		select {
		case <-collected:
			return
		default:
			require.True(t, time.Now().Before(deadline))
		}
	}
}

// stateServer is a homeserver in memory that has nothing but state.
type stateServer struct {
	mu    sync.Mutex
	state map[string]json.RawMessage // by path
	ids   map[string]string          // of the current events, by path
	sent  int
}

func (s *stateServer) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(status int, content any) (*http.Response, error) {
		text, err := json.Marshal(content)
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req, Body: io.NopCloser(strings.NewReader(string(text)))}, err
	}
	_, path, found := strings.Cut(req.URL.Path, "/state/")
	if !found {
		return answer(404, map[string]string{"errcode": "M_NOT_FOUND"})
	}
	eventType, stateKey, _ := strings.Cut(path, "/")
	if req.Method == http.MethodPut {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.sent++
		s.state[path], s.ids[path] = body, fmt.Sprint("$", s.sent)
		return answer(200, map[string]string{"event_id": s.ids[path]})
	}
	content, ok := s.state[path]
	if !ok {
		return answer(404, map[string]string{"errcode": "M_NOT_FOUND"})
	}
	return answer(200, map[string]any{"event_id": s.ids[path], "type": eventType, "state_key": stateKey, "sender": "@bot:example.org", "content": content})
}

// While a write of one key is on its way, so many other keys are written that the store forgets some. Another write of the first waits
// for it all the same.
func TestManyKeysBesideABusyOne(t *testing.T) {
	client, err := mautrix.NewClient("https://example.org", "@bot:example.org", "token")
	require.NoError(t, err)
	server := &stateServer{state: map[string]json.RawMessage{}, ids: map[string]string{}}
	client.Client = &http.Client{Transport: server}
	store, err := New(client, "!room:example.org", WithSingleWriter(), WithPerKeyState(), WithEncryption(false))
	require.NoError(t, err)
	increment := func(before func()) error {
		return Update(t.Context(), store, "count", func(n int, _ bool) (int, error) {
			before()
			return n + 1, nil
		})
	}
	busy, free := make(chan bool), make(chan bool)
	var group sync.WaitGroup
	group.Go(func() { assert.NoError(t, increment(sync.OnceFunc(func() { close(busy); <-free }))) })
	<-busy
	for n := range commit.MaxReplicas + 1 {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint(n), n))
	}
	runtime.GC()
	second := make(chan error, 1)
	go func() { second <- increment(func() {}) }()
	select {
	case <-second:
		t.Error("the second did not wait for the first")
	case <-time.After(100 * time.Millisecond):
		defer func() { assert.NoError(t, <-second) }()
	}
	close(free)
	group.Wait()
	require.Eventually(t, func() bool {
		n, err := Get[int](t.Context(), store, "count")
		return err == nil && n == 2
	}, 10*time.Second, 10*time.Millisecond, "both were acknowledged")
}
