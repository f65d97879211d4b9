package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// A move waits for a write to account data that has read the state beneath that.
func TestMoveWaitsForAccountData(t *testing.T) {
	hstest.Parallel(t)
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails=", fails), func(t *testing.T) { testMoveWaitsForAccountData(t, fails) })
	}
}

func testMoveWaitsForAccountData(t *testing.T, fails bool) {
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.PutAll(ctx, map[string]any{"count": 0, "more": 0}))
		slow := twin(t, p.bot)
		other := open(t, slow, p.room, opts...)
		require.NoError(t, other.Put(ctx, "more", 1))

		reads, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		use, next := through(slow)
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType) {
				once.Do(func() {
					close(reads)
					<-goOn
				})
			}
			return resp, err
		})
		updated := make(chan error)
		go func() { updated <- roomkv.Update(ctx, other, "count", increment) }()
		<-reads
		p.level(t, 50)
		roomkv.PassTime(p.room)
		var first atomic.Bool
		use, mover := through(p.bot)
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := mover.RoundTrip(req)
			count := strings.HasSuffix(req.URL.Path, "/") || strings.HasSuffix(req.URL.Path, "/count")
			if fails && req.Method == http.MethodPut && count && first.CompareAndSwap(false, true) { // and yet the homeserver has it
				return &http.Response{StatusCode: http.StatusInternalServerError, Body: readCloser(`{"errcode":"M_UNKNOWN"}`), Request: req}, nil
			}
			return resp, err
		})
		moved := make(chan error)
		go func() { moved <- store.Put(mautrix.WithMaxRetries(ctx, 0), "more", 2) }()
		time.Sleep(50 * time.Millisecond)
		close(goOn)
		require.NoError(t, <-updated)
		if err := <-moved; fails {
			require.Error(t, err)
			require.NoError(t, store.Put(ctx, "more", 2))
		} else {
			require.NoError(t, err)
		}
		want := map[string]string{"count": "1", "more": "2"}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, opts[1:]...)))
	}, "perkey", "single")
}

func TestAccountDataOverState(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		admin := open(t, p.admin, p.room, layout)
		require.NoError(t, admin.PutAll(ctx, map[string]any{"k": 1, "deleted": 1, "put": 1}))
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "k", 2))
		require.NoError(t, store.Delete(ctx, "deleted", "never"))
		assert.Equal(t, map[string]string{"k": "2", "put": "1"}, memoryOf(t, store))
		require.ErrorIs(t, store.Get(ctx, "deleted", new(int)), roomkv.ErrNotFound)
		require.NoError(t, store.Create(ctx, "deleted", 2), "it is not there")
		require.NoError(t, store.Delete(ctx, "deleted"))
		assert.Equal(t, map[string]string{"k": "1", "deleted": "1", "put": "1"}, memoryOf(t, admin), "nobody else sees it")

		require.NoError(t, admin.Put(ctx, "k", 3))
		assert.Equal(t, map[string]string{"k": "3", "put": "1"}, memoryOf(t, store), "the later change counts")
		require.NoError(t, roomkv.Update(ctx, store, "k", increment))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "other", 1))
		want := map[string]string{"k": "4", "put": "1", "other": "1"}
		assert.Equal(t, want, memoryOf(t, admin))
		assert.Equal(t, want, memoryOf(t, store))
	})
}

// A move that is cut off after the state was written is not made again, whatever others have written since.
func TestCutOffMoveIsNotMadeTwice(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		admin := open(t, p.admin, p.room, opts[1:]...)
		require.NoError(t, admin.PutAll(ctx, map[string]any{"old": 1, "back": 1}))
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.PutAll(ctx, map[string]any{"new": 1, "old": 2}))
		require.NoError(t, store.Delete(ctx, "back"))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		use, next := through(p.bot)
		use(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/account_data/") {
				return nil, errors.New("the process is killed")
			}
			return next.RoundTrip(req)
		})
		require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "other", 1))
		use(next.RoundTrip)
		require.NotEmpty(t, p.data(t, opts...))
		want := map[string]string{"old": "2", "new": "1"}
		assert.Equal(t, want, memoryOf(t, store), "it is in the state")
		require.NoError(t, admin.PutAll(ctx, map[string]any{"new": 3, "old": 3, "back": 3}))
		want = map[string]string{"new": "3", "old": "3", "back": "3"}
		for range 2 {
			roomkv.ForgetAccounts(p.room)
			store = open(t, p.bot, p.room, opts...)
			assert.Equal(t, want, memoryOf(t, store))
			require.NoError(t, store.Put(ctx, "other", 2))
			want["other"] = "2"
			assert.Equal(t, want, memoryOf(t, store))
		}
		assert.Empty(t, p.data(t, opts...))
	}, "perkey", "single") // the admin has no crypto
}

