package roomkv_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// secretEnv names the environment variable with the registration_shared_secret of a Synapse that has its default rc_message.
const secretEnv = "ROOMKV_REGISTRATION_SECRET"

// A bot counts messages in many rooms, 10 a second in all, on a homeserver that lets it send 12 events a minute. It holds up nobody, and loses nothing.
func TestCounterWithinDefaultRateLimits(t *testing.T) {
	for _, layout := range []string{"single", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := fakehs.New(fakehs.Options{Mode: fakehs.Forking, Seed: rand.Uint64()})
				countLimited(t, server, layouts[layout], func(exempt ...id.UserID) {
					limit := fakehs.SynapseDefault
					limit.Exempt = exempt
					server.SetRateLimit(&limit)
				})
			})
		})
	}
}

// Without the option writes wait. What comes while one waits is in the next one, rooms take turns, hardly a write is refused, and reads go on.
func TestWritesWithinDefaultRateLimits(t *testing.T) {
	for _, layout := range []string{"single", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rooms, puts = 20, 10
				ctx := t.Context()
				server := fakehs.New(fakehs.Options{Mode: fakehs.Forking, Seed: rand.Uint64()})
				bot, err := server.Register(ctx, "bot")
				require.NoError(t, err)
				var stores []*roomkv.Store
				for range rooms {
					stores = append(stores, open(t, bot, hstest.Room(t, bot), layouts[layout]))
					require.NoError(t, stores[len(stores)-1].Put(ctx, "there", 1))
				}
				limit := fakehs.SynapseDefault
				server.SetRateLimit(&limit)
				recorder := hstest.Record(bot)
				began := time.Now()
				var all sync.WaitGroup
				for _, store := range stores {
					all.Go(func() { assert.NoError(t, store.Put(ctx, "key", 0)) })
				}
				synctest.Wait() // else the puts of some rooms are all in one write, and fewer rooms wait for a turn
				for _, store := range stores {
					for n := range puts - 1 {
						all.Go(func() { assert.NoError(t, store.Put(ctx, "key", n+1)) })
					}
				}
				time.Sleep(time.Minute)
				asked := time.Now()
				for _, store := range stores {
					require.NoError(t, store.Get(ctx, "there", new(int)))
				}
				assert.Less(t, time.Since(asked), time.Second)
				for _, store := range stores {
					for range puts {
						all.Go(func() { assert.NoError(t, roomkv.Update(ctx, store, "counter", add(1))) })
					}
				}
				all.Wait()
				took := time.Since(began)
				written, refused := map[string]int{}, 0
				var order []string
				for _, request := range statePuts(recorder) {
					if request.Status == http.StatusTooManyRequests {
						refused++
					} else if room := strings.Split(request.Path, "/")[5]; request.Status == http.StatusOK {
						written[room]++
						order = append(order, room)
					}
				}
				t.Logf("%d puts and as many updates: %d writes, %d refused, %v", rooms*puts, len(order), refused, took)
				assert.Len(t, written, rooms)
				assert.LessOrEqual(t, len(order), 4*rooms, "the first put of each room, what came meanwhile, and the same of the updates")
				assert.LessOrEqual(t, refused, rooms-limit.Burst+len(order)/6, "those that were on their way at once, and now and then one")
				least := time.Duration(len(order)-limit.Burst) * limit.Every
				assert.Less(t, took, least+least/20+limit.Every)
				last := map[string]int{}
				for i, room := range order[limit.Burst : len(order)-rooms] {
					if before, ok := last[room]; ok {
						assert.Greater(t, i-before, rooms/2, "%s had its turn again before others", room)
					}
					last[room] = i
				}
				for _, store := range stores {
					counter, err := roomkv.Get[int](ctx, store, "counter")
					require.NoError(t, err)
					assert.Equal(t, puts, counter)
				}
			})
		})
	}
}

// The same on a Synapse as it is installed.
func TestCounterWithinSynapsesRateLimits(t *testing.T) {
	long(t)
	if os.Getenv(secretEnv) == "" {
		t.Skip("needs a Synapse with its default rc_message, whose registration_shared_secret is in " + secretEnv)
	}
	server := hstest.Server(t)
	admin := newAdmin(t, server.URL)
	var freed []id.UserID
	countLimited(t, server, layouts["single"], func(exempt ...id.UserID) {
		for _, user := range slices.Concat(freed, exempt) {
			url := admin.BuildURL(mautrix.SynapseAdminURLPath{"v1", "users", user, "override_ratelimit"})
			method, none := http.MethodDelete, any(nil)
			if slices.Contains(exempt, user) {
				method, none = http.MethodPost, map[string]int{"messages_per_second": 0, "burst_count": 0}
			}
			_, err := admin.MakeRequest(t.Context(), method, url, none, nil)
			require.NoError(t, err)
		}
		freed = exempt
	})
}

