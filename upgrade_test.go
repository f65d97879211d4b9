package roomkv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
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
	"github.com/roomkv/roomkv/internal/wire"
)

// upgradeRoom has the homeserver replace the room, as its admin asks, and invites the others there.
func upgradeRoom(t testing.TB, admin *mautrix.Client, room id.RoomID, invite ...*mautrix.Client) id.RoomID {
	t.Helper()
	var resp struct {
		Replacement id.RoomID `json:"replacement_room"`
	}
	_, err := admin.MakeRequest(t.Context(), http.MethodPost, admin.BuildClientURL("v3", "rooms", room, "upgrade"), map[string]string{"new_version": "11"}, &resp)
	require.NoError(t, err)
	for _, client := range invite {
		_, err := admin.InviteUser(t.Context(), resp.Replacement, &mautrix.ReqInviteUser{UserID: client.UserID})
		require.NoError(t, err)
	}
	return resp.Replacement
}

// administered is a room that somebody else has made for the bots, who have the power to write there.
func administered(t testing.TB, encrypted bool, bots ...*mautrix.Client) (admin *mautrix.Client, room id.RoomID) {
	t.Helper()
	admin = hstest.Client(t)
	return admin, administeredBy(t, admin, encrypted, bots...)
}

func administeredBy(t testing.TB, admin *mautrix.Client, encrypted bool, bots ...*mautrix.Client) (room id.RoomID) {
	t.Helper()
	create := &mautrix.ReqCreateRoom{Preset: "private_chat", PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{admin.UserID: 100}}}
	if encrypted {
		create.InitialState = []*event.Event{{
			Type:    event.StateEncryption,
			Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}}
	}
	for _, bot := range bots {
		create.Invite = append(create.Invite, bot.UserID)
		create.PowerLevelOverride.Users[bot.UserID] = 50
	}
	room = hstest.Room(t, admin, create)
	for _, bot := range bots {
		_, err := bot.JoinRoomByID(t.Context(), room)
		require.NoError(t, err)
	}
	return room
}

// bot is a client that can encrypt where the room is encrypted, and syncs then.
func bot(t testing.TB, encrypted bool) *mautrix.Client {
	client := hstest.Client(t)
	if encrypted {
		hstest.Crypto(t, client)
	}
	return client
}

// eachUpgraded runs a test in rooms that are encrypted and not, with sealed keys and without, in all layouts. By default it takes
// each of these once.
func eachUpgraded(t *testing.T, test func(t *testing.T, encrypted bool, opts ...roomkv.Option)) {
	kinds := map[string][]roomkv.Option{"plain": nil, "encrypted": nil, "sealed": {roomkv.WithSealedKeys(secret)}}
	names := []string{"perkey/plain", "perkey/sealed", "single/encrypted", "shards/sealed"}
	if *rounds > 10 {
		names = append(names, "perkey/encrypted", "single/plain", "single/sealed", "shards/plain", "shards/encrypted")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			layout, kind, _ := strings.Cut(name, "/")
			test(t, kind != "plain", append(slices.Clone(kinds[kind]), layouts[layout], roomkv.WithRoomUpgrades())...)
		})
	}
}

func TestRoomUpgrade(t *testing.T) {
	hstest.Parallel(t)
	eachUpgraded(t, func(t *testing.T, encrypted bool, opts ...roomkv.Option) {
		ctx := t.Context()
		one, two := bot(t, encrypted), bot(t, encrypted)
		admin, room := administered(t, encrypted, one, two)
		if encrypted {
			syncing(t, one)
			syncing(t, two)
		}
		first, second := open(t, one, room, opts...), open(t, two, room, opts...)
		values := map[string]any{"a": 1, "float": 1.5, `quote"`: "ü", "@user:x": []int{1}, "gone": 0, strings.Repeat("long", 80): true}
		require.NoError(t, first.PutAll(ctx, values))
		require.NoError(t, second.Put(ctx, "b", "second's"))
		require.NoError(t, second.Delete(ctx, "gone"))
		want := memoryOf(t, second)
		assert.Len(t, want, 6)

		successor := upgradeRoom(t, admin, room, one, two)
		time.Sleep(20 * time.Millisecond)
		require.NoError(t, first.Put(ctx, "a", 2))
		want["a"] = "2"
		assert.Equal(t, want, memoryOf(t, first))
		require.NoError(t, second.Delete(ctx, "b"))
		delete(want, "b")
		assert.Equal(t, want, memoryOf(t, second))
		assert.Equal(t, want, memoryOf(t, first))

		for name, at := range map[string]id.RoomID{"old": room, "new": successor} {
			for who, client := range map[string]*mautrix.Client{"first": one, "second": two} {
				assert.Equal(t, want, memoryOf(t, open(t, client, at, opts...)), "%s %s", name, who)
			}
		}
		plain := []roomkv.Option{opts[len(opts)-2]}
		if len(opts) > 2 {
			plain = append(plain, opts[0])
		}
		assert.Equal(t, want, memoryOf(t, open(t, two, successor, plain...)), "without the option, what is in the new room")
		if encrypted {
			assert.Empty(t, clearNames(t, one, successor))
		}
		scoped, err := second.WithRoom(ctx, room)
		require.NoError(t, err)
		require.NoError(t, scoped.Put(ctx, "scoped", 1))
		assert.Equal(t, "1", memoryOf(t, first)["scoped"])
	})
}

