package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
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

// powerless is a room of an admin's that a bot has joined, with power level 0.
type powerless struct {
	admin, bot *mautrix.Client
	room       id.RoomID
}

func newPowerless(t testing.TB, encrypted bool) powerless {
	t.Helper()
	p := powerless{admin: hstest.Client(t), bot: hstest.Client(t)}
	if encrypted {
		hstest.Crypto(t, p.bot)
		p.room = hstest.EncryptedRoom(t, p.admin, p.bot.UserID)
	} else {
		p.room = hstest.Room(t, p.admin, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{p.bot.UserID}})
	}
	_, err := p.bot.JoinRoomByID(t.Context(), p.room)
	require.NoError(t, err)
	return p
}

// level gives the bot a power level.
func (p powerless) level(t testing.TB, level int) {
	t.Helper()
	var levels event.PowerLevelsEventContent
	require.NoError(t, p.admin.StateEvent(t.Context(), p.room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(p.bot.UserID, level)
	_, err := p.admin.SendStateEvent(t.Context(), p.room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
}

// data is what the bot's account data has for the room, for a store with those options.
func (p powerless) data(t testing.TB, opts ...roomkv.Option) (names map[string]json.RawMessage) {
	t.Helper()
	err := p.bot.GetRoomAccountData(t.Context(), p.room, roomkv.AccountType(open(t, p.bot, p.room, opts...)), &names)
	if err != nil {
		require.ErrorIs(t, err, mautrix.MNotFound)
	}
	return names
}

var accountKinds = map[string][]roomkv.Option{
	"single":           nil,
	"perkey":           {roomkv.WithPerKeyState()},
	"encrypted single": {roomkv.WithSealedKeys([]byte("0123456789abcdef"))},
	"encrypted perkey": {roomkv.WithPerKeyState()},
	"sealed perkey":    {roomkv.WithPerKeyState(), roomkv.WithSealedKeys([]byte("0123456789abcdef"))},
}

// eachAccountKind tests the kinds of those names, or all.
func eachAccountKind(t *testing.T, test func(t *testing.T, p powerless, opts []roomkv.Option), names ...string) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(accountKinds))
	}
	for _, name := range names {
		opts := accountKinds[name]
		t.Run(name, func(t *testing.T) {
			encrypted := strings.Contains(name, "encrypted") || strings.Contains(name, "sealed")
			test(t, newPowerless(t, encrypted), append([]roomkv.Option{roomkv.WithAccountDataFallback()}, opts...))
		})
	}
}

// places is where each key is.
func places(t testing.TB, store *roomkv.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for entry, err := range store.All(t.Context()) {
		require.NoError(t, err)
		all[entry.Key] = entry.Place.String()
	}
	return all
}

func TestEverythingWorksInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "a", 0.5))
		require.NoError(t, store.PutAll(ctx, map[string]any{"b": "two", "c": 3, "": nil, "roomkv.x": true}))
		require.NoError(t, store.Create(ctx, "n", 1))
		require.ErrorIs(t, store.Create(ctx, "n", 2), roomkv.ErrExists)
		require.NoError(t, roomkv.Update(ctx, store, "n", increment))
		entry, err := store.Entry(ctx, "n")
		require.NoError(t, err)
		assert.Equal(t, roomkv.InAccountData, entry.Place)
		assert.Equal(t, "account data", entry.Place.String())
		assert.Equal(t, p.bot.UserID, entry.Sender)
		assert.WithinDuration(t, time.Now(), entry.Time, time.Minute)
		require.NoError(t, store.Put(ctx, "a", 0.75))
		require.NoError(t, store.CompareAndPut(ctx, "n", 7, entry.Revision), "other keys do not matter")
		require.ErrorIs(t, store.CompareAndPut(ctx, "n", 8, entry.Revision), roomkv.ErrConflict)
		var c int
		require.NoError(t, store.Pop(ctx, "c", &c))
		assert.Equal(t, 3, c)
		require.ErrorIs(t, store.Pop(ctx, "c", &c), roomkv.ErrNotFound)
		require.NoError(t, store.Delete(ctx, "b", "never"))
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"", "a", "n", "roomkv.x"}, keys)
		want := map[string]string{"": "null", "a": "0.75", "n": "7", "roomkv.x": "true"}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Empty(t, memoryState(t, p.admin, p.room))
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Get(ctx, "n", &c))
		assert.Equal(t, 7, c)
		assert.Equal(t, want, memoryOf(t, store), "a new process reads it")

		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "a", 1))
		want["a"] = "1"
		assert.Equal(t, want, memoryOf(t, store))
		for key, place := range places(t, store) {
			assert.Equal(t, "state", place, key)
		}
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		assert.Equal(t, want, memoryOf(t, store), "whose account data has not been emptied")
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)), "the state has it all")
		roomkv.PassTime(p.room)
		require.NoError(t, store.Delete(ctx, "n"))
		assert.Empty(t, p.data(t, opts...))
		delete(want, "n")
		assert.Equal(t, want, memoryOf(t, store))

		p.level(t, 0)
		require.NoError(t, store.Put(ctx, "a", 2))
		require.NoError(t, store.Delete(ctx, ""))
		require.NoError(t, store.Put(ctx, "n", 9))
		delete(want, "")
		want["a"], want["n"] = "2", "9"
		assert.Equal(t, want, memoryOf(t, store), "what is in account data hides what the state has")
		assert.Equal(t, map[string]string{"a": "account data", "n": "account data", "roomkv.x": "state"}, places(t, store))
		require.ErrorIs(t, store.Get(ctx, "", new(any)), roomkv.ErrNotFound)
		p.level(t, 50)
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "n", 10))
		want["n"] = "10"
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
	})
}

func TestStoresOfOneProcessShareAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		p := newPowerless(t, false)
		const each = 20
		var group sync.WaitGroup
		for range 3 {
			store := open(t, twin(t, p.bot), p.room, layout, roomkv.WithAccountDataFallback())
			for i := range each {
				group.Go(func() {
					assert.NoError(t, store.Put(t.Context(), fmt.Sprintf("%p %d", store, i), i))
					assert.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
				})
			}
		}
		group.Wait()
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		memory := memoryOf(t, store)
		assert.Len(t, memory, 3*each+1)
		assert.Equal(t, fmt.Sprint(3*each), memory["count"])
	})
}

func TestAccountDataRequests(t *testing.T) { // alone: a busy machine makes a store ask more often
	for _, c := range []struct {
		layout                            string
		following                         bool
		get, put, update, full, fullTwice int
	}{
		{"single", false, 1, 2, 2, 1, 2},
		{"single", true, 0, 2, 2, 0, 1},
		{"perkey", false, 1, 2, 2, 1, 1},
		{"perkey", true, 1, 2, 2, 0, 1},
	} {
		t.Run(fmt.Sprint(c.layout, c.following), func(t *testing.T) {
			ctx := t.Context()
			p := newPowerless(t, false)
			recorder := hstest.Record(p.bot)
			store := open(t, p.bot, p.room, layouts[c.layout], roomkv.WithAccountDataFallback())
			if c.following {
				require.NoError(t, store.Follow())
				syncing(t, p.bot)
			}
			require.NoError(t, store.Put(ctx, "k", 1))
			get := func() error { return store.Get(ctx, "k", new(int)) }
			if c.following {
				eventually(t, func() bool {
					return slices.ContainsFunc(recorder.Requests(), func(r hstest.Request) bool {
						return strings.HasSuffix(r.Path, "/sync") && strings.Contains(string(r.Response), "roomkv.account")
					})
				}, "the sync has told of all there is")
				eventually(t, func() bool {
					recorder.Reset()
					require.NoError(t, get())
					took := requests(recorder)
					time.Sleep(300 * time.Millisecond)
					return took == c.get && requests(recorder) == took
				}, "the follower, who has heard of power levels, asks no more")
			}
			count := func(what string, want int, do func() error) {
				recorder.Reset()
				require.NoError(t, do(), what)
				var made []string
				for _, r := range recorder.Requests() {
					made = append(made, r.Method+" "+r.Path)
				}
				n := counted(recorder)
				if c.following {
					n = requests(recorder)
				}
				assert.Equal(t, want, n, "%s: %q", what, made)
			}
			count("get", c.get, get)
			count("put", c.put, func() error { return store.Put(ctx, "k", 2) })
			count("update", c.update, func() error { return roomkv.Update(ctx, store, "k", increment) })
			count("the same value", c.put-1, func() error { return store.Put(ctx, "k", 3) })
			if !c.following { // else it has been moved by then
				p.level(t, 50)
				roomkv.PassTime(p.room)
				require.NoError(t, store.Put(ctx, "k", 4))
				require.NoError(t, get())
				count("get, in the state", c.full, get)
				count("put, in the state", c.fullTwice, func() error { return store.Put(ctx, "k", 5) })
			}
		})
	}
}

func TestWatchAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		require.NoError(t, open(t, p.admin, p.room, layout).PutAll(ctx, map[string]any{"state": 1, "both": 1}))
		store, _ := follow(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "before", 1))
		told := make(chan roomkv.Change, 100)
		go func() {
			for change, err := range store.Watch(ctx) {
				if err != nil {
					return
				}
				told <- change
			}
		}()
		next := func() string {
			for {
				select {
				case change := <-told:
					if change.Key != "probe" {
						return fmt.Sprintf("%s %s→%s %s", change.Key, change.Old, change.New, change.Place)
					}
				case <-time.After(5 * time.Second):
					return "nothing"
				}
			}
		}
		// The watch begins at some moment: probe until it tells.
		eventually(t, func() bool {
			require.NoError(t, store.Put(ctx, "probe", time.Now().UnixNano()))
			return len(told) > 0
		}, "the watch begins")
		require.NoError(t, store.Put(ctx, "both", 2))
		assert.Equal(t, "both 1→2 account data", next())
		require.NoError(t, store.Put(ctx, "before", 2))
		assert.Equal(t, "before 1→2 account data", next())
		require.NoError(t, store.Delete(ctx, "state", "probe"))
		assert.Equal(t, "state 1→ account data", next())
		p.level(t, 50) // the move changes nothing
		eventually(t, func() bool { return places(t, store)["both"] == "state" }, "moved")
		require.NoError(t, store.Put(ctx, "both", 3))
		assert.Equal(t, "both 2→3 state", next())
	})
}

func TestWatchInitialOfAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p := newPowerless(t, false)
		require.NoError(t, open(t, p.admin, p.room, layout).PutAll(ctx, map[string]any{"state": 1, "both": 1, "deleted": 1}))
		store, _ := follow(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.PutAll(ctx, map[string]any{"account": 1, "both": 2}))
		require.NoError(t, store.Delete(ctx, "deleted"))
		var told []string
		for change, err := range store.Watch(ctx, roomkv.WatchInitial()) {
			require.NoError(t, err, "after %v", told)
			if change.EndOfInitial {
				told = append(told, "end")
				require.NoError(t, store.Put(ctx, "both", 3))
				continue
			}
			told = append(told, fmt.Sprintf("%s %s→%s %s", change.Key, change.Old, change.New, change.Place))
			entry, err := store.Entry(ctx, change.Key)
			require.NoError(t, err)
			assert.Equal(t, entry.Revision, change.Revision, change.Key)
			assert.Equal(t, entry.Sender, change.Sender, change.Key)
			if change.Old != nil {
				break
			}
		}
		assert.Equal(t, []string{"account →1 account data", "both →2 account data", "state →1 state", "end", "both 2→3 account data"}, told)
	})
}

func TestAccountDataTooLarge(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	some := func(prefix string, n int) map[string]any {
		values := map[string]any{}
		for i := range n {
			values[fmt.Sprint(prefix, i)] = strings.Repeat("x", 200)
		}
		return values
	}
	store := open(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	large := strings.Repeat("y", 45_000)
	require.NoError(t, store.PutAll(ctx, some("a", 120)))
	require.NoError(t, store.Put(ctx, "large", large), "it goes to the media repository")
	got, err := roomkv.Get[string](ctx, store, "large")
	require.NoError(t, err)
	assert.Equal(t, large, got)
	err = store.PutAll(ctx, some("b", 200))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.NotContains(t, err.Error(), "xxx")
	require.NoError(t, store.Put(ctx, "a0", 1))
	// The state gets so full that it does not fit there; it stays where it is, and goes on.
	require.NoError(t, open(t, p.admin, p.room).PutAll(ctx, some("c", 200)))
	p.level(t, 50)
	roomkv.PassTime(p.room)
	require.NoError(t, store.Put(ctx, "a0", 2))
	assert.Len(t, memoryOf(t, store), 1+120+200)
	where := places(t, store)
	assert.Equal(t, "account data state", where["a0"]+" "+where["c0"])
}

func TestNotJoinedFallsBackToNothing(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	store := open(t, hstest.Client(t), p.room, roomkv.WithAccountDataFallback())
	require.ErrorIs(t, store.Put(ctx, "k", 1), roomkv.ErrNotJoined)
	require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotJoined)
}

