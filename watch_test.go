package roomkv_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// watching collects changes until there are as many as wanted. It returns when the watch has begun, and leaves out what was there then.
func watching(t testing.TB, store *roomkv.Store, want int, opts ...roomkv.WatchOption) (changes func() []roomkv.Change) {
	begun, changes := collecting(t, store, want, true, append(opts, roomkv.WatchInitial())...)
	<-begun
	return changes
}

// resuming is watching from a revision on.
func resuming(t testing.TB, store *roomkv.Store, want int, opts ...roomkv.WatchOption) (changes func() []roomkv.Change) {
	_, changes = collecting(t, store, want, false, opts...)
	return changes
}

func collecting(t testing.TB, store *roomkv.Store, want int, initial bool, opts ...roomkv.WatchOption) (begun <-chan bool, changes func() []roomkv.Change) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	var got []roomkv.Change
	begins, done := make(chan bool), make(chan bool)
	begin := sync.OnceFunc(func() { close(begins) })
	go func() {
		defer close(done)
		defer begin()
		for change, err := range store.Watch(ctx, opts...) {
			if !assert.NoError(t, err, "after %d of %d", len(got), want) {
				return
			}
			if initial {
				if initial = !change.EndOfInitial; !initial {
					begin()
				}
				continue
			}
			if got = append(got, change); len(got) == want {
				return
			}
		}
	}()
	return begins, func() []roomkv.Change {
		<-done
		cancel()
		return got
	}
}

func spell(changes []roomkv.Change) (lines []string) {
	for _, c := range changes {
		lines = append(lines, fmt.Sprintf("%s: %s -> %s", c.Key, c.Old, c.New))
	}
	return lines
}

