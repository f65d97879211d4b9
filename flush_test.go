package roomkv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// statePuts are the requests among those recorded that sent state of the store's type.
func statePuts(recorder *hstest.Recorder) (sent []hstest.Request) {
	for _, request := range recorder.Requests() {
		if request.Method == http.MethodPut && strings.Contains(request.Path, memoryPath) {
			sent = append(sent, request)
		}
	}
	return sent
}

func add(n int) func(int, bool) (int, error) {
	return func(old int, _ bool) (int, error) { return old + n, nil }
}

func whole(t testing.TB, store *roomkv.Store) string {
	t.Helper()
	keys, err := store.Keys(t.Context())
	require.NoError(t, err)
	all := memoryOf(t, store)
	assert.Len(t, all, len(keys))
	var text []string
	for _, key := range keys {
		text = append(text, key+"="+all[key])
	}
	return strings.Join(text, " ")
}

// What is written is there at once for all stores that come from one New, and is sent together.
func TestFlush(t *testing.T) {
	hstest.Parallel(t)
	for _, encrypted := range []bool{false, true} {
		eachLayout(t, func(t *testing.T, layout roomkv.Option) {
			t.Run(fmt.Sprint("encrypted=", encrypted), func(t *testing.T) {
				client := hstest.Client(t)
				recorder := hstest.Record(client)
				if encrypted {
					hstest.Crypto(t, client)
					syncing(t, client)
				}
				room := hstest.Room(t, client)
				if encrypted {
					room = hstest.EncryptedRoom(t, client)
				}
				other := open(t, client, room, layout)
				require.NoError(t, other.PutAll(t.Context(), map[string]any{"a": 1, "b": "old", "c": 0.5, "gone": true}))
				store := open(t, client, room, layout, roomkv.WithFlushEvery(time.Hour))
				ctx := t.Context()
				recorder.Reset()
				require.NoError(t, store.Put(ctx, "b", "new"))
				require.NoError(t, store.PutAll(ctx, map[string]any{"d": []int{1}, "e": 2.5}))
				require.NoError(t, store.Delete(ctx, "gone", "never"))
				assert.Zero(t, requests(recorder))
				for range 10 {
					require.NoError(t, roomkv.Update(ctx, store, "a", add(1)))
					require.NoError(t, roomkv.Update(ctx, store, "counter", add(2)))
				}
				require.NoError(t, roomkv.Update(ctx, store, "e", func(old float64, found bool) (float64, error) {
					assert.True(t, found)
					return old * 2, nil
				}))
				failed := errors.New("failed by the test")
				require.ErrorIs(t, roomkv.Update(ctx, store, "a", func(int, bool) (int, error) { return 0, failed }), failed)
				require.ErrorIs(t, store.Put(ctx, "a", func() {}), roomkv.ErrInvalidValue)
				require.ErrorIs(t, store.Put(ctx, "\xff", 1), roomkv.ErrInvalidKey)
				require.ErrorIs(t, store.Put(ctx, strings.Repeat("k", 70000), 1), roomkv.ErrTooLarge)

				scoped, err := store.WithRoom(ctx, room)
				require.NoError(t, err)
				const want = `a=11 b="new" c=0.5 counter=20 d=[1] e=5`
				assert.Equal(t, want, whole(t, scoped))
				assert.Equal(t, want, whole(t, store))
				entry, err := store.Entry(ctx, "a")
				require.NoError(t, err)
				assert.Equal(t, roomkv.Entry{Key: "a", Value: []byte("11")}, entry)
				require.ErrorIs(t, store.Get(ctx, "gone", new(bool)), roomkv.ErrNotFound)
				assert.Empty(t, statePuts(recorder))
				assert.Equal(t, `a=1 b="old" c=0.5 gone=true`, whole(t, other))

				require.NoError(t, store.Flush(ctx))
				changed := map[string]bool{}
				for _, put := range statePuts(recorder) {
					assert.False(t, changed[put.Path], "two events of %s", put.Path)
					changed[put.Path] = true
				}
				assert.LessOrEqual(t, len(changed), 6, "one for each state event that changes")
				sealed := 0
				for _, request := range recorder.Requests() {
					if strings.Contains(request.Path, "/send/m.room.encrypted/") {
						sealed++
					}
				}
				assert.Equal(t, encrypted, sealed == 1, "all values share an encrypted event")
				assert.Equal(t, want, whole(t, other))
				assert.Equal(t, want, whole(t, store))
				entry, err = store.Entry(ctx, "a")
				require.NoError(t, err)
				assert.NotEmpty(t, entry.Revision)
				assert.Equal(t, encrypted, entry.Encrypted)
				recorder.Reset()
				require.NoError(t, store.Flush(ctx))
				assert.Zero(t, requests(recorder), "there is nothing left")
			})
		})
	}
}