func TestEncryptedAccountData(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	hstest.Crypto(t, p.bot)
	syncing(t, p.bot)
	fallback := roomkv.WithAccountDataFallback()
	store := open(t, p.bot, p.room, fallback, roomkv.WithRedaction())
	require.NoError(t, store.Put(ctx, "clear", "the clear value"))
	_, err := p.admin.SendStateEvent(ctx, p.room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
	require.NoError(t, err)
	require.NoError(t, store.Put(ctx, "k", "the first value"))
	entry, err := store.Entry(ctx, "k")
	require.NoError(t, err)
	assert.True(t, entry.Encrypted)
	require.NoError(t, store.Put(ctx, "k", "the second value"))
	assert.NotContains(t, string(p.data(t)["k"]), "value")
	changed, err := store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	assert.NotContains(t, string(p.data(t)["clear"]), "value")
	eventually(t, func() bool {
		left := 0
		for _, redacted := range encryptedEvents(t, p.bot, p.room) {
			if !redacted {
				left++
			}
		}
		return left == 2
	}, "the overwritten one is redacted")
	want := map[string]string{"clear": `"the clear value"`, "k": `"the second value"`}
	assert.Equal(t, want, memoryOf(t, store))
	p.level(t, 50)
	roomkv.PassTime(p.room)
	require.NoError(t, store.Delete(ctx, "nothing"))
	assert.Empty(t, clearNames(t, p.bot, p.room))
	assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room)))
}

// Copy and Import take what reads see, from account data and into it.
func TestCopyAndImportInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		p.level(t, 50)
		require.NoError(t, store.PutAll(ctx, map[string]any{"stale": 1, "deleted": 1, "state": 1}))
		p.level(t, 0)
		require.NoError(t, store.PutAll(ctx, map[string]any{"stale": 2, "away": 3}))
		require.NoError(t, store.Delete(ctx, "deleted"))
		want := map[string]string{"stale": "2", "state": "1", "away": "3"}
		require.Equal(t, want, memoryOf(t, store))
		require.Equal(t, "account data state", places(t, store)["stale"]+" "+places(t, store)["state"])
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)

		there := open(t, p.bot, hstest.Room(t, p.bot))
		copied, err := roomkv.Copy(ctx, there, store, roomkv.CopyRedactSource())
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		assert.ErrorContains(t, err, "power level 50")
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 3}, copied)
		assert.Equal(t, want, memoryOf(t, there))
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts...)), "nothing was redacted")
		copied, err = roomkv.Copy(ctx, there, store)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 3, Equal: 3}, copied)

		require.NoError(t, there.PutAll(ctx, map[string]any{"new": 4, "deleted": 5, "away": "other"}))
		copied, err = roomkv.Copy(ctx, store, there)
		require.ErrorIs(t, err, roomkv.ErrExists)
		assert.ErrorContains(t, err, `"away"`)
		assert.Equal(t, roomkv.Copied{Total: 5, Written: 2, Equal: 2, Kept: 1}, copied)
		copied, err = roomkv.Copy(ctx, store, there, roomkv.CopyOverwrite())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 5, Written: 1, Equal: 4}, copied)
		recorder := hstest.Record(p.bot)
		copied, err = roomkv.Copy(ctx, store, there)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 5, Equal: 5}, copied)
		assert.Zero(t, writes(recorder), "a second one writes nothing")
		sameMemory(t, memoryOf(t, there), store)
		assert.Equal(t, "account data", places(t, store)["new"])

		require.NoError(t, there.PutAll(ctx, various(10))) // more than are read one by one
		require.NoError(t, there.Delete(ctx, "state", "new"))
		var file bytes.Buffer
		_, err = there.Export(ctx, &file)
		require.NoError(t, err)
		want = memoryOf(t, there)
		imported, err := store.Import(ctx, bytes.NewReader(file.Bytes()), roomkv.ImportReplace())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: len(want), Written: len(want) - 3, Equal: 3, Removed: 2}, imported)
		imported, err = store.Import(ctx, bytes.NewReader(file.Bytes()))
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: len(want), Equal: len(want)}, imported)
		sameMemory(t, want, store)
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		sameMemory(t, want, store)

		// What it can move into the state is redacted there.
		p.level(t, 50)
		roomkv.PassTime(p.room)
		copied, err = roomkv.Copy(ctx, there, store, roomkv.CopyRedactSource())
		require.NoError(t, err)
		assert.Positive(t, copied.Redacted)
		assert.Empty(t, p.data(t, opts...))
		eventually(t, func() bool { return len(memoryOf(t, open(t, p.bot, p.room, opts...))) == 0 }, "the source was redacted")
		sameMemory(t, want, there)
	})
}

