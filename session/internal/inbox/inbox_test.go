package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/session/internal/inbox"
)

// files is a folder in memory.
type files struct {
	mu      sync.Mutex
	is      map[string][]byte
	broken  bool
	written func(data []byte) // called before a file changes, where it is not nil
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
	if f.broken {
		return errors.New("the disk is full")
	}
	if f.written != nil {
		f.written(data)
	}
	if f.is == nil {
		f.is = map[string][]byte{}
	}
	f.is[name] = data
	return nil
}

func (f *files) breaks(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

// told is what handlers were told.
type told struct {
	mu    sync.Mutex
	texts []string // bodies, in the order in which their handlers have returned
}

func (t *told) add(evt *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.texts = append(t.texts, evt.Content.AsMessage().Body)
}

func (t *told) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.texts)
}

// bot is a client that syncs into an inbox.
type bot struct {
	*inbox.Inbox
	client *mautrix.Client
	stop   func() error
	kill   func() // without saving anything more
}

// process is a further process of the client's device.
func process(server *fakehs.Server, client *mautrix.Client) *mautrix.Client {
	other, err := mautrix.NewClient(server.URL(), client.UserID, client.AccessToken)
	if err != nil {
		panic(err)
	}
	other.DeviceID, other.Client = client.DeviceID, &http.Client{Transport: server}
	return other
}

// start starts a bot whose handler of messages is handle. Timelines are of up to five events.
func start(t *testing.T, client *mautrix.Client, storage *files, handle mautrix.EventHandler, change ...func(*inbox.Config)) *bot {
	t.Helper()
	config := inbox.Config{
		Self: client.UserID, Storage: storage, Log: zerolog.Nop(),
		Page: func(ctx context.Context, room id.RoomID, from, to string, dir mautrix.Direction, limit int) (*mautrix.RespMessages, error) {
			return client.Messages(ctx, room, from, to, dir, nil, min(limit, 3))
		},
	}
	if client.Crypto != nil {
		config.Decrypt = client.Crypto.Decrypt
	}
	for _, do := range change {
		do(&config)
	}
	in := inbox.New(config)
	in.On(event.EventMessage, handle)
	client.Syncer.(*mautrix.DefaultSyncer).OnEvent(in.Take)
	require.NoError(t, in.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for since, hold := in.Since(), 0; ctx.Err() == nil; hold = 30_000 {
			resp, err := client.FullSyncRequest(ctx, mautrix.ReqSync{Since: since, Timeout: hold, FilterID: `{"room":{"timeline":{"limit":5}}}`})
			if err != nil {
				continue
			}
			if in.Begin(ctx, resp) == nil {
				_ = client.Syncer.ProcessResponse(ctx, resp, since)
				in.End(resp, since)
			}
			since = resp.NextBatch
		}
	}()
	b := &bot{Inbox: in, client: client}
	b.stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		stopping, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 4*time.Second)
		defer cancel()
		return in.Stop(stopping)
	})
	b.kill = func() {
		storage.breaks(true)
		_ = b.stop()
		storage.breaks(false)
	}
	t.Cleanup(func() { _ = b.stop() })
	return b
}

// say sends a message.
func say(t *testing.T, client *mautrix.Client, room id.RoomID, text string) id.EventID {
	t.Helper()
	sent, err := client.SendText(t.Context(), room, text)
	require.NoError(t, err)
	return sent.EventID
}

// together is a room of two users.
func together(t *testing.T, one, two *mautrix.Client) id.RoomID {
	t.Helper()
	room, err := one.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat", Invite: []id.UserID{two.UserID}})
	require.NoError(t, err)
	_, err = two.JoinRoomByID(t.Context(), room.RoomID)
	require.NoError(t, err)
	return room.RoomID
}

// each runs a test on both kinds of homeservers, in virtual time.
func each(t *testing.T, test func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client)) {
	t.Helper()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := fakehstest.New(t, fakehs.Options{Mode: mode, Name: fakehstest.Name()})
				test(t, server, fakehstest.Client(t, server), fakehstest.Client(t, server))
			})
		})
	}
}