// newAdmin registers an administrator of a Synapse.
func newAdmin(t *testing.T, homeserver string) *mautrix.Client {
	t.Helper()
	client, err := mautrix.NewClient(homeserver, "", "")
	require.NoError(t, err)
	url := client.BuildURL(mautrix.SynapseAdminURLPath{"v1", "register"})
	var nonce struct{ Nonce string }
	_, err = client.MakeRequest(t.Context(), http.MethodGet, url, nil, &nonce)
	require.NoError(t, err)
	name, password := fmt.Sprint("admin-", rand.Uint32()), fmt.Sprint(rand.Uint64())
	mac := hmac.New(sha1.New, []byte(os.Getenv(secretEnv)))
	mac.Write([]byte(strings.Join([]string{nonce.Nonce, name, password, "admin"}, "\x00")))
	var made mautrix.RespRegister
	_, err = client.MakeRequest(t.Context(), http.MethodPost, url, map[string]any{
		"nonce": nonce.Nonce, "username": name, "password": password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	}, &made)
	require.NoError(t, err)
	client.UserID, client.DeviceID, client.AccessToken = made.UserID, made.DeviceID, made.AccessToken
	return client
}

func countLimited(t *testing.T, server accounts, layout roomkv.Option, limit func(exempt ...id.UserID)) {
	const rooms, every, lasts, pause = 20, 5 * time.Second, time.Minute, 100 * time.Millisecond
	ctx := t.Context()
	bot, err := server.Register(ctx, "bot")
	require.NoError(t, err)
	sender, err := server.Register(ctx, "sender")
	require.NoError(t, err)
	recorder := hstest.Record(bot)
	store := open(t, bot, "!none:of.them", layout, roomkv.WithFlushEvery(every))
	require.NoError(t, store.Follow())
	var all []id.RoomID
	limit(sender.UserID, bot.UserID)
	levels := &event.PowerLevelsEventContent{Users: map[id.UserID]int{sender.UserID: 100, bot.UserID: 50}}
	for range rooms {
		room := hstest.Room(t, sender, &mautrix.ReqCreateRoom{Preset: "public_chat", RoomVersion: "11", PowerLevelOverride: levels})
		_, err := bot.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		all = append(all, room)
	}
	var mu sync.Mutex
	var slowest time.Duration
	seen := 0
	handler := store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		if evt.Sender != sender.UserID {
			return
		}
		began := time.Now()
		assert.NoError(t, roomkv.Update(ctx, room, "count", add(1)))
		took := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		seen++
		slowest = max(slowest, took)
	})
	syncer := bot.Syncer.(mautrix.ExtensibleSyncer)
	syncer.OnEventType(event.EventMessage, handler)
	stop := syncing(t, bot)
	for _, room := range all { // the first read of a room takes requests
		scoped, err := store.WithRoom(ctx, room)
		require.NoError(t, err)
		require.ErrorIs(t, scoped.Get(ctx, "count", new(int)), roomkv.ErrNotFound)
	}
	limit(sender.UserID)
	recorder.Reset()

	want := map[id.RoomID]int{}
	began, sent := time.Now(), 0
	var sending sync.WaitGroup
	for ; time.Since(began) < lasts; sent++ {
		room := all[rand.IntN(rooms)]
		if sent < rooms {
			room = all[sent]
		}
		sending.Go(func() {
			_, err := sender.SendText(ctx, room, "count me")
			assert.NoError(t, err)
		})
		want[room]++
		time.Sleep(time.Until(began.Add(time.Duration(sent+1) * pause)))
	}
	sending.Wait()
	for {
		mu.Lock()
		done := seen == sent
		mu.Unlock()
		if done {
			break
		}
		require.Less(t, time.Since(began), lasts+2*time.Minute, "%d of %d were seen", seen, sent)
		time.Sleep(10 * time.Millisecond)
	}
	report := func(when string) (order []string, refused int) {
		for _, request := range statePuts(recorder) {
			switch request.Status {
			case http.StatusOK:
				order = append(order, strings.Split(request.Path, "/")[5])
			case http.StatusTooManyRequests:
				refused++
			}
		}
		t.Logf("%s: %v, %d messages, %d writes, %d refused, the slowest handler took %v", when, time.Since(began).Round(time.Millisecond), sent, len(order), refused, slowest)
		return order, refused
	}
	order, refused := report("after a minute")
	assert.LessOrEqual(t, refused, 15)
	assert.LessOrEqual(t, slowest, 10*time.Millisecond)
	times := map[string]int{}
	for _, room := range order {
		times[room]++
	}
	assert.Len(t, times, rooms, "every room is written")
	for room, n := range times {
		assert.LessOrEqual(t, n, 2, "%s has more than its turn", room)
	}

	flushing, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	require.NoError(t, store.Flush(flushing))
	report("after the flush")
	counts := map[id.RoomID]int{}
	for room := range want {
		another := open(t, bot, room, layout)
		counts[room], err = roomkv.Get[int](ctx, another, "count")
		require.NoError(t, err)
	}
	assert.Equal(t, want, counts)
	require.NoError(t, store.Close(ctx))
	stop()
}