// What fails on the way is made up for by the next write.
func TestMoveThatFails(t *testing.T) {
	hstest.Parallel(t)
	for _, layout := range []string{"single", "perkey"} {
		t.Run(layout, func(t *testing.T) {
			ctx := t.Context()
			p := newPowerless(t, false)
			store := open(t, p.bot, p.room, layouts[layout], roomkv.WithAccountDataFallback())
			require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3}))
			p.level(t, 50)
			roomkv.PassTime(p.room)
			var puts atomic.Int64
			fails := func(when int64, path string) {
				puts.Store(0)
				inner := http.DefaultTransport
				client := *p.bot.Client
				client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPut && strings.Contains(req.URL.Path, path) {
						if puts.Add(1) == when {
							return &http.Response{StatusCode: http.StatusInternalServerError, Body: readCloser(`{"errcode":"M_UNKNOWN"}`), Request: req}, nil
						}
					}
					return inner.RoundTrip(req)
				})
				p.bot.Client = &client
			}
			fails(map[string]int64{"single": 1, "perkey": 2}[layout], "/state/")
			require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "d", 4))
			want := map[string]string{"a": "1", "b": "2", "c": "3"}
			assert.Equal(t, want, memoryOf(t, store))
			fails(1, "/account_data/")
			require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "d", 4))
			assert.Equal(t, want, memoryOf(t, store))
			require.NoError(t, store.Put(ctx, "d", 5))
			assert.Empty(t, p.data(t, layouts[layout]))
			want["d"] = "5"
			assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, layouts[layout])))
		})
	}
}

func TestFollowerMovesWithoutAWrite(t *testing.T) {
	hstest.Parallel(t)
	p := newPowerless(t, false)
	store, _ := follow(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	require.NoError(t, store.Put(t.Context(), "k", 1))
	p.level(t, 50)
	other := open(t, p.admin, p.room)
	eventually(t, func() bool { return other.Get(t.Context(), "k", new(int)) == nil }, "moved")
	eventually(t, func() bool { return places(t, store)["k"] == "state" }, "where it stays")
}

// A panic in the function of an Update ends nothing but that Update.
func TestPanicBesideAccountData(t *testing.T) {
	hstest.Parallel(t)
	for name, perKey := range map[string]bool{"single": false, "per key": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			p := newPowerless(t, false)
			p.level(t, 50)
			opts := []roomkv.Option{roomkv.WithAccountDataFallback()}
			if perKey {
				opts = append(opts, roomkv.WithPerKeyState())
			}
			store := open(t, p.bot, p.room, opts...)
			require.NoError(t, store.Put(ctx, "key", 1))
			assert.Panics(t, func() {
				_ = roomkv.Update(ctx, store, "key", func(int, bool) (int, error) { panic("in a handler") })
			})
			p.level(t, 0)
			require.NoError(t, store.Put(ctx, "key", 2))
			got, err := roomkv.Get[int](ctx, store, "key")
			require.NoError(t, err)
			assert.Equal(t, 2, got)
		})
	}
}

// What the user has written to account data after the power went counts more than what the user had sent to the state before, also where the
// homeserver leaves that out of the state in between.
func TestAccountDataOverWhatWasLeftOut(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	p.level(t, 50)
	store := open(t, p.bot, p.room, roomkv.WithAccountDataFallback(), roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "a", 1))
	require.NoError(t, roomkv.Update(ctx, store, "a", func(n int, _ bool) (int, error) { return n + 1, nil }))
	p.level(t, 0)
	var back atomic.Bool
	use, next := through(p.bot)
	use(func(req *http.Request) (*http.Response, error) {
		isState := strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType)
		if isState && req.Method == http.MethodGet && !back.Load() {
			return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode":"M_NOT_FOUND","error":"it is not in the state"}`))}, nil
		}
		resp, err := next.RoundTrip(req)
		if err == nil && isState && req.Method == http.MethodPut && resp.StatusCode == http.StatusOK {
			back.Store(true)
		}
		return resp, err
	})
	require.NoError(t, store.Put(ctx, "a", 100))
	require.NoError(t, store.Put(ctx, "a", 101))
	got, err := roomkv.Get[int](ctx, store, "a")
	require.NoError(t, err)
	assert.Equal(t, 101, got)
	p.level(t, 50)
	roomkv.PassTime(p.room, store)
	require.NoError(t, store.Put(ctx, "b", 1))
	got, err = roomkv.Get[int](ctx, store, "a")
	require.NoError(t, err)
	assert.Equal(t, 101, got)
}