func numbered(from, to int) (texts []string) {
	for n := from; n < to; n++ {
		texts = append(texts, fmt.Sprint(n))
	}
	return texts
}

func TestRoomsGoOnBesideEachOther(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		slow, quick := together(t, other, self), together(t, other, self)
		var inSlow, inQuick told
		start(t, self, &files{}, func(ctx context.Context, evt *event.Event) {
			if evt.RoomID == slow {
				time.Sleep(time.Hour)
				inSlow.add(evt)
			} else {
				time.Sleep(time.Second)
				inQuick.add(evt)
			}
		})
		time.Sleep(time.Second)
		for n := range 4 {
			say(t, other, slow, fmt.Sprint(n))
			say(t, other, quick, fmt.Sprint(n))
		}
		time.Sleep(time.Minute)
		assert.Equal(t, numbered(0, 4), inQuick.all())
		say(t, other, slow, "4")
		say(t, other, quick, "4")
		time.Sleep(2 * time.Second)
		assert.Equal(t, numbered(0, 5), inQuick.all(), "the sync has gone on")
		assert.Empty(t, inSlow.all())
		time.Sleep(time.Hour)
		assert.Equal(t, numbered(0, 1), inSlow.all(), "one after the other")
		time.Sleep(5 * time.Hour)
		assert.Equal(t, numbered(0, 5), inSlow.all())
	})
}

func TestOwnAndOldEvents(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room := together(t, other, self)
		say(t, other, room, "before the first start")
		time.Sleep(time.Second)
		var usual, all told
		start(t, self, &files{}, func(_ context.Context, evt *event.Event) { usual.add(evt) })
		second := process(server, self)
		start(t, second, &files{}, func(_ context.Context, evt *event.Event) { all.add(evt) }, func(c *inbox.Config) { c.OldEvents, c.OwnEvents = true, true })
		time.Sleep(time.Second)
		say(t, self, room, "own")
		say(t, other, room, "new")
		later, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})
		require.NoError(t, err)
		say(t, other, later.RoomID, "before the user has joined")
		time.Sleep(time.Second)
		_, err = self.JoinRoomByID(t.Context(), later.RoomID)
		require.NoError(t, err)
		say(t, other, later.RoomID, "after the user has joined")
		time.Sleep(time.Second)
		assert.ElementsMatch(t, []string{"new", "after the user has joined"}, usual.all())
		assert.ElementsMatch(t, []string{"before the first start", "own", "new", "before the user has joined", "after the user has joined"}, all.all())
	})
}

func TestWhatTheSyncLeavesOutIsTold(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room, storage := together(t, other, self), &files{}
		for n := range 5 {
			say(t, other, room, fmt.Sprint("old ", n))
		}
		time.Sleep(time.Second)
		first := start(t, self, storage, func(_ context.Context, evt *event.Event) { t.Error("told of an old event") })
		time.Sleep(time.Second)
		require.NoError(t, first.stop())
		for n := range 30 {
			say(t, other, room, fmt.Sprint(n))
			time.Sleep(time.Second)
		}
		var asked atomic.Int32
		server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/messages") && asked.Add(1) < 4 {
				return nil, errors.New("the network is gone")
			}
			return next(req)
		})
		var heard told
		start(t, process(server, self), storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(5 * time.Second)
		say(t, other, room, "30")
		time.Sleep(5 * time.Minute)
		assert.Equal(t, numbered(0, 31), heard.all())
	})
}

func TestWhatComesAfterAJoinIsTold(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		storage := &files{}
		first := start(t, self, storage, func(context.Context, *event.Event) {})
		time.Sleep(time.Second)
		require.NoError(t, first.stop())
		room, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})
		require.NoError(t, err)
		say(t, other, room.RoomID, "before")
		_, err = self.JoinRoomByID(t.Context(), room.RoomID)
		require.NoError(t, err)
		for n := range 10 {
			say(t, other, room.RoomID, fmt.Sprint(n))
			time.Sleep(time.Second)
		}
		var heard told
		start(t, process(server, self), storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Minute)
		assert.Equal(t, numbered(0, 10), heard.all())
	})
}