// upgraded counts the acknowledged writes of bots while their room is upgraded.
func upgraded(t *testing.T, encrypted, following bool, opts ...roomkv.Option) {
	ctx := t.Context()
	one, two := bot(t, encrypted), bot(t, encrypted)
	admin, room := administered(t, encrypted, one, two)
	var stores []*roomkv.Store
	for _, client := range []*mautrix.Client{one, two} {
		store := open(t, client, room, opts...)
		if following {
			require.NoError(t, store.Follow())
		}
		if encrypted || following {
			syncing(t, client)
		}
		stores = append(stores, store)
	}
	require.NoError(t, stores[0].Put(ctx, "deleted", 1))
	require.NoError(t, stores[0].Put(ctx, "counter", 0))
	for _, store := range stores {
		require.NoError(t, store.Put(ctx, "warm", 1))
		_, err := store.Keys(ctx)
		require.NoError(t, err)
	}
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var updates, refused atomic.Int64
	var puts [2]atomic.Int64 // by bot
	stop := make(chan struct{})
	var group sync.WaitGroup
	for n, store := range stores {
		for worker := range 2 {
			group.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					var err error
					key, value := fmt.Sprintf("%d/%d/%d", n, worker, i%12), fmt.Sprint(i)
					if i%4 == 3 {
						if err = roomkv.Update(ctx, store, "counter", increment); err == nil {
							updates.Add(1)
						}
					} else if err = store.Put(ctx, key, i); err == nil {
						mu.Lock()
						acknowledged[key] = value
						mu.Unlock()
						puts[n].Add(1)
					} else {
						mu.Lock()
						delete(acknowledged, key) // the value before or this one
						mu.Unlock()
					}
					if err != nil {
						refused.Add(1)
						if !assert.ErrorIs(t, err, roomkv.ErrRoomUpgraded) {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}
			})
		}
	}
	more := func(than [2]int64, n int64) func() bool {
		return func() bool { return puts[0].Load() >= than[0]+n && puts[1].Load() >= than[1]+n }
	}
	counts := func() [2]int64 { return [2]int64{puts[0].Load(), puts[1].Load()} }
	eventually(t, more(counts(), 3), "puts before the upgrade")
	before := counts()
	successor := upgradeRoom(t, admin, room, one, two)
	after := counts()
	for deadline := time.Now().Add(30 * time.Second); !more(after, 10)() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	require.True(t, more(after, 1)(), "both go on")
	require.NoError(t, stores[0].Delete(ctx, "deleted"))
	close(stop)
	group.Wait()
	fresh := open(t, one, successor, opts...)
	current := memoryOf(t, fresh)
	for i, store := range append(stores, fresh) {
		memory := memoryOf(t, store)
		if following && i < len(stores) { // a store that follows has what others wrote when the sync brings it
			eventually(t, func() bool {
				memory = memoryOf(t, store)
				late := slices.ContainsFunc(slices.Collect(maps.Keys(acknowledged)), func(key string) bool { return memory[key] != acknowledged[key] })
				return !late && memory["counter"] == current["counter"]
			}, "what all have written")
		}
		for key, value := range acknowledged {
			assert.Equal(t, value, memory[key], "%s, store %d", key, i)
		}
		var counter int64
		require.NoError(t, json.Unmarshal([]byte(memory["counter"]), &counter))
		assert.GreaterOrEqual(t, counter, updates.Load())
		assert.NotContains(t, memory, "deleted")
	}
	var counter int64
	require.NoError(t, stores[0].Get(ctx, "counter", &counter))
	end := counts()
	t.Logf("%d puts before, %d during, %d after; %d updates, counter %d; %d refused", before, [2]int64{after[0] - before[0], after[1] - before[1]},
		[2]int64{end[0] - after[0], end[1] - after[1]}, updates.Load(), counter, refused.Load())
	if encrypted {
		assert.Empty(t, clearNames(t, one, successor))
	}
}