// So it is without anybody who asks, after the time.
func TestFlushEvery(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, client, room, layout)
		recorder := hstest.Record(client)
		store := open(t, client, room, layout, roomkv.WithFlushEvery(300*time.Millisecond))
		began := time.Now()
		for n := range 20 {
			require.NoError(t, store.Put(t.Context(), "key", n))
			require.NoError(t, roomkv.Update(t.Context(), store, "counter", add(1)))
		}
		eventually(t, func() bool { return other.Get(t.Context(), "counter", new(int)) == nil }, "the flush")
		assert.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
		require.NoError(t, store.Flush(t.Context()))
		assert.Equal(t, "counter=20 key=19", whole(t, other))
		assert.LessOrEqual(t, len(statePuts(recorder)), 2)
		require.NoError(t, store.Close(t.Context()))
	})
}

// An Update is made again on what somebody else has written meanwhile, and what waits on top of it too.
func TestFlushAfterOthers(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, twin(t, client), room, layout)
		require.NoError(t, other.PutAll(ctx, map[string]any{"a": 1, "b": 1, "c": 1, "d": "1", "e": 1}))
		var log bytes.Buffer
		client.Log = zerolog.New(zerolog.SyncWriter(&log))
		store := open(t, client, room, layout, roomkv.WithFlushEvery(time.Hour))
		failed := errors.New("no more than one")
		once := func(old int, _ bool) (int, error) {
			if old > 1 {
				return 0, failed
			}
			return old + 1, nil
		}
		require.NoError(t, roomkv.Update(ctx, store, "a", add(1)))
		require.NoError(t, roomkv.Update(ctx, store, "a", add(2)))
		require.NoError(t, roomkv.Update(ctx, store, "b", once))
		require.NoError(t, store.Put(ctx, "c", 7))
		require.NoError(t, roomkv.Update(ctx, store, "c", add(1)))
		require.NoError(t, roomkv.Update(ctx, store, "d", func(old string, _ bool) (string, error) { return old + "2", nil }))
		require.NoError(t, roomkv.Update(ctx, store, "e", func(old int, _ bool) (int, error) {
			if old != 1 {
				panic("the value is secret 47110815234216")
			}
			return 2, nil
		}))
		// The value has so many digits that no port, time or ID of the log can contain it.
		require.NoError(t, other.PutAll(ctx, map[string]any{"a": 100, "b": 47110815234216, "c": 100, "d": "x", "e": 47110815234216}))
		require.ErrorIs(t, store.Flush(ctx), failed)
		assert.Equal(t, `a=103 b=47110815234216 c=8 d="x2" e=47110815234216`, whole(t, other))
		assert.Equal(t, `a=103 b=47110815234216 c=8 d="x2" e=47110815234216`, whole(t, store))
		assert.NoError(t, store.Flush(ctx), "it was told")
		assert.Contains(t, log.String(), `"key":"b"`)
		assert.NotContains(t, log.String(), "47110815234216")
	})
}