func TestPanic(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room, storage := together(t, other, self), &files{}
		var heard told
		var log lockedLog
		first := start(t, self, storage, func(_ context.Context, evt *event.Event) {
			heard.add(evt)
			switch body := evt.Content.AsMessage().Body; body {
			case "0":
				panic("secret " + body)
			case "1":
				var none []string
				_ = none[len(body)]
			}
		}, func(c *inbox.Config) { c.Log = zerolog.New(&log) })
		time.Sleep(time.Second)
		for n := range 3 {
			say(t, other, room, fmt.Sprint(n))
		}
		time.Sleep(time.Second)
		require.NoError(t, first.stop())
		assert.Equal(t, numbered(0, 3), heard.all())
		assert.NotContains(t, log.String(), "secret")
		assert.Contains(t, log.String(), "index out of range")
		assert.Contains(t, log.String(), "inbox_test.go", "where that was")
		start(t, process(server, self), storage, func(context.Context, *event.Event) { t.Error("told again") })
		time.Sleep(time.Second)
	})
}

// lockedLog is a log for many goroutines.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestBounds(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		var rooms []id.RoomID
		for range 8 {
			rooms = append(rooms, together(t, other, self))
		}
		var mu sync.Mutex
		running, most, handled := 0, 0, 0
		release := make(chan struct{})
		start(t, self, &files{}, func(context.Context, *event.Event) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			handled++
			mu.Unlock()
		}, func(c *inbox.Config) { c.Limits.Rooms, c.Limits.Kept = 3, 10 })
		syncs := 0
		server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/sync") {
				mu.Lock()
				syncs++
				mu.Unlock()
			}
			return next(req)
		})
		time.Sleep(time.Second)
		for n := range 40 {
			say(t, other, rooms[n%len(rooms)], fmt.Sprint(n))
			time.Sleep(time.Second)
		}
		mu.Lock()
		assert.Equal(t, 3, most, "as many goroutines as may be")
		assert.Less(t, syncs, 20, "the sync waits while too much waits")
		mu.Unlock()
		close(release)
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 40, handled, "nothing is missed")
	})
}

func TestStorageFails(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room, storage := together(t, other, self), &files{}
		var heard, again told
		first := start(t, self, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Second)
		storage.breaks(true)
		say(t, other, room, "0")
		time.Sleep(time.Minute)
		assert.Equal(t, numbered(0, 1), heard.all())
		storage.breaks(false)
		time.Sleep(time.Minute)
		storage.breaks(true)
		assert.ErrorContains(t, first.stop(), "the disk is full")
		storage.breaks(false)
		start(t, process(server, self), storage, func(_ context.Context, evt *event.Event) { again.add(evt) })
		time.Sleep(time.Second)
		assert.Empty(t, again.all(), "it was saved when the storage worked again")
	})
}

func TestTasksStay(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		storage := &files{}
		first := start(t, self, storage, func(context.Context, *event.Event) {})
		first.SetTask("one", []byte(`{"is":1}`))
		first.SetTask("two", []byte(`{"is":2}`))
		first.EndTask("two")
		time.Sleep(time.Second)
		first.kill()
		second := start(t, process(server, self), storage, func(context.Context, *event.Event) {})
		assert.Equal(t, []string{"one"}, slices.Collect(maps.Keys(second.Tasks())))
	})
}

func TestOtherUsersStateDoesNotCount(t *testing.T) {
	storage := &files{is: map[string][]byte{"inbox": []byte(`{"user_id":"@other:example.org","next_batch":"s1"}`)}}
	in := inbox.New(inbox.Config{Self: "@self:example.org", Storage: storage})
	require.NoError(t, in.Start(t.Context()))
	assert.Empty(t, in.Since())
	require.NoError(t, in.Stop(t.Context()))
	in = inbox.New(inbox.Config{Self: "@self:example.org", Storage: &files{is: map[string][]byte{"inbox": []byte(`{`)}}})
	assert.ErrorContains(t, in.Start(t.Context()), "damaged")
	assert.NoError(t, in.Stop(t.Context()))
}