func TestWatch(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, other.Put(ctx, "a", "before"))
		store, stop := follow(t, client, room, layout)
		all := watching(t, store, 6)
		one := watching(t, store, 3, roomkv.WatchKey("a"))
		prefix := watching(t, store, 2, roomkv.WatchPrefix("b"))

		require.NoError(t, other.Put(ctx, "a", 1))
		require.NoError(t, other.Put(ctx, "a", 1), "which changes nothing")
		require.NoError(t, store.Put(ctx, "b1", 2))
		require.NoError(t, other.Put(ctx, "a", 3))
		require.NoError(t, store.Put(ctx, "b2", 1.5))
		require.NoError(t, other.Delete(ctx, "a"))
		require.NoError(t, store.Put(ctx, "c", 6))
		want := []string{`a: "before" -> 1`, "b1:  -> 2", "a: 1 -> 3", "b2:  -> 1.5", "a: 3 -> ", "c:  -> 6"}
		seen := all()
		assert.Equal(t, want, spell(seen))
		assert.Equal(t, []string{want[0], want[2], want[4]}, spell(one()))
		assert.Equal(t, []string{want[1], want[3]}, spell(prefix()))
		assert.Equal(t, client.UserID, seen[0].Sender)
		assert.WithinDuration(t, time.Now(), seen[0].Time, time.Minute)

		// A bot that was down catches up.
		stop()
		require.NoError(t, other.Put(ctx, "late", 7))
		restarted := again(t, client)
		store, _ = follow(t, restarted, room, layout)
		later := resuming(t, store, 6, roomkv.WatchFrom(seen[1].Revision))
		require.NoError(t, other.Put(ctx, "live", 8))
		assert.Equal(t, append(want[2:], "late:  -> 7", "live:  -> 8"), spell(later()))

		for _, err := range store.Watch(ctx, roomkv.WatchFrom("$never")) {
			require.ErrorIs(t, err, roomkv.ErrTooOld)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	for _, err := range store.Watch(t.Context()) {
		require.ErrorIs(t, err, roomkv.ErrNotFollowing)
	}
	require.NoError(t, store.Follow())
	syncing(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	times := 0
	for _, err := range store.Watch(ctx) {
		times++
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	assert.Equal(t, 1, times)
}

// Every change of several processes is seen once, and each key's changes in order.
func TestWatchUnderLoad(t *testing.T) {
	hstest.Parallel(t)
	const processes, puts = 4, 25
	client, j := shared(t)
	store, _ := follow(t, client, j.Room)
	changes := watching(t, store, processes*puts)
	var jobs []job
	for i := range processes {
		j.Name, j.Do, j.Times = fmt.Sprint(i), "put", puts
		jobs = append(jobs, j)
	}
	acknowledged, _ := together(t, jobs...)
	seen := map[string]int{}
	at := map[string]int{}
	for i, change := range changes() {
		assert.Nil(t, change.Old, change.Key)
		seen[change.Key]++
		at[change.Key] = i
	}
	for _, keys := range acknowledged {
		for i, key := range keys {
			assert.Equal(t, 1, seen[key], key)
			if i > 0 {
				assert.Less(t, at[keys[i-1]], at[key], "in the order in which they were put: "+strings.Join(keys, " "))
			}
		}
	}
}

// A watch of a room that is upgraded ends, and the next one is where the memory is now.
func TestWatchOfAnUpgradedRoom(t *testing.T) {
	hstest.Parallel(t)
	for name, opts := range map[string][]roomkv.Option{"": nil, "following": {roomkv.WithRoomUpgrades()}} {
		t.Run(name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, layout roomkv.Option) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				client := hstest.Client(t)
				admin, room := administered(t, false, client)
				store, _ := follow(t, client, room, append(opts, layout)...)
				require.NoError(t, store.Put(ctx, "k", 1))
				first, err := store.Entry(ctx, "k")
				require.NoError(t, err)
				var seen []roomkv.Change
				ended := make(chan error)
				begun := make(chan bool)
				watch := func(opts ...roomkv.WatchOption) {
					seen = nil
					for change, err := range store.Watch(ctx, opts...) {
						if err != nil {
							ended <- err
							return
						}
						if seen = append(seen, change); change.EndOfInitial {
							seen = nil
							close(begun)
						}
					}
				}
				go watch(roomkv.WatchInitial())
				<-begun
				require.NoError(t, store.Put(ctx, "k", 2))
				successor := upgradeRoom(t, admin, room, client)
				err = <-ended
				require.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
				assert.ErrorContains(t, err, successor.String())
				assert.Equal(t, []string{"k: 1 -> 2"}, spell(seen))
				if opts == nil {
					go watch(roomkv.WatchFrom(first.Revision))
					require.ErrorIs(t, <-ended, roomkv.ErrRoomUpgraded, "at once")
					assert.Equal(t, []string{"k: 1 -> 2"}, spell(seen))
					return
				}
				eventually(t, func() bool { return store.Put(ctx, "k", 3) == nil }, "the invitation")
				seen = nil
				for change, err := range store.Watch(ctx, roomkv.WatchInitial()) { // whatever has changed in between
					require.NoError(t, err)
					if seen = append(seen, change); change.EndOfInitial {
						require.NoError(t, open(t, client, successor, layout).Put(ctx, "k", 4))
					}
					if len(seen) == 3 {
						break
					}
				}
				assert.Equal(t, []string{"k:  -> 3", ":  -> ", "k: 3 -> 4"}, spell(seen))
			})
		})
	}
}

// Where the client's sync leaves tombstones out, a watch ends when the store hears of one in another way.
func TestWatchOfAnUpgradedRoomThatTheSyncDoesNotTellOf(t *testing.T) {
	hstest.Parallel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := hstest.Client(t)
	admin, room := administered(t, false, client)
	without := &mautrix.FilterPart{NotTypes: []event.Type{event.StateTombstone}}
	client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: without, State: without}}
	store, _ := follow(t, client, room, roomkv.WithRoomUpgrades())
	begun, ended := make(chan bool), make(chan error)
	go func() {
		for change, err := range store.Watch(ctx, roomkv.WatchInitial()) {
			if err != nil {
				ended <- err
			}
			if change.EndOfInitial {
				close(begun)
			}
		}
	}()
	<-begun
	upgradeRoom(t, admin, room, client)
	require.NoError(t, store.Put(ctx, "k", 1))
	require.ErrorIs(t, <-ended, roomkv.ErrRoomUpgraded)
}
