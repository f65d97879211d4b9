package roomkv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// Each request is counted once, by one of those who share it, whoever that is.
func TestEachRequestIsCountedOnce(t *testing.T) {
	hstest.Parallel(t)
	for name, opts := range map[string][]roomkv.Option{
		"default": nil, "upgrades": {roomkv.WithRoomUpgrades()}, "redaction": {roomkv.WithRedaction()}, "flush": {roomkv.WithFlushEvery(20 * time.Millisecond)},
		"account data": {roomkv.WithAccountDataFallback()}, "following": nil, "encrypted": nil, "encrypted, following": nil, "powerless": {roomkv.WithAccountDataFallback()},
	} {
		t.Run(name, func(t *testing.T) {
			bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
				ctx := t.Context()
				client := hstest.Client(t)
				room := hstest.Room(t, client)
				if strings.Contains(name, "encrypted") {
					hstest.Crypto(t, client)
					room = hstest.EncryptedRoom(t, client)
				} else if name == "powerless" {
					p := newPowerless(t, false)
					client, room = p.bot, p.room
				}
				o := observe(t, client)
				store := open(t, client, room, slices.Concat([]roomkv.Option{layout, roomkv.WithObserver(o)}, opts)...)
				if strings.Contains(name, "following") {
					require.NoError(t, store.Follow())
					syncing(t, client)
				}
				var all sync.WaitGroup
				for i := range 6 {
					key := fmt.Sprint("key ", i%4)
					all.Go(func() {
						for n := range 2 {
							assert.NoError(t, store.Put(ctx, key, n))
							assert.NoError(t, roomkv.Update(ctx, store, "counter", increment))
							if err := store.Get(ctx, key, new(int)); !errors.Is(err, roomkv.ErrNotFound) {
								assert.NoError(t, err)
							}
							assert.NoError(t, store.PutAll(ctx, map[string]any{key: n, "other": strings.Repeat("large", 20_000)}))
							assert.NoError(t, firstError(store.All(ctx)))
							assert.NoError(t, store.Delete(ctx, key, "missing"))
						}
					})
				}
				all.Wait()
				require.NoError(t, store.Close(ctx))
				o.exact()
				ended := o.take()
				assert.Contains(t, kindsOf(ended), "Get")
				if name == "flush" {
					assert.Contains(t, kindsOf(ended), "send")
				}
				total := 0
				for _, op := range ended {
					if op.Kind != "Get" || op.Error != "ErrNotFound" {
						assert.Empty(t, op.Error, op.Kind)
					}
					if op.Kind == "Put" {
						total += op.Requests
					}
				}
				if name == "flush" {
					assert.Zero(t, total, "Puts that wait for a flush")
				}
			})
		})
	}
}

// Of operations that share a request the first that has not ended counts it.
func TestWhoCountsWhatIsShared(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	o := observe(t, client)
	store := open(t, client, room, roomkv.WithObserver(o), roomkv.WithObservedKeys())
	require.NoError(t, store.Put(ctx, "warm", 1))
	use, next := through(client)
	hold := func(on string) (held, release chan struct{}) {
		held, release = make(chan struct{}), make(chan struct{})
		first := sync.OnceFunc(func() { close(held); <-release })
		use(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, on) {
				first()
			}
			return next.RoundTrip(req)
		})
		return held, release
	}
	byKey := func() map[string]told {
		found := map[string]told{}
		for _, op := range o.take() {
			found[op.Keys[0]] = op
		}
		return found
	}
	var all sync.WaitGroup
	put := func(ctx context.Context, key string, want error) {
		all.Go(func() { assert.ErrorIs(t, store.Put(ctx, key, 1), want) })
		time.Sleep(50 * time.Millisecond)
	}
	o.take()

	held, release := hold("/state/") // by the first, and two others wait for it
	put(ctx, "first", nil)
	<-held
	put(ctx, "second", nil)
	put(ctx, "third", nil)
	close(release)
	all.Wait()
	o.exact()
	got := byKey()
	assert.Equal(t, 2, got["first"].Requests)
	assert.Equal(t, 2, got["second"].Requests)
	assert.Zero(t, got["third"].Requests)

	held, release = hold("/state/") // by two who share, of whom the first gives up before they look back
	put(ctx, "before", nil)
	<-held
	impatient, cancel := context.WithCancel(ctx)
	put(impatient, "impatient", context.Canceled)
	put(ctx, "patient", nil)
	held2, release2 := hold("/messages")
	close(release) // of the one before, whose look back is held
	<-held2
	held, release = hold("/state/")
	close(release2)
	<-held
	cancel()
	time.Sleep(50 * time.Millisecond)
	close(release)
	all.Wait()
	o.exact()
	got = byKey()
	assert.Equal(t, "context.Canceled", got["impatient"].Error)
	assert.Equal(t, 1, got["impatient"].Requests, "its event")
	assert.Equal(t, 1, got["patient"].Requests, "the look back")
}

