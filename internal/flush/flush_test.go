package flush_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/background"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/flush"
	"github.com/roomkv/roomkv/internal/memory"
)

// fake is a memory that has nothing, and notes when it is written.
type fake struct {
	flush.Memory
	took time.Duration // how long a write takes
	fail func() error
	room memory.Room

	mu      sync.Mutex
	now     int // how many writes go on
	most    int
	written []string
	began   time.Time
}

func (f *fake) Check(context.Context, string, json.RawMessage) error { return nil }

// Now implements [Memory].
func (f *fake) Now(context.Context) (int64, error) { return time.Now().UnixMilli(), nil }

func (f *fake) Ahead(ctx context.Context) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

func (f *fake) Entry(_ context.Context, key string) (memory.Entry, error) {
	return memory.Entry{}, memory.NotFound(key, "!room")
}

func (f *fake) Entries(context.Context, memory.Listing) iter.Seq2[memory.Entry, error] {
	return func(func(memory.Entry, error) bool) {}
}

func (f *fake) Write(ctx context.Context, keys []string, do func(memory.Handle) error) error {
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.written = append(f.written, fmt.Sprintf("%v%v", time.Since(f.began).Round(time.Second), keys))
	f.mu.Unlock()
	time.Sleep(f.took)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now--
	err := do(memory.Handle{Room: f.room, Memory: state{f}})
	return cmp.Or(err, ctx.Err())
}

// state makes changes of what is not there, and fails where that is asked for.
type state struct{ *fake }

func (s state) Commit(_ context.Context, change memory.Change) error {
	_, err := change.Edit(change.Names).Apply(nothing{})
	if s.fail != nil {
		err = s.fail()
	}
	return err
}

func (state) Find(context.Context, string, bool) (*memory.Record, error)             { return nil, nil }
func (state) Some(context.Context, []string) ([]memory.Record, error)                { return nil, nil }
func (state) All(context.Context) ([]memory.Record, error)                           { return nil, nil }
func (state) Named(context.Context, []string) (map[string]memory.Record, error)      { return nil, nil }
func (state) Parts(context.Context, func(string) bool) iter.Seq2[memory.Part, error] { return nil }
func (s state) Remove(context.Context, []string, func(string)) error                 { return nil }

// nothing is what is there.
type nothing struct{ commit.Base }

func (nothing) Stored(string) (json.RawMessage, bool) { return nil, false }

type group struct {
	*flush.Waiting
	background background.Group
	log        bytes.Buffer
}

func waiting(t *testing.T, f *fake, every time.Duration) *group {
	g := &group{Waiting: flush.New(every)}
	log := zerolog.New(zerolog.SyncWriter(&g.log))
	g.Background, g.Log = &g.background, &log
	g.Memory = func(id.RoomID) flush.Memory { return f }
	f.began = time.Now()
	client, err := mautrix.NewClient("http://nowhere.invalid", "@bot:nowhere.invalid", "token")
	require.NoError(t, err)
	client.Client = nil // nothing is asked for
	f.room = memory.NewShared(client, memory.Settings{EventType: "com.example.memory", Layout: memory.OneDict{}}, nil).Room("!room")
	return g
}

func (g *group) end(t *testing.T) {
	require.NoError(t, g.background.Close(context.Background()))
	g.Abandon()
}

func (g *group) put(t *testing.T, room, key, value string) {
	require.NoError(t, g.Room(id.RoomID(room)).PutAll(t.Context(), map[string]json.RawMessage{key: json.RawMessage(value)}))
}

// pass lets time pass.
func pass(wait time.Duration) {
	time.Sleep(wait)
	synctest.Wait()
}

// Each room is written once in the time, those that were not written for the longest time first, and few at a time.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{took: time.Second}
		g := waiting(t, f, 5*time.Second)
		g.put(t, "!a", "k", "1")
		pass(4 * time.Second)
		g.put(t, "!a", "l", "1")
		g.put(t, "!b", "k", "1")
		pass(1500 * time.Millisecond) // while it is written
		g.put(t, "!a", "k", "2")
		pass(time.Minute)
		assert.Equal(t, []string{"5s[k l]", "9s[k]", "11s[k]"}, f.written) // rounded
		for room := range 40 {
			g.put(t, fmt.Sprint("!", room), "k", "1")
		}
		pass(time.Minute)
		assert.Len(t, f.written, 43)
		assert.Equal(t, 4, f.most)
		g.end(t)
	})
}

