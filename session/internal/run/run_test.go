package run_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/session/internal/inbox"
	"github.com/roomkv/roomkv/session/internal/rooms"
	"github.com/roomkv/roomkv/session/internal/run"
)

var (
	errSignedOut  = errors.New("signed out")
	errHomeserver = errors.New("homeserver")
)

type files struct {
	mu sync.Mutex
	is map[string][]byte
}

func (f *files) Read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text, ok := f.is[name]; ok {
		return text, nil
	}
	return nil, fs.ErrNotExist
}

func (f *files) Write(name string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.is[name] = data
	return nil
}

// runner is one with a user's client, that is not running yet.
func runner(t *testing.T, client *mautrix.Client, log io.Writer) *run.Runner {
	t.Helper()
	in := inbox.New(inbox.Config{Self: client.UserID, Storage: &files{is: map[string][]byte{}}, Log: zerolog.New(log)})
	client.Syncer.(*mautrix.DefaultSyncer).OnEvent(in.Take)
	return &run.Runner{
		Client: client, Inbox: in, Rooms: &rooms.Rooms{Client: client, Tasks: in, Log: zerolog.New(log)},
		Presence: event.PresenceOnline, Timeout: time.Minute, Errors: run.Errors{SignedOut: errSignedOut, Homeserver: errHomeserver}, Log: zerolog.New(log),
	}
}

// start runs it until the test ends. The channel has what Run has returned.
func start(t *testing.T, r *run.Runner) (end context.CancelFunc, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	result, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		result <- r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-over
	})
	return cancel, result
}

func virtual(t *testing.T, test func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Name: fakehstest.Name()})
		test(t, server, fakehstest.Client(t, server), fakehstest.Client(t, server))
	})
}

func together(t *testing.T, one, two *mautrix.Client) id.RoomID {
	t.Helper()
	room, err := one.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat", PowerLevelOverride: &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{one.UserID: 100, two.UserID: 50},
	}})
	require.NoError(t, err)
	_, err = two.JoinRoomByID(t.Context(), room.RoomID)
	require.NoError(t, err)
	return room.RoomID
}

func answer(req *http.Request, status int, body string, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
	for n := 0; n+1 < len(header); n += 2 {
		resp.Header.Set(header[n], header[n+1])
	}
	return resp
}

// syncs counts requests of the sync, and has them answered by f where that gives an answer or an error.
type syncs struct {
	mu    sync.Mutex
	times []time.Time
	f     func(req *http.Request) (*http.Response, error)
}

func (s *syncs) stand(server *fakehs.Server) {
	server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/sync") {
			return next(req)
		}
		s.mu.Lock()
		s.times = append(s.times, time.Now())
		f := s.f
		s.mu.Unlock()
		if f != nil {
			if resp, err := f(req); resp != nil || err != nil {
				return resp, err
			}
		}
		return next(req)
	})
}

func (s *syncs) set(f func(req *http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f = f
}

func (s *syncs) since(at time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.times {
		if other.After(at) {
			n++
		}
	}
	return n
}

func TestGoesOnAfterFailures(t *testing.T) {
	for name, f := range map[string]func(req *http.Request) (*http.Response, error){
		"no network": func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") },
		"502 of a proxy": func(req *http.Request) (*http.Response, error) {
			return answer(req, 502, "<html>secret</html>"), nil
		},
		"500": func(req *http.Request) (*http.Response, error) {
			return answer(req, 500, `{"errcode":"M_UNKNOWN","error":"secret"}`), nil
		},
		"403 of a proxy": func(req *http.Request) (*http.Response, error) { return answer(req, 403, "<html>"), nil },
		"404": func(req *http.Request) (*http.Response, error) {
			return answer(req, 404, `{"errcode":"M_UNRECOGNIZED"}`), nil
		},
		"half an answer": func(req *http.Request) (*http.Response, error) { return answer(req, 200, `{"next_ba`), nil },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
				room := together(t, other, self)
				var log bytes.Buffer
				r := runner(t, self, &log)
				heard := make(chan string, 10)
				r.Inbox.On(event.EventMessage, func(_ context.Context, evt *event.Event) { heard <- evt.Content.AsMessage().Body })
				var seen syncs
				seen.stand(server)
				end, ended := start(t, r)
				time.Sleep(time.Second)
				lost := time.Now()
				seen.set(f)
				time.Sleep(10 * time.Minute)
				assert.Less(t, seen.since(lost), 25, "it waits longer each time")
				assert.Greater(t, seen.since(lost), 8, "it does not wait for more than a minute and a quarter")
				seen.set(nil)
				_, err := other.SendText(t.Context(), room, "after")
				require.NoError(t, err)
				time.Sleep(90 * time.Second)
				assert.Equal(t, "after", <-heard)
				end()
				assert.NoError(t, <-ended)
				assert.NotContains(t, log.String(), "secret")
			})
		})
	}
}

func TestRateLimit(t *testing.T) {
	for name, limit := range map[string]func(req *http.Request) *http.Response{
		"header": func(req *http.Request) *http.Response {
			return answer(req, 429, `{"errcode":"M_LIMIT_EXCEEDED"}`, "Retry-After", "300")
		},
		"body": func(req *http.Request) *http.Response {
			return answer(req, 429, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":300000}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
				var seen syncs
				seen.stand(server)
				seen.set(func(req *http.Request) (*http.Response, error) { return limit(req), nil })
				start(t, runner(t, self, io.Discard))
				time.Sleep(299 * time.Second)
				assert.Equal(t, 1, seen.since(time.Time{}))
				time.Sleep(2 * time.Second)
				assert.Equal(t, 2, seen.since(time.Time{}))
			})
		})
	}
}