// What a copy to account data reports as written is there, whatever this process believes.
func TestCopyToAccountDataReadsBack(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		src := open(t, p.bot, hstest.Room(t, p.bot))
		require.NoError(t, src.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
		dst := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		broken := func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/account_data/") {
				return &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{}`), Request: req}, nil
			}
			return http.DefaultTransport.RoundTrip(req)
		}
		breaker := breakable(p.bot)
		breaker.broken.Store(&broken)
		copied, err := roomkv.Copy(ctx, dst, src)
		require.ErrorIs(t, err, roomkv.ErrConflict)
		assert.Equal(t, roomkv.Copied{Total: 2}, copied)
		breaker.broken.Store(nil)
		copied, err = roomkv.Copy(ctx, dst, src)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 2, Written: 2}, copied)
	})
}

// The state beneath account data can have the dict that is copied to, which is no key of the source's.
func TestCopyFromAccountDataOverADict(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	src := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback())
	require.NoError(t, src.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	dst := open(t, p.admin, p.room, roomkv.WithSingleStateKey("dict"))
	copied, err := roomkv.Copy(ctx, dst, src)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 2}, copied)
	copied, err = roomkv.Copy(ctx, dst, src)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Equal: 2}, copied)
}

// Account data has no history, and so nothing in it is undone.
func TestRestoreLeavesAccountDataAlone(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "a", 1))
		entry, err := store.Entry(ctx, "a")
		require.NoError(t, err)
		before, err := store.At(ctx, roomkv.AtRevision(entry.Revision))
		require.NoError(t, err)
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 2, "b": 2}))
		refused := func(snapshot *roomkv.Snapshot, what string) {
			t.Helper()
			memory := memoryOf(t, store)
			changed, err := store.Restore(ctx, snapshot)
			require.ErrorIs(t, err, roomkv.ErrForbidden, what)
			assert.ErrorContains(t, err, "power level 50")
			assert.Zero(t, changed)
			assert.Equal(t, memory, memoryOf(t, store))
		}
		p.level(t, 0)
		refused(before, "where the store does not know yet that it has lost the power")
		assert.Empty(t, p.data(t, opts...))
		require.NoError(t, store.PutAll(ctx, map[string]any{"b": 3, "c": 3}))
		refused(before, "from before")
		now, err := store.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
		require.NoError(t, err)
		refused(now, "from now")
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		refused(now, "in a new process")

		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "d", 4))
		entry, err = store.Entry(ctx, "d")
		require.NoError(t, err)
		changed, err := store.Restore(ctx, before)
		require.NoError(t, err)
		assert.Equal(t, 4, changed)
		assert.Equal(t, map[string]string{"a": "1"}, memoryOf(t, store))
		moved, err := store.At(ctx, roomkv.AtRevision(entry.Revision))
		require.NoError(t, err)
		_, err = store.Restore(ctx, moved)
		require.NoError(t, err)
		want := map[string]string{"a": "2", "b": "3", "c": "3", "d": "4"}
		assert.Equal(t, want, memoryOf(t, store), "what has moved has a history")
		roomkv.PassTime(p.room)
		require.NoError(t, store.Delete(ctx, "nothing"))
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
	})
}