func TestRoomUpgradeUnderLoad(t *testing.T) {
	hstest.Parallel(t)
	eachUpgraded(t, func(t *testing.T, encrypted bool, opts ...roomkv.Option) {
		for range max(1, *rounds/10) {
			upgraded(t, encrypted, true, opts...)
		}
	})
	t.Run("not following", func(t *testing.T) {
		upgraded(t, false, false, layouts["single"], roomkv.WithRoomUpgrades())
	})
}

// A bot writes on what it knew before another bot's write, which was acknowledged, and is gone before it has merged the two.
func TestRoomUpgradeBeforeAMerge(t *testing.T) {
	hstest.Parallel(t)
	type change func(ctx context.Context, store *roomkv.Store) error
	add := func(n int) change {
		return func(ctx context.Context, store *roomkv.Store) error {
			return roomkv.Update(ctx, store, "counter", func(count int, _ bool) (int, error) { return count + n, nil })
		}
	}
	pop := func(ctx context.Context, store *roomkv.Store) error { return store.Pop(ctx, "counter", new(int)) }
	for name, test := range map[string]struct {
		before int // 0 where there is nothing
		lost   change
		others int // keys that are written in between
	}{
		"update":                  {1, add(1), 0},
		"pop":                     {1, pop, 0},
		"first":                   {0, add(1), 0},
		"update long after":       {1, add(1), 40},
		"first update long after": {0, add(1), 40},
	} {
		t.Run(name, func(t *testing.T) {
			for _, layout := range []roomkv.Option{layouts["perkey"], layouts["shards"], layouts["single"]} {
				ctx := t.Context()
				one, two := hstest.Client(t), hstest.Client(t)
				admin, room := administered(t, false, one, two)
				store := open(t, one, room, layout, roomkv.WithRoomUpgrades())
				require.NoError(t, store.Put(ctx, "other", "kept"))
				if test.before > 0 {
					require.NoError(t, store.Put(ctx, "counter", test.before))
				}
				use, next := through(two)
				dead := errors.New("dead")
				var sent atomic.Bool
				use(func(req *http.Request) (*http.Response, error) {
					if sent.Load() {
						return nil, dead
					}
					if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, memoryPath) {
						return next.RoundTrip(req)
					}
					assert.NoError(t, add(10)(ctx, store))
					others := map[string]any{}
					for i := range test.others {
						others[fmt.Sprint("other ", i)] = i
					}
					assert.NoError(t, store.PutAll(ctx, others))
					defer sent.Store(true)
					return next.RoundTrip(req)
				})
				require.ErrorIs(t, test.lost(mautrix.WithMaxRetries(ctx, 0), open(t, two, room, layout)), dead)
				require.True(t, sent.Load())

				upgradeRoom(t, admin, room, one, two)
				later := open(t, again(t, one), room, layout, roomkv.WithRoomUpgrades()) // knows nothing but what it reads
				require.NoError(t, later.Put(ctx, "new", true))
				memory := memoryOf(t, later)
				assert.Equal(t, fmt.Sprint(test.before+10), memory["counter"])
				assert.Equal(t, `"kept"`, memory["other"])
				assert.Len(t, memory, 3+test.others)
			}
		})
	}
}

// An event of another memory, which says what it was made from and is none of a key's, holds up nothing.
func TestRoomUpgradeBesideAnotherMemory(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	one := hstest.Client(t)
	admin, room := administered(t, false, one)
	store := open(t, one, room, roomkv.WithPerKeyState(), roomkv.WithRoomUpgrades())
	require.NoError(t, store.Put(ctx, "k", 1))
	beside := open(t, one, room, roomkv.WithSingleStateKey(one.UserID.String()))
	for i := range 2 {
		require.NoError(t, beside.Put(ctx, "beside", i))
	}
	upgradeRoom(t, admin, room, one)
	require.NoError(t, store.Put(ctx, "new", true))
	require.NoError(t, store.Get(ctx, "k", new(int)))
}

// Without the option a store stays where it is: it reads on, and writes nothing to a room that nobody looks into any more.
func TestUpgradedRoomIsNotWritten(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		admin, room := administered(t, false, client)
		store := open(t, client, room, layout)
		require.NoError(t, store.Put(ctx, "k", 1))
		successor := upgradeRoom(t, admin, room)
		store = open(t, client, room, layout)
		for name, write := range map[string]func() error{
			"Put":    func() error { return store.Put(ctx, "k", 2) },
			"Delete": func() error { return store.Delete(ctx, "k") },
			"Create": func() error { return store.Create(ctx, "new", 2) },
			"Update": func() error { return roomkv.Update(ctx, store, "k", increment) },
		} {
			err := write()
			require.ErrorIs(t, err, roomkv.ErrRoomUpgraded, name)
			assert.ErrorContains(t, err, successor.String(), name)
		}
		assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, store))
	})
}

