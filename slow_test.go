package roomkv_test

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

var slowSeeds = flag.Int("slow-seeds", 8, "with how many seeds a room is upgraded while one bot is slow, in each layout")

// Two bots count while their room is upgraded, and for a while one of them is slow: some of its requests take seconds, and so does what its sync
// brings. Time is virtual. The seed chooses how long each request takes.
func TestRoomUpgradeWithASlowBot(t *testing.T) {
	for _, layout := range []string{"single", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			t.Parallel() // the name of the homeserver, and so of its rooms, is another one in each: the process knows them by that
			for seed := range *slowSeeds {
				synctest.Test(t, func(t *testing.T) { upgradedSlowly(t, uint64(seed), layout) })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// chance is a source of random numbers that several goroutines share.
type chance struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (c *chance) below(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

func (c *chance) sleep(most time.Duration) { time.Sleep(time.Duration(c.below(int(most)))) }

func upgradedSlowly(t *testing.T, seed uint64, layout string) {
	ctx := t.Context()
	random := &chance{random: rand.New(rand.NewPCG(seed, 0))}
	server := fakehs.New(fakehs.Options{Mode: fakehs.Modes[seed%2], Seed: seed, Name: layout})
	clients := make([]*mautrix.Client, 3)
	for i := range clients {
		var err error
		clients[i], err = server.Register(ctx, "bot")
		require.NoError(t, err)
	}
	admin, bots := clients[0], clients[1:]
	room := administeredBy(t, admin, false, bots...)

	const quick = 3 * time.Millisecond
	requests := []time.Duration{quick, 50 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}[random.below(4)]
	syncs := []time.Duration{quick, 50 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second}[random.below(4)]
	var slow atomic.Bool
	var stores []*roomkv.Store
	for n, bot := range bots {
		use, next := through(bot)
		use(func(req *http.Request) (*http.Response, error) {
			isSync, most := strings.HasSuffix(req.URL.Path, "/sync"), quick
			switch {
			case n == 0 || !slow.Load() || random.below(3) > 0:
			case isSync:
				most = syncs
			default:
				most = requests
			}
			if !isSync {
				random.sleep(most)
			}
			response, err := next.RoundTrip(req)
			random.sleep(most) // so a sync's response is old when it comes
			return response, err
		})
		store := open(t, bot, room, layouts[layout], roomkv.WithRoomUpgrades())
		require.NoError(t, store.Follow())
		defer startSync(bot)()
		stores = append(stores, store)
	}
	require.NoError(t, stores[0].Put(ctx, "counter", 0))

	var updates atomic.Int64
	var stop atomic.Bool
	var group sync.WaitGroup
	for _, store := range stores {
		for range 2 {
			group.Go(func() {
				for !stop.Load() {
					if err := roomkv.Update(ctx, store, "counter", increment); err == nil {
						updates.Add(1)
					} else if !assert.ErrorIs(t, err, roomkv.ErrRoomUpgraded) { // before the bot is invited
						return
					}
					random.sleep(100 * time.Millisecond)
				}
			})
		}
	}
	random.sleep(400 * time.Millisecond)
	slow.Store(true)
	random.sleep(200 * time.Millisecond)
	server.BeforeStore(func(write fakehs.Write) {
		if write.Type == "m.room.tombstone" {
			random.sleep(100 * time.Millisecond)
		}
	})
	successor := upgradeRoom(t, admin, room, bots...)
	random.sleep(4 * time.Second)
	slow.Store(false)
	time.Sleep(time.Second)
	stop.Store(true)
	group.Wait()
	time.Sleep(time.Minute) // for what the syncs bring
	for i, store := range append(stores, open(t, admin, successor, layouts[layout])) {
		got, err := roomkv.Get[int64](ctx, store, "counter")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, got, updates.Load(), "store %d", i) // an Update that may have been done in the old room is done again
		require.NoError(t, store.Close(ctx))
	}
}
