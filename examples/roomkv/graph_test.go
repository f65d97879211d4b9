package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/examples/roomkv/internal/graph"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

var draws = flag.Bool("draw", false, "draw docs/fork.svg anew")

// forked is a room in which the bots a and b have written at the same time, and a has merged.
type forked struct {
	server *fakehs.Server
	a, b   *mautrix.Client
	room   id.RoomID
}

// fork has a write visits, and then both bots write at the same time.
func fork(t *testing.T, a, b func(*roomkv.Store) error) *forked {
	t.Helper()
	server := fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Seed: 1})
	f := &forked{server: server, a: fakehstest.Client(t, server), b: fakehstest.Client(t, server)}
	f.room = hstest.Room(t, f.a, &mautrix.ReqCreateRoom{Invite: []id.UserID{f.b.UserID}, PowerLevelOverride: &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{f.a.UserID: 100, f.b.UserID: 100},
	}})
	_, err := f.b.JoinRoomByID(t.Context(), f.room)
	require.NoError(t, err)
	stores := make([]*roomkv.Store, 2)
	for i, client := range []*mautrix.Client{f.a, f.b} {
		stores[i], err = roomkv.New(client, f.room.String())
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, stores[i].Close(context.WithoutCancel(t.Context()))) })
	}
	require.NoError(t, stores[0].Put(t.Context(), "visits", 1))
	_, err = roomkv.Get[int](t.Context(), stores[1], "visits")
	require.NoError(t, err)

	// Once b's event is stored, a looks for rivals, and b goes on when a has merged.
	stored, merged := make(chan struct{}), make(chan struct{})
	isStored := sync.OnceFunc(func() { close(stored) })
	remove := server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		resp, err := next(req)
		if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/state/") {
			return resp, err
		}
		if strings.HasSuffix(req.Header.Get("Authorization"), f.b.AccessToken) {
			isStored()
			<-merged
		} else {
			<-stored
		}
		return resp, err
	})
	defer remove()
	server.Together(2)
	var puts sync.WaitGroup
	puts.Go(func() {
		defer close(merged)
		assert.NoError(t, a(stores[0]))
	})
	puts.Go(func() { assert.NoError(t, b(stores[1])) })
	puts.Wait()
	return f
}

// putsAtOnce is a fork of two keys.
func putsAtOnce(t *testing.T) *forked {
	return fork(t, func(a *roomkv.Store) error { return a.Put(t.Context(), "visits", 2) },
		func(b *roomkv.Store) error { return b.Put(t.Context(), "greeting", "Hello!") })
}

// shell runs the command as a.
func (f *forked) shell(t *testing.T) *shell {
	served := httptest.NewServer(f.server)
	t.Cleanup(served.Close)
	sh := &shell{t: t, bot: f.a, env: os.Environ()}
	for name, value := range map[string]string{
		envCommand: "1", envConfigDir: t.TempDir(), envHomeserver: served.URL, envUser: f.a.UserID.String(), envToken: f.a.AccessToken, envRoom: f.room.String(),
	} {
		sh.set(name, value)
	}
	return sh
}

func linesOf(t *testing.T, text string) (events []graph.Event) {
	t.Helper()
	for line := range strings.Lines(text) {
		var evt graph.Event
		require.NoError(t, json.Unmarshal([]byte(line), &evt))
		events = append(events, evt)
	}
	return events
}

// short says what is in the events, the newest first.
func short(events []graph.Event, f *forked) (texts []string) {
	names := map[string]string{f.a.UserID.String(): "a", f.b.UserID.String(): "b"}
	for _, evt := range events {
		text := names[evt.Sender]
		for _, c := range evt.Changes {
			text += " " + c.Key
		}
		texts = append(texts, fmt.Sprintf("%s from %d", text, len(evt.Parents)))
	}
	return texts
}