// Whatever needs to know what the homeserver has sends first what waits.
func TestFlushFirst(t *testing.T) {
	hstest.Parallel(t)
	for name, do := range map[string]func(ctx context.Context, store *roomkv.Store) error{
		"Create":        func(ctx context.Context, store *roomkv.Store) error { return store.Create(ctx, "new", 1) },
		"CompareAndPut": func(ctx context.Context, store *roomkv.Store) error { return store.CompareAndPut(ctx, "new", 1, "") },
		"Pop":           func(ctx context.Context, store *roomkv.Store) error { return store.Pop(ctx, "waits", new(int)) },
		"Purge":         func(ctx context.Context, store *roomkv.Store) error { _, err := store.Purge(ctx, "other"); return err },
		"EncryptAll":    func(ctx context.Context, store *roomkv.Store) error { _, _ = store.EncryptAll(ctx); return nil },
		"History": func(ctx context.Context, store *roomkv.Store) error {
			for _, err := range store.History(ctx, "waits") {
				return err
			}
			return errors.New("there is none")
		},
		"Export": func(ctx context.Context, store *roomkv.Store) error {
			var file bytes.Buffer
			_, err := store.Export(ctx, &file)
			if err == nil && !strings.Contains(file.String(), "waits") {
				err = errors.New("it is not there")
			}
			return err
		},
		"Restore": func(ctx context.Context, store *roomkv.Store) error {
			snapshot, err := store.At(ctx, roomkv.AtTime(time.Now().Add(time.Minute)))
			if err == nil {
				err = snapshot.Get(ctx, "waits", new(int))
			}
			if err == nil {
				_, err = store.Restore(ctx, snapshot)
			}
			return err
		},
		"Copy": func(ctx context.Context, store *roomkv.Store) error {
			_, err := roomkv.Copy(ctx, store, store)
			if errors.Is(err, roomkv.ErrInvalidOption) {
				err = nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
				client := hstest.Client(t)
				room := hstest.Room(t, client)
				recorder := hstest.Record(client)
				store := open(t, client, room, layout, roomkv.WithFlushEvery(time.Hour))
				require.NoError(t, store.PutAll(t.Context(), map[string]any{"waits": 1, "other": 2}))
				assert.Empty(t, statePuts(recorder))
				require.NoError(t, do(t.Context(), store))
				require.NotEmpty(t, statePuts(recorder))
				assert.Contains(t, string(statePuts(recorder)[0].Body)+string(statePuts(recorder)[1%len(statePuts(recorder))].Body), "waits")
			})
		})
	}
}

// Close sends what waits, and afterwards nothing waits.
func TestFlushWithClose(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	other := open(t, client, room)
	store := open(t, client, room, roomkv.WithFlushEvery(time.Hour))
	require.NoError(t, store.Put(t.Context(), "a", 1))
	require.NoError(t, store.Close(t.Context()))
	assert.Equal(t, "a=1", whole(t, other))
	require.NoError(t, store.Put(t.Context(), "b", 2))
	require.NoError(t, roomkv.Update(t.Context(), store, "a", add(1)))
	require.NoError(t, store.Delete(t.Context(), "c"))
	assert.Equal(t, "a=2 b=2", whole(t, other))
	require.NoError(t, store.Close(t.Context()))

	room = hstest.Room(t, client)
	down := errors.New("the homeserver is down")
	store = open(t, client, room, roomkv.WithFlushEvery(time.Hour))
	require.NoError(t, store.Put(t.Context(), "a", 1))
	client.Client = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, down })}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := store.Close(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "has not been sent")
	require.NoError(t, store.Flush(t.Context()), "it was given up")
}

// What cannot be stored is dropped, and the next Flush says why. The rest is stored.
func TestFlushOfWhatIsRefused(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store := open(t, client, room, roomkv.WithFlushEvery(time.Hour))
	values := map[string]any{"small": 1}
	for n := range 4 {
		values[fmt.Sprint(n, strings.Repeat("k", 15_000))] = n // keys stay in the dict whatever their values
	}
	require.NoError(t, store.PutAll(ctx, values))
	require.NoError(t, store.Flush(ctx))
	require.NoError(t, store.Put(ctx, strings.Repeat("l", 15_000), 1))
	require.NoError(t, roomkv.Update(ctx, store, "small", add(1)))
	require.NoError(t, store.Put(ctx, "after", 2))
	err := store.Flush(ctx)
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	require.NoError(t, store.Flush(ctx))
	other := open(t, client, room)
	got := memoryOf(t, other)
	assert.Len(t, got, 6)
	assert.Equal(t, "2", got["small"])
	assert.Equal(t, "2", got["after"])

	var levels event.PowerLevelsEventContent
	require.NoError(t, client.StateEvent(ctx, room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(client.UserID, 10)
	_, err = client.SendStateEvent(ctx, room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
	require.NoError(t, store.Put(ctx, "after", 3))
	require.NoError(t, roomkv.Update(ctx, store, "small", add(1)))
	require.ErrorIs(t, store.Flush(ctx), roomkv.ErrForbidden)
	require.NoError(t, store.Flush(ctx))
	assert.Equal(t, "2", memoryOf(t, store)["after"], "it is as if it had not been written")
}

// What could not be sent is tried again, and nothing happens twice.
func TestFlushIsTriedAgain(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		client.DefaultHTTPBackoff = time.Millisecond
		room := hstest.Room(t, client)
		store := open(t, client, room, layout, roomkv.WithFlushEvery(20*time.Millisecond))
		next := client.Client.Transport
		if next == nil {
			next = http.DefaultTransport
		}
		var requests atomic.Int64
		client.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			switch n := requests.Add(1); {
			case req.Method == http.MethodPut && n%3 == 0: // it is done, and the answer is lost
				resp, err := next.RoundTrip(req)
				if err == nil {
					_ = resp.Body.Close()
				}
				return nil, errors.New("the answer was lost")
			case n%4 == 1:
				return nil, errors.New("the request was lost")
			}
			return next.RoundTrip(req)
		})}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 25 {
					assert.NoError(t, roomkv.Update(ctx, store, "counter", add(1)))
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
		all.Wait()
		require.NoError(t, store.Flush(ctx))
		client.Client = &http.Client{Transport: next}
		assert.Equal(t, "counter=100", whole(t, open(t, client, room, layout)))
		assert.Equal(t, "counter=100", whole(t, store))
	})
}