// What fails for a while is tried again after longer and longer waits. Somebody who asks for a flush does not wait for that.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("a secret from elsewhere")
		f := &fake{fail: func() error { return down }}
		g := waiting(t, f, time.Second)
		g.put(t, "!a", "k", "1")
		pass(100 * time.Second)
		assert.Equal(t, []string{"1s[k]", "6s[k]", "16s[k]", "36s[k]", "1m16s[k]"}, f.written)
		g.put(t, "!a", "l", "1")
		pass(10 * time.Second)
		assert.Len(t, f.written, 5, "it does not make it sooner")
		require.ErrorIs(t, g.Flush(t.Context()), down)
		assert.Equal(t, "1m50s[k l]", f.written[5])
		f.fail = nil
		require.NoError(t, g.Flush(t.Context()))
		require.NoError(t, g.Flush(t.Context()))
		assert.Len(t, f.written, 7)
		assert.Contains(t, g.log.String(), "tried again")
		assert.NotContains(t, g.log.String(), "secret")
		g.end(t)
	})
}

// What is refused for good is told once.
func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: func() error { return fault.Of(fault.ErrForbidden, nil, "not here") }}
		g := waiting(t, f, time.Second)
		g.put(t, "!a", "k", "1")
		pass(time.Minute)
		assert.Len(t, f.written, 1)
		require.ErrorIs(t, g.Flush(t.Context()), fault.ErrForbidden)
		require.NoError(t, g.Flush(t.Context()))
		assert.Contains(t, g.log.String(), `"key":"k"`)
		_, err := g.Room("!a").Entry(t.Context(), "k")
		require.ErrorIs(t, err, fault.ErrNotFound)
		g.end(t)
	})
}

// An Update of which nobody knows whether it was done is not done again.
func TestInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: func() error { return errors.New("the answer was lost") }}
		g := waiting(t, f, time.Second)
		one := func(memory.Old) (json.RawMessage, error) { return json.RawMessage("1"), nil }
		require.NoError(t, g.Room("!a").Update(t.Context(), "k", one))
		pass(time.Minute)
		assert.Len(t, f.written, 1)
		require.ErrorContains(t, g.Flush(t.Context()), "may have been done or not")
		g.put(t, "!a", "k", "1") // which can happen twice
		require.Error(t, g.Flush(t.Context()))
		f.fail = nil
		require.NoError(t, g.Flush(t.Context()))
		assert.Len(t, f.written, 3)
		g.end(t)
	})
}

// What waits takes no more than so much memory. Beyond that all is sent, and who writes waits.
func TestMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{took: 10 * time.Second}
		g := waiting(t, f, time.Hour)
		text := json.RawMessage(fmt.Sprintf("%q", bytes.Repeat([]byte("x"), 10<<10))) // a larger one would be uploaded
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := 0
		var err error
		for ; err == nil; n++ {
			err = g.Room("!a").PutAll(short, map[string]json.RawMessage{fmt.Sprint(n): text})
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.InEpsilon(t, flush.MostBytes/len(text), n, 0.05)
		assert.Equal(t, time.Second, time.Since(f.began))
		g.put(t, "!b", "k", "1")
		assert.Equal(t, 10*time.Second, time.Since(f.began))
		assert.Len(t, f.written, 1)
		require.NoError(t, g.Flush(t.Context()))
		g.end(t)
	})
}

// The log says now and then that writes wait for much longer than they are meant to.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{took: 20 * time.Second}
		g := waiting(t, f, 5*time.Second)
		for round := range 3 {
			for room := range 20 {
				g.put(t, fmt.Sprint("!", room), "k", fmt.Sprint(round))
			}
			pass(2 * time.Minute)
		}
		g.end(t)
		lines := bytes.Count(g.log.Bytes(), []byte("\n"))
		assert.Positive(t, lines)
		assert.LessOrEqual(t, lines, 6)
		assert.Contains(t, g.log.String(), `"rooms":`)
	})
}