func TestGraph(t *testing.T) {
	f := putsAtOnce(t)
	sh := f.shell(t)
	events := linesOf(t, sh.ok("graph", "--json"))
	require.Len(t, events, 4)
	said := short(events, f)
	assert.Equal(t, []string{"a from 2", "a visits from 0"}, []string{said[0], said[3]})
	assert.ElementsMatch(t, []string{"a visits from 1", "b greeting from 1"}, said[1:3])
	assert.ElementsMatch(t, []string{events[1].ID, events[2].ID}, events[0].Parents, "the merge")
	assert.Equal(t, []string{events[3].ID}, events[1].Parents, "the fork")
	assert.Equal(t, []string{events[3].ID}, events[2].Parents, "the fork")

	for _, format := range []string{"svg", "dot"} {
		text := sh.ok("graph", "--format", format)
		for _, part := range []string{"fork into 2", "merge of 2", "visits", "greeting", f.a.UserID.String(), f.b.UserID.String()} {
			assert.Contains(t, text, part, format)
		}
		assert.NotContains(t, text, "Hello!", format)
		assert.Contains(t, sh.ok("graph", "--format", format, "--values"), "Hello!", format)
	}

	t.Run("limit", func(t *testing.T) {
		cut := linesOf(t, sh.ok("graph", "--json", "--limit", "2"))
		require.Len(t, cut, 2)
		assert.Equal(t, events[:2], cut, "what is drawn does not depend on how much is")
	})
	t.Run("a file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "memory.svg")
		assert.Empty(t, sh.ok("graph", "-o", name))
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, sh.ok("graph"), string(text))
		info, err := os.Stat(name)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		assert.Equal(t, exitError, sh.run("graph", "-o", name).code, "it is there")
		sh.ok("graph", "-o", name, "--force")
	})
	t.Run("usage", func(t *testing.T) {
		for _, args := range [][]string{{"--format", "png"}, {"--limit", "0"}, {"--limit", "1001"}, {"key"}} {
			assert.Equal(t, exitUsage, sh.run(append([]string{"graph"}, args...)...).code, "%v", args)
		}
		assert.Equal(t, exitNotFound, sh.run("graph", "--event-type", "com.example.other").code)
	})
	t.Run("hostile keys", func(t *testing.T) {
		for _, key := range []string{"</svg>", "\x1b[31m", "a\nb", `"]; x`, strings.Repeat("long", 500)} {
			sh.ok("put", key, "--string", "secret value")
		}
		sh.ok("rm", "</svg>")
		sh.ok("put", "long", strings.Repeat("secret value", 5000))
		assert.Contains(t, sh.ok("graph", "--limit", "1", "--values"), "long: (large)")
		text := sh.ok("graph")
		assert.Contains(t, text, "&lt;/svg&gt; (removed)")
		assert.Equal(t, 1, strings.Count(text, "</svg>"))
		assert.NotContains(t, text, "secret value")
		assert.NotContains(t, text, "\x1b")
		for reader := xml.NewDecoder(strings.NewReader(text)); ; {
			if _, err := reader.Token(); errors.Is(err, io.EOF) {
				break
			} else if !assert.NoError(t, err) {
				break
			}
		}
	})
}

// Of two who create a key, one does not count.
func TestGraphOfALostWrite(t *testing.T) {
	create := func(store *roomkv.Store) error {
		if err := store.Create(t.Context(), "turn", 1); !errors.Is(err, roomkv.ErrExists) {
			return err
		}
		return nil
	}
	f := fork(t, create, create)
	events, err := eventsOf(t.Context(), f.a, f.room, &memory{eventType: roomkv.DefaultEventType}, 10, false)
	require.NoError(t, err)
	var counted, lost int
	for _, evt := range events {
		for _, c := range evt.Changes {
			switch {
			case c.Key == "turn" && c.Lost:
				lost++
			case c.Key == "turn":
				counted++
			}
		}
	}
	assert.Equal(t, []int{1, 1}, []int{counted, lost}, "%+v", events)
}

func TestGraphOfLayouts(t *testing.T) {
	for flags, option := range map[string]roomkv.Option{"--per-key": roomkv.WithPerKeyState(), "--shards=3": roomkv.WithShards(3), "--state-key=x": roomkv.WithSingleStateKey("x")} {
		server := fakehstest.New(t, fakehs.Options{Seed: 1})
		f := &forked{server: server, a: fakehstest.Client(t, server)}
		f.room = hstest.Room(t, f.a)
		store, err := roomkv.New(f.a, f.room.String(), option)
		require.NoError(t, err)
		for i, key := range []string{"x", "y", "x"} {
			require.NoError(t, store.Put(t.Context(), key, i))
		}
		require.NoError(t, store.Delete(t.Context(), "x"))
		require.NoError(t, store.Close(t.Context()))
		server.Settle()
		changes := map[string]int{}
		for _, evt := range linesOf(t, f.shell(t).ok("graph", "--json", flags)) {
			for _, c := range evt.Changes {
				changes[c.Key]++
			}
			assert.False(t, evt.Cut, flags)
		}
		assert.Equal(t, map[string]int{"x": 3, "y": 1}, changes, flags)
	}
}