// Keys are told only where that was asked for, and values never.
func TestObserverIsToldNoKeysAndNoValues(t *testing.T) {
	hstest.Parallel(t)
	for _, following := range []bool{false, true} {
		if following && !thorough() {
			continue
		}
		o := &texts{}
		sealedWire(t, following, roomkv.WithSealedKeys(secret), roomkv.WithObserver(o), roomkv.WithRedaction())
		assert.Contains(t, o.all.String(), "EncryptAll")
		for _, text := range []string{keyMarker, valueMarker, string(secret)} {
			assert.NotContains(t, o.all.String(), text)
		}
	}
}

// texts is all that an observer is told, as text.
type texts struct{ all lockedBuffer }

// Start implements [roomkv.Observer].
func (o *texts) Start(ctx context.Context, op roomkv.Operation) context.Context {
	fmt.Fprintf(&o.all, "%+v\n", op)
	return ctx
}

// End implements [roomkv.Observer].
func (o *texts) End(_ context.Context, op roomkv.Operation, outcome roomkv.Outcome) {
	fmt.Fprintf(&o.all, "%+v %+v\n", op, outcome)
}

func TestObservedKeys(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	o := observe(t, client)
	store := open(t, client, room, roomkv.WithObserver(o), roomkv.WithObservedKeys())
	sub := store.Sub("sub/")
	for _, c := range []struct {
		call func() error
		want []string
	}{
		{func() error { return store.Put(ctx, "k", 1) }, []string{"k"}},
		{func() error { return sub.PutAll(ctx, map[string]any{"a": 1, "b": 2}) }, []string{"sub/a", "sub/b"}},
		{func() error { _, err := sub.GetAll(ctx, "a", "b"); return err }, []string{"sub/a", "sub/b"}},
		{func() error { return sub.Get(ctx, "a", new(int)) }, []string{"sub/a"}},
		{func() error { return roomkv.Update(ctx, sub, "a", increment) }, []string{"sub/a"}},
		{func() error { return firstError(sub.History(ctx, "a")) }, []string{"sub/a"}},
		{func() error { _, err := store.Keys(ctx); return err }, nil},
	} {
		require.NoError(t, c.call())
		op := o.one()
		slices.Sort(op.Keys)
		assert.Equal(t, c.want, op.Keys, op.Kind)
	}
}

// An alias is told until it is resolved.
func TestObservedRoom(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	alias := fmt.Sprintf("observed%d", time.Now().UnixNano())
	room := hstest.Room(t, client, &mautrix.ReqCreateRoom{RoomAliasName: alias})
	alias = "#" + alias + ":" + client.UserID.Homeserver()
	o := observe(t, client)
	store, err := roomkv.New(client, "main", roomkv.WithRooms(map[string]string{"main": alias}), roomkv.WithObserver(o))
	require.NoError(t, err)
	for _, want := range []string{alias, room.String()} {
		require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
		op := o.one()
		assert.EqualValues(t, want, op.began.Room)
		assert.Equal(t, room, op.Room)
		assert.Equal(t, "ErrNotFound", op.Error)
	}
	_, err = store.WithRoom(ctx, "unknown")
	require.ErrorIs(t, err, roomkv.ErrUnknownRoom)
	assert.Equal(t, "ErrUnknownRoom", o.one().Error)
	none, err := store.WithRoom(ctx, "")
	require.ErrorIs(t, err, roomkv.ErrNoRoom)
	assert.Nil(t, none)
	assert.Equal(t, "ErrNoRoom", o.one().Error)
}