// A tombstone can name any room, but the store goes to none that does not name the old one as its predecessor, nor to one that
// is not encrypted where the old one is, nor where it is not let in.
func TestTombstoneThatLies(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	for name, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			client := bot(t, encrypted)
			admin, room := administered(t, encrypted, client)
			if encrypted {
				syncing(t, client)
			}
			before := open(t, client, room)
			require.NoError(t, before.Put(ctx, "k", 1))
			lie := func(successor id.RoomID) {
				bury(t, admin, room, successor)
				store := open(t, client, room, roomkv.WithRoomUpgrades())
				err := store.Put(ctx, "k", 2)
				require.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
				assert.ErrorContains(t, err, successor.String())
				assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, store), "reads go on")
			}
			unrelated := hstest.Room(t, admin, &mautrix.ReqCreateRoom{Preset: "public_chat"})
			lie(unrelated)
			joined, err := client.JoinedRooms(ctx)
			require.NoError(t, err)
			assert.NotContains(t, joined.JoinedRooms, unrelated, "the store has left it again")
			lie(hstest.Room(t, admin)) // without an invitation
			if encrypted {
				clear := hstest.Room(t, admin, &mautrix.ReqCreateRoom{
					Preset:             "public_chat",
					CreationContent:    map[string]any{"predecessor": map[string]any{"room_id": room, "event_id": "$none"}},
					PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{admin.UserID: 100, client.UserID: 50}},
				})
				lie(clear)
				assert.Empty(t, memoryState(t, admin, clear), "nothing in the clear")
			}
		})
	}
}

// A room that was upgraded several times is found from each of its predecessors.
func TestUpgradesInARow(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	admin, first := administered(t, false, client)
	require.NoError(t, open(t, client, first).Put(ctx, "k", 1))
	rooms := []id.RoomID{first}
	for range 3 {
		rooms = append(rooms, upgradeRoom(t, admin, rooms[len(rooms)-1], client))
	}
	for i, room := range rooms {
		store := open(t, client, room, roomkv.WithRoomUpgrades())
		require.NoError(t, roomkv.Update(ctx, store, "k", increment))
		assert.Equal(t, map[string]string{"k": fmt.Sprint(2 + i)}, memoryOf(t, open(t, client, rooms[len(rooms)-1])))
	}
}

// What one bot has moved, and somebody has changed or deleted since, stays so while another bot is in the middle of the same move.
func TestRoomUpgradeByTwoAtOnce(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		one, two := hstest.Client(t), hstest.Client(t)
		admin, room := administered(t, false, one, two)
		values := map[string]any{}
		for _, key := range []string{"kept", "changed", "deleted"} {
			values[key] = strings.Repeat(key, 100)
		}
		first, second := open(t, one, room, layout, roomkv.WithRoomUpgrades()), open(t, two, room, layout, roomkv.WithRoomUpgrades())
		require.NoError(t, first.PutAll(ctx, values))
		successor := upgradeRoom(t, admin, room, one, two)
		use, next := through(one)
		var moved sync.Once
		use(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, successor.String()) {
				moved.Do(func() {
					assert.NoError(t, second.Put(ctx, "changed", "new"))
					assert.NoError(t, second.Delete(ctx, "deleted"))
				})
			}
			return next.RoundTrip(req)
		})
		eventually(t, func() bool { return first.Put(ctx, "first", 1) == nil }, "it has joined")
		want := map[string]string{"kept": fmt.Sprintf("%q", values["kept"]), "changed": `"new"`, "first": "1"}
		assert.Equal(t, want, memoryOf(t, open(t, two, successor, layout)))
	})
}