func TestEndsForWhatAPersonMustMend(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"signed out":  {401, `{"errcode":"M_UNKNOWN_TOKEN","error":"secret"}`, errSignedOut},
		"deactivated": {403, `{"errcode":"M_USER_DEACTIVATED"}`, errSignedOut},
		"forbidden":   {403, `{"errcode":"M_CONSENT_NOT_GIVEN"}`, errHomeserver},
		"other token": {400, `{"errcode":"M_UNKNOWN","error":"Invalid stream token secret"}`, errHomeserver},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
				room := together(t, other, self)
				r := runner(t, self, io.Discard)
				r.Inbox.On(event.EventMessage, func(ctx context.Context, evt *event.Event) { <-ctx.Done() })
				r.Close = func(ctx context.Context) error {
					<-ctx.Done()
					return nil
				}
				var seen syncs
				seen.stand(server)
				_, ended := start(t, r)
				time.Sleep(time.Second)
				_, err := other.SendText(t.Context(), room, "a handler hangs")
				require.NoError(t, err)
				time.Sleep(time.Second)
				seen.set(func(req *http.Request) (*http.Response, error) { return answer(req, test.status, test.body), nil })
				_, err = other.SendText(t.Context(), room, "the sync goes on")
				require.NoError(t, err)
				before := time.Now()
				err = <-ended
				require.ErrorIs(t, err, test.want)
				assert.NotContains(t, err.Error(), "secret")
				assert.LessOrEqual(t, time.Since(before), 5*time.Second)
			})
		})
	}
}

// A handler's Put waits for the sync, which must not wait for the handler.
func TestHandlerWrites(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room := together(t, other, self)
		store, err := roomkv.New(self, room.String())
		require.NoError(t, err)
		require.NoError(t, store.Follow())
		r := runner(t, self, io.Discard)
		took := make(chan time.Duration, 10)
		r.Inbox.On(event.EventMessage, store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
			before := time.Now()
			assert.NoError(t, room.Put(ctx, "key", evt.ID))
			took <- time.Since(before)
		}))
		end, ended := start(t, r)
		time.Sleep(time.Second)
		for n := range 3 {
			_, err := other.SendText(t.Context(), room, fmt.Sprint(n))
			require.NoError(t, err)
		}
		for range 3 {
			assert.Less(t, <-took, 300*time.Millisecond)
		}
		end()
		assert.NoError(t, <-ended)
	})
}

func TestPanicInTheSyncer(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room := together(t, other, self)
		var log bytes.Buffer
		r := runner(t, self, &log)
		self.Syncer.(*mautrix.DefaultSyncer).OnEventType(event.EventMessage, func(context.Context, *event.Event) { panic("secret\ngoroutine secret") })
		heard := make(chan string, 10)
		r.Inbox.On(event.EventMessage, func(_ context.Context, evt *event.Event) { heard <- evt.Content.AsMessage().Body })
		end, ended := start(t, r)
		time.Sleep(time.Second)
		for n := range 2 {
			_, err := other.SendText(t.Context(), room, fmt.Sprint(n))
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(n), <-heard)
		}
		end()
		assert.NoError(t, <-ended)
		assert.NotContains(t, log.String(), "secret")
		assert.Contains(t, log.String(), "run_test.go")
	})
}

func TestPresence(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		r := runner(t, self, io.Discard)
		r.Presence = event.PresenceUnavailable
		asked := make(chan string, 100)
		server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			asked <- req.URL.Query().Get("set_presence")
			return next(req)
		})
		start(t, r)
		assert.Equal(t, "unavailable", <-asked)
	})
}

// The process gets SIGTERM, in real time.
func TestSignal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it cannot send signals")
	}
	server := fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Name: fakehstest.Name()})
	self, other := fakehstest.Client(t, server), fakehstest.Client(t, server)
	room := together(t, other, self)
	store, err := roomkv.New(self, room.String(), roomkv.WithFlushEvery(time.Hour))
	require.NoError(t, err)
	require.NoError(t, store.Follow())
	r := runner(t, self, io.Discard)
	r.Signals, r.Close = run.Signals, store.Close
	began := make(chan struct{}, 1)
	r.Inbox.On(event.EventMessage, func(ctx context.Context, evt *event.Event) {
		began <- struct{}{}
		time.Sleep(200 * time.Millisecond)
		assert.NoError(t, store.Put(ctx, "key", "value"))
	})
	_, ended := start(t, r)
	time.Sleep(200 * time.Millisecond)
	_, err = other.SendText(t.Context(), room, "put")
	require.NoError(t, err)
	<-began
	process, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended)
	reader, err := roomkv.New(other, room.String())
	require.NoError(t, err)
	value, err := roomkv.Get[string](t.Context(), reader, "key")
	require.NoError(t, err)
	assert.Equal(t, "value", value)
}

func TestWhatWasNotSentIsAnError(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		r := runner(t, self, io.Discard)
		r.Close = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		end, ended := start(t, r)
		time.Sleep(time.Second)
		end()
		before := time.Now()
		assert.ErrorIs(t, <-ended, context.DeadlineExceeded)
		assert.Less(t, time.Since(before), 10*time.Second)
	})
}

// Somebody else has found out that the client is signed out, while the sync waits.
func TestEndsForACause(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- runner(t, self, io.Discard).Run(ctx) }()
		time.Sleep(time.Second)
		cancel(fmt.Errorf("because: %w", errSignedOut))
		require.ErrorIs(t, <-ended, errSignedOut)
	})
}