// Two processes count together.
func TestFlushOfTwoProcesses(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		var all sync.WaitGroup
		var stores []*roomkv.Store
		for range 3 {
			store := open(t, twin(t, client), room, layout, roomkv.WithFlushEvery(30*time.Millisecond))
			stores = append(stores, store)
			all.Go(func() {
				for range 40 {
					assert.NoError(t, roomkv.Update(t.Context(), store, "counter", add(1)))
					time.Sleep(3 * time.Millisecond)
				}
			})
		}
		all.Wait()
		for _, store := range stores {
			require.NoError(t, store.Close(t.Context()))
		}
		assert.Equal(t, "counter=120", whole(t, open(t, client, room, layout)))
	})
}

// A handler's store has what handlers before it have written.
func TestFlushInEventRoom(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newStore(t, roomkv.WithFlushEvery(time.Hour))
	count := store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
		assert.NoError(t, roomkv.Update(ctx, room, "seen", add(1)))
	})
	for range 5 {
		count(context.WithValue(t.Context(), mautrix.SyncTokenContextKey, "since"), &event.Event{RoomID: room})
	}
	assert.Equal(t, "seen=5", whole(t, store))
	require.NoError(t, store.Flush(t.Context()))
	assert.Equal(t, "seen=5", whole(t, open(t, client, id.RoomID(room))))
}

// What waits when a room is upgraded goes to the room that replaces it.
func TestFlushAfterARoomUpgrade(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		admin, room := administered(t, false, client)
		store := open(t, client, room, layout, roomkv.WithRoomUpgrades(), roomkv.WithFlushEvery(time.Hour))
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 1}))
		require.NoError(t, store.Flush(ctx))
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 2, "c": 1}))
		require.NoError(t, store.Delete(ctx, "b"))
		successor := upgradeRoom(t, admin, room, client)
		roomkv.PassTime(room, store)
		require.NoError(t, store.Flush(ctx))
		assert.Equal(t, "a=2 c=1", whole(t, store))
		assert.Equal(t, "a=2 c=1", whole(t, open(t, client, successor, layout)))
	})
}

// It goes to account data where the bot has no power.
func TestFlushToAccountData(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback(), roomkv.WithFlushEvery(time.Hour))
		for range 3 {
			require.NoError(t, roomkv.Update(ctx, store, "a", add(1)))
		}
		require.NoError(t, store.PutAll(ctx, map[string]any{"b": 1, "c": 1}))
		require.NoError(t, store.Flush(ctx))
		require.NoError(t, store.Delete(ctx, "b"))
		require.NoError(t, roomkv.Update(ctx, store, "a", add(1)))
		require.NoError(t, store.Flush(ctx))
		entry, err := store.Entry(ctx, "a")
		require.NoError(t, err)
		assert.Equal(t, roomkv.InAccountData, entry.Place)
		assert.Equal(t, "a=4 c=1", whole(t, store))
		p.level(t, 50)
		roomkv.PassTime(p.room, store)
		require.NoError(t, roomkv.Update(ctx, store, "a", add(1)))
		require.NoError(t, store.Close(ctx))
		assert.Equal(t, "a=5 c=1", whole(t, open(t, p.admin, p.room, layout)))
	})
}

// A watch tells what waits when it is sent.
func TestFlushAndWatch(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, _ := follow(t, client, room, roomkv.WithFlushEvery(time.Hour))
	told := watching(t, store, 1)
	for range 3 {
		require.NoError(t, roomkv.Update(t.Context(), store, "a", add(1)))
	}
	require.NoError(t, store.Flush(t.Context()))
	changes := told()
	require.Len(t, changes, 1)
	assert.Equal(t, "3", string(changes[0].New))
}