// Two rooms of a hostile homeserver can each name the other as its replacement and as its predecessor.
func TestRoomsThatNameEachOther(t *testing.T) {
	hstest.Parallel(t)
	for name, fails := range map[string]bool{"": false, "one cannot be read at first": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(mautrix.WithMaxRetries(t.Context(), 0), 20*time.Second)
			defer cancel()
			client := hstest.Client(t)
			admin, first := administered(t, false, client)
			second := successorOf(t, admin, first, client.UserID)
			_, err := client.JoinRoomByID(ctx, second)
			require.NoError(t, err)
			bury(t, admin, first, second)
			bury(t, admin, second, first)
			use, next := through(client)
			var failed atomic.Bool
			use(func(req *http.Request) (*http.Response, error) {
				if !strings.Contains(req.URL.Path, "/state/m.room.create") {
					return next.RoundTrip(req)
				}
				answer := func(status int, body string) (*http.Response, error) {
					return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req, Body: readCloser(body)}, nil
				}
				if strings.Contains(req.URL.Path, second.String()) {
					if fails && failed.CompareAndSwap(false, true) {
						return answer(http.StatusInternalServerError, `{"errcode": "M_UNKNOWN"}`)
					}
					return next.RoundTrip(req)
				}
				return answer(http.StatusOK, fmt.Sprintf(`{"type": "m.room.create", "state_key": "", "event_id": "$create", "sender": %q, "origin_server_ts": 1,
					"content": {"room_version": "11", "predecessor": {"room_id": %q, "event_id": "$none"}}}`, admin.UserID, second))
			})
			store := open(t, client, first, roomkv.WithRoomUpgrades())
			require.ErrorIs(t, store.Put(ctx, "k", 1), roomkv.ErrRoomUpgraded)
		})
	}
}

// A write that is stored in the old room when the memory has been moved from there is made again in the new one.
func TestWriteAfterTheMove(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client, rival := hstest.Client(t), hstest.Client(t)
		admin, room := administered(t, false, client, rival)
		store := open(t, client, room, layout, roomkv.WithRoomUpgrades())
		require.NoError(t, store.Put(ctx, "k", 1))
		var successor id.RoomID
		interrupt(client, func(n int) {
			if n == 0 {
				successor = upgradeRoom(t, admin, room, client, rival)
				assert.NoError(t, open(t, rival, room, layout, roomkv.WithRoomUpgrades()).Put(ctx, "rival", 1))
			}
		}, nil)
		require.NoError(t, store.Put(ctx, "k", 2))
		assert.Equal(t, map[string]string{"k": "2", "rival": "1"}, memoryOf(t, open(t, rival, successor, layout)))
	})
}

// successorOf is a room that somebody makes as a replacement by hand, before there is a tombstone.
func successorOf(t testing.TB, client *mautrix.Client, room id.RoomID, invite ...id.UserID) id.RoomID {
	t.Helper()
	create := &mautrix.ReqCreateRoom{
		Preset:             "private_chat",
		Invite:             invite,
		CreationContent:    map[string]any{"predecessor": map[string]any{"room_id": room, "event_id": "$none"}},
		PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{client.UserID: 100}},
	}
	for _, user := range invite {
		create.PowerLevelOverride.Users[user] = 50
	}
	return hstest.Room(t, client, create)
}

func bury(t testing.TB, client *mautrix.Client, room, replacement id.RoomID) id.EventID {
	t.Helper()
	sent, err := client.SendStateEvent(t.Context(), room, event.StateTombstone, "", &event.TombstoneEventContent{ReplacementRoom: replacement})
	require.NoError(t, err)
	return sent.EventID
}

// What a bot that upgrades its own room has written to the new one before the tombstone is not what the homeserver has copied.
func TestRoomUpgradeByHand(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		require.NoError(t, open(t, client, room, layout).PutAll(ctx, map[string]any{"k": "old", "old": 1}))
		successor := successorOf(t, client, room)
		store := open(t, client, successor, layout, roomkv.WithRoomUpgrades())
		require.NoError(t, store.PutAll(ctx, map[string]any{"k": "new", "new": 2}))
		bury(t, client, room, successor)
		want := map[string]string{"k": `"new"`, "old": "1", "new": "2"}
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout, roomkv.WithRoomUpgrades())))
		assert.Equal(t, want, memoryOf(t, open(t, client, successor, layout)))
	})
}

// Where nothing has to be moved that is noted all the same, and what is deleted then does not come back.
func TestRoomUpgradeWithNothingToMove(t *testing.T) {
	hstest.Parallel(t)
	for name, byHand := range map[string]bool{"copied": false, "written": true} {
		t.Run(name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, layout roomkv.Option) {
				ctx := t.Context()
				client := hstest.Client(t)
				admin, room := administered(t, false, client)
				require.NoError(t, open(t, client, room, layout).Put(ctx, "k", 1))
				var successor id.RoomID
				if byHand {
					successor = successorOf(t, admin, room, client.UserID)
					_, err := client.JoinRoomByID(ctx, successor)
					require.NoError(t, err)
					require.NoError(t, open(t, client, successor, layout).Put(ctx, "k", 2))
					bury(t, admin, room, successor)
				} else {
					successor = upgradeRoom(t, admin, room, client)
				}
				store := open(t, client, room, layout, roomkv.WithRoomUpgrades())
				eventually(t, func() bool { _, err := store.Keys(ctx); return err == nil && markIn(t, admin, successor) != "" }, "it is noted")
				require.NoError(t, open(t, client, successor, layout).Delete(ctx, "k"))
				assert.Empty(t, memoryOf(t, open(t, client, room, layout, roomkv.WithRoomUpgrades())))
			})
		})
	}
}