// Sealed keys are not shown, also to whom has the secret.
func TestGraphOfSealedKeys(t *testing.T) {
	const secret = "a secret of at least sixteen bytes"
	server := fakehstest.New(t, fakehs.Options{Seed: 1})
	f := &forked{server: server, a: fakehstest.Client(t, server)}
	f.room = hstest.EncryptedRoom(t, f.a)
	hstest.Crypto(t, f.a)
	store, err := roomkv.New(f.a, f.room.String(), roomkv.WithSealedKeys([]byte(secret)))
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "combination", "12-34-56"))
	require.NoError(t, store.Close(t.Context()))
	server.Settle()
	events, err := eventsOf(t.Context(), f.a, f.room, &memory{eventType: roomkv.DefaultEventType}, 10, true)
	require.NoError(t, err)
	require.NoError(t, addValues(t.Context(), store, events))
	require.Len(t, events, 1)
	require.Len(t, events[0].Changes, 1)
	change := events[0].Changes[0]
	assert.True(t, change.Sealed)
	assert.Empty(t, change.Value)
	assert.Regexp(t, `^[\w-]{43}$`, change.Key)
}

// docs/fork.svg is what the command draws of a fork, with other names and times.
func TestPictureOfAFork(t *testing.T) {
	const picture = "../../docs/fork.svg"
	f := putsAtOnce(t)
	events, err := eventsOf(t.Context(), f.a, f.room, &memory{eventType: roomkv.DefaultEventType}, 10, false)
	require.NoError(t, err)
	require.Len(t, events, 4)
	if events[1].Sender == f.a.UserID.String() { // either can be listed first
		events[1], events[2] = events[2], events[1]
	}
	names := strings.NewReplacer(f.a.UserID.String(), "@a:example.org", f.b.UserID.String(), "@b:example.org",
		events[0].ID, "$merge", events[1].ID, "$greeting", events[2].ID, "$visits", events[3].ID, "$first")
	for i := range events {
		evt := &events[i]
		evt.ID, evt.Sender = names.Replace(evt.ID), names.Replace(evt.Sender)
		for j := range evt.Parents {
			evt.Parents[j] = names.Replace(evt.Parents[j])
		}
		slices.Sort(evt.Parents)
		evt.Time = time.Date(2026, 11, 29, 12, 0, []int{2, 1, 1, 0}[i], 0, time.UTC)
	}
	var drawn strings.Builder
	require.NoError(t, graph.SVG(&drawn, events))
	if *draws {
		require.NoError(t, os.WriteFile(picture, []byte(drawn.String()), 0o644))
	}
	there, err := os.ReadFile(picture)
	require.NoError(t, err)
	assert.Equal(t, string(there), drawn.String(), "if it should be so: go test -tags goolm -run PictureOfAFork . -draw")
}

// A client without the values' keys has them from the store's key backup.
func TestGraphOfEncryptedValues(t *testing.T) {
	server := fakehstest.New(t, fakehs.Options{Seed: 1})
	f := &forked{server: server, a: fakehstest.Client(t, server)}
	f.room = hstest.EncryptedRoom(t, f.a)
	_, backup, err := keybackup.SetUp(t.Context(), hstest.Crypto(t, f.a).Machine(), "")
	require.NoError(t, err)
	store, err := roomkv.New(f.a, f.room.String(), roomkv.WithKeyBackup(backup))
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "combination", "12-34"))
	require.NoError(t, store.Put(t.Context(), "combination", "56-78"))
	require.NoError(t, store.Delete(t.Context(), "combination"))
	server.Settle()

	other := fakehstest.Device(t, server, f.a)
	hstest.Crypto(t, other)
	flags := &memory{eventType: roomkv.DefaultEventType}
	values := func(client *mautrix.Client) (found []string) {
		events, err := eventsOf(t.Context(), client, f.room, flags, 10, true)
		require.NoError(t, err)
		if client == other {
			require.NoError(t, addValues(t.Context(), store, events))
		}
		for _, evt := range events {
			found = append(found, evt.Changes[0].Value)
		}
		return found
	}
	assert.Equal(t, []string{"", `"56-78"`, `"12-34"`}, values(f.a))
	without, err := eventsOf(t.Context(), other, f.room, flags, 10, true)
	require.NoError(t, err)
	assert.Equal(t, unreadable, without[1].Changes[0].Value)
	assert.Equal(t, []string{"", `"56-78"`, `"12-34"`}, values(other))
}