// An operation ends however it ends.
func TestObservedEnds(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	client.DefaultHTTPBackoff = time.Millisecond
	room := hstest.Room(t, client)
	o := observe(t, client)
	store := open(t, client, room, roomkv.WithObserver(o))
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	o.take()

	assert.PanicsWithValue(t, "mine", func() {
		_ = roomkv.Update(ctx, store, "a", func(int, bool) (int, error) { panic("mine") })
	})
	assert.Equal(t, "panic", o.one().Error)
	mine := errors.New("mine")
	require.ErrorIs(t, roomkv.Update(ctx, store, "a", func(int, bool) (int, error) { return 0, mine }), mine)
	assert.Equal(t, "other", o.one().Error)

	for range store.All(ctx) {
		break
	}
	assert.Empty(t, o.one().Error)
	assert.Panics(t, func() {
		for range store.All(ctx) {
			panic("mine")
		}
	})
	assert.Equal(t, "panic", o.one().Error)
	twice := store.All(ctx)
	for range 2 {
		require.NoError(t, firstError(twice))
	}
	assert.Equal(t, []string{"All", "All"}, kindsOf(o.take()))

	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, store.Get(ended, "a", new(int)), context.Canceled)
	assert.Equal(t, "context.Canceled", o.one().Error)

	use, next := through(client)
	use(func(req *http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	require.Error(t, store.Get(mautrix.WithMaxRetries(ctx, 2), "a", new(int)))
	op := o.one()
	assert.Equal(t, "no answer", op.Error)
	assert.Equal(t, 3, op.Requests)
	assert.Equal(t, 2, op.Retries)
	n := 0
	use(func(req *http.Request) (*http.Response, error) {
		if n++; n == 1 {
			return &http.Response{StatusCode: http.StatusBadGateway, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
		}
		return next.RoundTrip(req)
	})
	require.NoError(t, store.Get(ctx, "a", new(int)))
	op = o.one()
	assert.Equal(t, 1, op.Retries)
	info, err := store.Info(ctx)
	require.NoError(t, err)
	assert.Equal(t, 3, info.Retries)
	assert.Zero(t, info.Merges)
	other, err := open(t, client, room).Info(ctx)
	require.NoError(t, err)
	assert.Zero(t, other.Retries, "it comes from another New")
	assert.Panics(t, func() { _ = open(t, client, room, roomkv.WithObserver(faulty{})).Put(ctx, "a", 1) })
}

// faulty is an observer that panics.
type faulty struct{}

func (faulty) Start(ctx context.Context, _ roomkv.Operation) context.Context { return ctx }

func (faulty) End(context.Context, roomkv.Operation, roomkv.Outcome) { panic("faulty") }

// Who merges counts that, and so does Info, also in the background.
func TestMergesAreCounted(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	o := observe(t, client)
	store, stop := follow(t, client, room, roomkv.WithObserver(o))
	fork := func() {
		require.NoError(t, store.Put(ctx, "base", 0))
		stale := rawState(t, client, room, database, "")
		require.NoError(t, store.Put(ctx, "mine", time.Now().UnixMilli()))
		var content map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(stale), &content))
		content["theirs"] = json.RawMessage(fmt.Sprint(time.Now().UnixMilli()))
		_, err := client.SendStateEvent(ctx, room, database, "", content) // as opsdroid does, of what it read before
		require.NoError(t, err)
	}
	fork()
	eventually(t, func() bool { return strings.Contains(rawState(t, client, room, database, ""), "mine") }, "merged")
	for _, op := range o.take() {
		if op.Kind == "repair" {
			assert.Equal(t, 1, op.Merges)
			assert.Equal(t, room, op.Room)
			assert.Positive(t, op.Requests)
		} else {
			assert.Equal(t, "Put", op.Kind)
			assert.Zero(t, op.Merges)
		}
	}
	info, err := store.Info(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, info.Merges)

	stop()
	require.NoError(t, store.Close(ctx)) // so that nothing repairs
	time.Sleep(1100 * time.Millisecond)
	fork()
	o.take()
	require.NoError(t, store.Put(ctx, "next", 1))
	assert.Equal(t, 1, o.one().Merges)
	info, err = store.Info(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, info.Merges)
}

// A memory that moves into the state when a sync tells of the power does so as an operation of its own.
func TestObservedMove(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	o := observe(t, p.bot)
	store, _ := follow(t, p.bot, p.room, roomkv.WithAccountDataFallback(), roomkv.WithObserver(o))
	require.NoError(t, store.Put(ctx, "k", 1))
	o.take()
	p.level(t, 50)
	eventually(t, func() bool { return strings.Contains(o.textOf(), "move") }, "it moves")
	o.exact()
	for _, op := range o.take() {
		assert.Contains(t, []string{"move", "repair"}, op.Kind)
		assert.Equal(t, p.room, op.Room)
	}
	assert.Contains(t, rawState(t, p.admin, p.room, database, ""), `"k"`)
}

// A handler's operations are told as any other.
func TestObservedInEventRoom(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	o := observe(t, client)
	store, err := roomkv.New(client, "", roomkv.WithObserver(o))
	require.NoError(t, err)
	store.InEventRoom(func(ctx context.Context, _ *event.Event, scoped *roomkv.Store) {
		assert.NoError(t, scoped.Put(ctx, "k", 1))
	})(t.Context(), &event.Event{RoomID: room})
	op := o.one()
	assert.Equal(t, room, op.Room)
	assert.Equal(t, "Put", op.Kind)
	require.ErrorIs(t, store.Put(t.Context(), "k", 1), roomkv.ErrNoRoom)
	op = o.one()
	assert.Equal(t, id.RoomID(""), op.Room)
	assert.Equal(t, "ErrNoRoom", op.Error)
}

// Who does not observe pays nothing: a read from memory allocates what it did before there were observers.
func TestNobodyObserves(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates too")
	}
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, _ := follow(t, client, room)
	require.NoError(t, store.Put(ctx, "k", 7))
	var dest int
	allocs := func(do func() error) float64 {
		return testing.AllocsPerRun(500, func() {
			if do() != nil {
				t.Error("it is there")
			}
		})
	}
	get := func() error { return store.Get(ctx, "k", &dest) }
	eventually(t, func() bool { return allocs(get) < 20 }, "it is read from memory")
	for name, c := range map[string]struct {
		do   func() error
		most float64
	}{
		"Store.Get": {get, 1},
		"Get":       {func() error { _, err := roomkv.Get[int](ctx, store, "k"); return err }, 2},
		"Entry":     {func() error { _, err := store.Entry(ctx, "k"); return err }, 7},
		"Keys":      {func() error { _, err := store.Keys(ctx); return err }, 7},
	} {
		assert.LessOrEqual(t, allocs(c.do), c.most, name)
	}
}