// A room that is no replacement is joined and left once, however often the memory is read and written. The next tombstone counts.
func TestTombstoneThatLiesIsBelievedOnce(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	admin, room := administered(t, false, client)
	require.NoError(t, open(t, client, room).Put(ctx, "k", 1))
	unrelated := hstest.Room(t, admin, &mautrix.ReqCreateRoom{Preset: "public_chat"})
	bury(t, admin, room, unrelated)
	recorder := hstest.Record(client)
	store, _ := follow(t, client, room, roomkv.WithRoomUpgrades())
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		err := store.Put(ctx, "k", 2)
		require.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
		require.ErrorContains(t, err, "does not name "+room.String())
		require.Equal(t, map[string]string{"k": "1"}, memoryOf(t, store))
	}
	joins, leaves := 0, 0
	for _, request := range recorder.Requests() {
		if strings.Contains(request.Path, "/join/") {
			joins++
		} else if strings.HasSuffix(request.Path, "/leave") {
			leaves++
		}
	}
	assert.Equal(t, []int{1, 1}, []int{joins, leaves})

	successor := successorOf(t, admin, room, client.UserID)
	bury(t, admin, room, successor)
	eventually(t, func() bool { return store.Put(ctx, "k", 2) == nil }, "the next tombstone")
	assert.Equal(t, map[string]string{"k": "2"}, memoryOf(t, open(t, client, successor)))
}

// answering has the homeserver answer requests for which it is true with an error, between begin and stop. It is called before the client makes
// requests in another goroutine, as its sync is.
func answering(client *mautrix.Client, status int, is func(*http.Request) bool) (begin, stop func()) {
	use, next := through(client)
	begin = func() {
		use(func(req *http.Request) (*http.Response, error) {
			if !is(req) {
				return next.RoundTrip(req)
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode": "M_UNKNOWN", "error": "from a test"}`))}, nil
		})
	}
	return begin, func() { use(next.RoundTrip) }
}

func isEvent(req *http.Request) bool { return strings.Contains(req.URL.Path, "/event/") }

// What the homeserver does not give at the moment holds up the move, but for an attachment, without which the rest is moved. The next
// process brings that.
func TestRoomUpgradeWhileAValueIsNotGiven(t *testing.T) {
	hstest.Parallel(t)
	for name, is := range map[string]func(*http.Request) bool{"event": isEvent, "attachment": isDownload} {
		for _, layout := range []string{"single", "shards", "perkey"} {
			opt := layouts[layout]
			t.Run(name+"/"+layout, func(t *testing.T) {
				ctx := mautrix.WithMaxRetries(t.Context(), 0)
				client := bot(t, true)
				admin, room := administered(t, true, client)
				begin, stop := answering(client, http.StatusInternalServerError, is)
				syncing(t, client)
				want := map[string]any{"k": "precious", "large": text(60_000, 0)}
				require.NoError(t, open(t, client, room, opt).PutAll(ctx, want))
				successor := upgradeRoom(t, admin, room, client)
				begin()
				store := open(t, client, room, opt, roomkv.WithRoomUpgrades())
				if name == "attachment" {
					require.NoError(t, store.Put(ctx, "other", 1))
					require.NoError(t, store.Get(ctx, "k", new(string)))
					require.True(t, isLeft(store.Get(ctx, "large", new(string))))
				} else {
					for range 2 {
						require.ErrorIs(t, store.Put(ctx, "other", 1), roomkv.ErrRoomUpgraded)
						roomkv.PassTime(room, store)
					}
					keys, err := store.Keys(ctx)
					require.NoError(t, err, "reads go on")
					assert.Equal(t, []string{"k", "large"}, keys)
				}
				stop()
				if name == "attachment" {
					store = open(t, client, room, opt, roomkv.WithRoomUpgrades())
				}
				eventually(t, func() bool { return store.Put(ctx, "other", 1) == nil }, "the homeserver gives it again")
				memory := memoryOf(t, open(t, client, successor, opt))
				assert.Len(t, memory, 3)
				for key, value := range want {
					assert.Equal(t, fmt.Sprintf("%q", value), memory[key])
				}
			})
		}
	}
}

// newcomer is a bot that joins a room later than others, and has none of the keys.
func newcomer(t testing.TB, admin *mautrix.Client, room id.RoomID, others ...*mautrix.Client) *mautrix.Client {
	t.Helper()
	client := bot(t, true)
	levels := map[id.UserID]int{admin.UserID: 100, client.UserID: 50}
	for _, other := range others {
		levels[other.UserID] = 50
	}
	_, err := admin.InviteUser(t.Context(), room, &mautrix.ReqInviteUser{UserID: client.UserID})
	require.NoError(t, err)
	_, err = client.JoinRoomByID(t.Context(), room)
	require.NoError(t, err)
	_, err = admin.SendStateEvent(t.Context(), room, event.StatePowerLevels, "", &event.PowerLevelsEventContent{Users: levels})
	require.NoError(t, err)
	return client
}

// markIn is what tells in a room from where its memory was moved.
func markIn(t testing.TB, client *mautrix.Client, room id.RoomID) string {
	t.Helper()
	for stateKey, content := range memoryState(t, client, room) {
		var dict map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(content, &dict))
		if _, _, shard := wire.ParseShard(stateKey); dict["roomkv.predecessor"] != nil && !shard { // which tells of itself alone
			return string(dict["roomkv.predecessor"])
		}
	}
	return ""
}

// isLeft tells whether the error is that of a value that is in the old room. Dendrite gives an event of another room, and Synapse does not.
func isLeft(err error) bool {
	return errors.Is(err, roomkv.ErrCorrupt) || errors.Is(err, roomkv.ErrUndecryptable)
}

// A bot that comes first moves what it can read. What it cannot read stays in the old room until one comes that can, whatever was written
// and deleted in the new room meanwhile.
func TestRoomUpgradeByABotThatCannotRead(t *testing.T) {
	hstest.Parallel(t)
	for name, kind := range map[string]struct {
		all, second []roomkv.Option
		reads       []string // of what the first bot has written
	}{
		"no key":             {nil, nil, []string{"shared"}},
		"no key of a seal":   {[]roomkv.Option{roomkv.WithSealedKeys(secret)}, nil, []string{"shared"}},
		"not trusted":        {nil, []roomkv.Option{roomkv.WithMinTrust(id.TrustStateVerified)}, nil},
		"larger than it may": {nil, []roomkv.Option{roomkv.WithMaxValue(50_000)}, []string{"shared", "gone", "replaced"}},
	} {
		for _, layout := range []string{"single", "shards", "perkey"} {
			for _, together := range []bool{false, true} {
				t.Run(fmt.Sprint(name, "/", layout, "/together=", together), func(t *testing.T) {
					ctx := t.Context()
					one := bot(t, true)
					admin, room := administered(t, true, one)
					syncing(t, one)
					base := append([]roomkv.Option{layouts[layout], roomkv.WithKeyWait(200 * time.Millisecond)}, kind.all...)
					opts := append(slices.Clone(base), roomkv.WithRoomUpgrades())
					var log strings.Builder
					join := func() *mautrix.Client {
						two := newcomer(t, admin, room, one)
						two.Log = zerolog.New(zerolog.SyncWriter(&log)).Level(zerolog.WarnLevel)
						syncing(t, two)
						return two
					}
					var two *mautrix.Client
					if kind.second != nil {
						two = join()
					}
					first := open(t, one, room, opts...)
					large := text(60_000, 0)
					require.NoError(t, first.PutAll(ctx, map[string]any{"k": large, "gone": 1, "replaced": "before"}))
					if two == nil {
						two = join()
						restart := again(t, one) // a new session, whose key the other gets
						hstest.Crypto(t, restart)
						syncing(t, restart)
						require.NoError(t, open(t, restart, room, base...).Put(ctx, "shared", true))
					} else {
						require.NoError(t, first.Put(ctx, "shared", true))
					}
					want := memoryOf(t, first)
					require.Len(t, want, 4)
					successor := upgradeRoom(t, admin, room, one, two)
					first, second := open(t, one, room, opts...), open(t, two, room, append(opts, kind.second...)...)

					var group sync.WaitGroup
					if together {
						group.Go(func() {
							eventually(t, func() bool { return first.Put(ctx, "first", 1) == nil }, "it has joined")
						})
					}
					eventually(t, func() bool { return second.Put(ctx, "second", 2) == nil }, "it has joined")
					group.Wait()
					want["second"] = "2"
					if together {
						want["first"] = "1"
						assert.Equal(t, want, memoryOf(t, open(t, one, room, opts...)), "to a later one, whoever of the two was first")
						return
					}
					for _, key := range kind.reads {
						require.NoError(t, second.Get(ctx, key, new(any)), key)
					}
					assert.Contains(t, log.String(), fmt.Sprintf(`"keys":%d`, 4-len(kind.reads)))
					assert.NotContains(t, log.String(), "before")
					assert.Contains(t, markIn(t, admin, successor), fmt.Sprintf(`"left":%d`, 4-len(kind.reads)))
					err := second.Get(ctx, "k", new(any))
					if sealed := kind.all != nil; sealed {
						require.ErrorIs(t, err, roomkv.ErrNotFound)
					} else {
						require.True(t, isLeft(err), "it is there, and nobody takes it for missing: %v", err)
						require.NoError(t, second.Delete(ctx, "gone"))
						delete(want, "gone")
					}
					var still string
					require.NoError(t, open(t, one, room, base...).Get(ctx, "k", &still), "the old room has it")
					assert.Equal(t, large, still)
					require.NoError(t, second.Put(ctx, "replaced", "by the second"))
					want["replaced"] = `"by the second"`
					require.NoError(t, open(t, two, successor, append(opts, kind.second...)...).Put(ctx, "restarted", true))
					want["restarted"] = "true"

					assert.Equal(t, want, memoryOf(t, first), "one that has the keys brings the rest")
					assert.Equal(t, want, memoryOf(t, open(t, one, successor, base...)), "which is in the new room")
					assert.JSONEq(t, fmt.Sprintf(`{"room_id": %q}`, room), markIn(t, admin, successor))
					require.NoError(t, first.Delete(ctx, "k"))
					delete(want, "k")
					assert.Equal(t, want, memoryOf(t, open(t, one, room, opts...)), "nothing comes back")
				})
			}
		}
	}
}

// A store that writes in the clear does not do so with what others have encrypted: it leaves that.
func TestRoomUpgradeByABotThatDoesNotEncrypt(t *testing.T) {
	hstest.Parallel(t)
	for _, layout := range []string{"single", "shards", "perkey"} {
		t.Run(layout, func(t *testing.T) {
			ctx := t.Context()
			one, two := bot(t, true), bot(t, true)
			admin, room := administered(t, true, one, two)
			syncing(t, one)
			syncing(t, two)
			opts := []roomkv.Option{layouts[layout], roomkv.WithRoomUpgrades()}
			require.NoError(t, open(t, one, room, opts...).Put(ctx, "secret", 1))
			require.NoError(t, open(t, two, room, layouts[layout], roomkv.WithEncryption(false)).Put(ctx, "clear", 2))
			successor := upgradeRoom(t, admin, room, one, two)
			second := open(t, two, room, append(opts, roomkv.WithEncryption(false))...)
			eventually(t, func() bool { return second.Put(ctx, "second", 3) == nil }, "it has joined")
			assert.ElementsMatch(t, []string{"clear", "second"}, clearNames(t, two, successor))
			want := map[string]string{"secret": "1", "clear": "2", "second": "3"}
			assert.Equal(t, want, memoryOf(t, open(t, one, room, opts...)))
			assert.ElementsMatch(t, []string{"clear", "second"}, clearNames(t, one, successor))
		})
	}
}

// A move does not hold up reads where many values cannot be decrypted, and is not made again by the same process.
func TestRoomUpgradeWithManyValuesThatCannotBeRead(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	one := bot(t, true)
	admin, room := administered(t, true, one)
	syncing(t, one)
	values := map[string]any{}
	for i := range 500 {
		values[fmt.Sprint(i)] = i
	}
	require.NoError(t, open(t, one, room).PutAll(ctx, values))
	two := newcomer(t, admin, room, one)
	recorder := hstest.Record(two) // before the sync, which reads what this changes
	syncing(t, two)
	successor := upgradeRoom(t, admin, room, one, two)
	store := open(t, two, room, roomkv.WithRoomUpgrades(), roomkv.WithKeyWait(200*time.Millisecond))
	eventually(t, func() bool { return store.Put(ctx, "second", 1) == nil }, "it has joined")
	for range 3 {
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Len(t, keys, 501)
	}
	asked := 0
	for _, request := range recorder.Requests() {
		if strings.Contains(request.Path, "/event/") {
			asked++
		}
	}
	assert.Positive(t, asked)
	assert.Less(t, asked, 50)
	assert.Contains(t, markIn(t, admin, successor), `"left":500`)
}
