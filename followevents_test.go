package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// pushed is a store of an application service's user, to whom a homeserver pushes events, and of another process that writes the same memory.
type pushed struct {
	server *fakehs.Server
	client *mautrix.Client // of the application service
	room   id.RoomID
	store  *roomkv.Store
	other  *roomkv.Store // of another user
	device *mautrix.Client

	recorder *hstest.Recorder
	handlers map[event.Type]func(ctx context.Context, evt *event.Event)

	mu      sync.Mutex
	deliver func(events []*event.Event) // what becomes of what is pushed
}

// newPushed has the store follow the events, which come in order and once until deliver is set.
func newPushed(t *testing.T, server *fakehs.Server, maxAge time.Duration, opts ...roomkv.Option) *pushed {
	t.Helper()
	const token = "of the application service"
	server.AppService(token, id.NewUserID("bridge", server.Name()))
	p := &pushed{server: server, device: fakehstest.Client(t, server), handlers: map[event.Type]func(context.Context, *event.Event){}}
	var err error
	p.client, err = mautrix.NewClient(server.URL(), id.NewUserID("ghost", server.Name()), token)
	require.NoError(t, err)
	p.client.SetAppServiceUserID, p.client.Syncer, p.client.Store = true, nil, nil // as those of mautrix's package appservice
	p.client.Client = &http.Client{Transport: server}
	_, err = p.client.MakeRequest(t.Context(), http.MethodPost, p.client.BuildClientURL("v3", "register"), &mautrix.ReqRegister[any]{
		Username: "ghost", Type: mautrix.AuthTypeAppservice, InhibitLogin: true}, nil)
	require.NoError(t, err)
	p.recorder = hstest.Record(p.client)
	levels := &event.PowerLevelsEventContent{Users: map[id.UserID]int{p.client.UserID: 100, p.device.UserID: 100}}
	p.room = hstest.Room(t, p.client, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{p.device.UserID}, PowerLevelOverride: levels})
	_, err = p.device.JoinRoomByID(t.Context(), p.room)
	require.NoError(t, err)
	p.store, p.other = open(t, p.client, p.room, opts...), open(t, p.device, p.room, opts...)
	require.NoError(t, p.store.FollowEvents(func(eventType event.Type, handle func(context.Context, *event.Event)) {
		assert.NotContains(t, p.handlers, eventType)
		p.handlers[eventType] = handle
	}, maxAge))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended, after := make(chan bool), server.Stored()
	go func() {
		defer close(ended)
		server.Push(ctx, after, func(texts []json.RawMessage) error {
			var events []*event.Event
			for _, text := range texts {
				evt := new(event.Event)
				if err := json.Unmarshal(text, evt); err != nil {
					return err
				}
				events = append(events, evt)
			}
			p.mu.Lock()
			deliver := p.deliver
			p.mu.Unlock()
			if deliver == nil {
				deliver = p.handle
			}
			deliver(events)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

// handle hands events on to the store, as mautrix's EventProcessor does.
func (p *pushed) handle(events []*event.Event) {
	for _, evt := range events {
		evt.Type.Class = event.MessageEventType
		if evt.StateKey != nil {
			evt.Type.Class = event.StateEventType
		}
		if handle := p.handlers[evt.Type]; handle != nil {
			handle(context.Background(), evt)
		}
	}
}

func (p *pushed) delivers(deliver func(events []*event.Event)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deliver = deliver
}

// reads tells how many requests a read takes, and what it gives.
func (p *pushed) reads(t *testing.T, key string) (requests int, value string) {
	t.Helper()
	p.recorder.Reset()
	entry, err := p.store.Entry(t.Context(), key)
	require.NoError(t, err)
	return p.recorder.Count(), string(entry.Value)
}

// hears has events handed on in order, and returns what waits until the last event of a key has been.
func (p *pushed) hears(t *testing.T) (wait func(key string)) {
	t.Helper()
	var heard sync.Map
	p.delivers(func(events []*event.Event) {
		p.handle(events)
		for _, evt := range events {
			heard.Store(roomkv.Revision(evt.ID), true)
		}
	})
	return func(key string) {
		t.Helper()
		entry, err := p.other.Entry(t.Context(), key)
		require.NoError(t, err)
		eventually(t, func() bool {
			_, ok := heard.Load(entry.Revision)
			return ok
		}, "the event of "+key+" has come")
	}
}

// eachPushed runs a test in both modes and layouts.
func eachPushed(t *testing.T, maxAge time.Duration, test func(t *testing.T, p *pushed)) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		for _, layout := range []string{"single", "perkey"} {
			t.Run(mode.String()+"/"+layout, func(t *testing.T) {
				t.Parallel()
				server := fakehstest.New(t, fakehs.Options{Mode: mode, Seed: 1, Name: serverName(t)})
				test(t, newPushed(t, server, maxAge, layouts[layout]))
			})
		}
	}
}

// Without a maxAge each read asks, and needs no event to see what others have written.
func TestReadsAskWhileFollowingEvents(t *testing.T) {
	eachPushed(t, 0, func(t *testing.T, p *pushed) {
		p.delivers(func([]*event.Event) {}) // none comes
		for n := range 3 {
			require.NoError(t, p.other.Put(t.Context(), "k", n))
			for range 2 {
				took, value := p.reads(t, "k")
				assert.Equal(t, 1, took)
				assert.Equal(t, fmt.Sprint(n), value)
			}
		}
		for n := range 3 {
			require.NoError(t, p.store.Put(t.Context(), "k", -n))
			_, value := p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(-n), value)
			require.NoError(t, p.other.Put(t.Context(), "k", n))
			_, value = p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(n), value)
		}
		info, err := p.store.Info(t.Context())
		require.NoError(t, err)
		assert.False(t, info.Following)
	})
}

// With a maxAge reads are answered from memory, until an event comes or the homeserver was last asked for so long ago.
func TestReadsFromMemoryWhileFollowingEvents(t *testing.T) {
	eachPushed(t, time.Hour, func(t *testing.T, p *pushed) {
		ctx := t.Context()
		heard := p.hears(t)
		require.NoError(t, p.other.PutAll(ctx, map[string]any{"k": 1, "other": 1}))
		heard("k")
		heard("other")
		_, value := p.reads(t, "k")
		assert.Equal(t, "1", value)
		require.ErrorIs(t, p.store.Get(ctx, "none", new(any)), roomkv.ErrNotFound)
		for range 3 {
			took, value := p.reads(t, "k")
			assert.Zero(t, took)
			assert.Equal(t, "1", value)
			require.ErrorIs(t, p.store.Get(ctx, "none", new(any)), roomkv.ErrNotFound)
			assert.Zero(t, p.recorder.Count())
		}
		for n := range 3 {
			require.NoError(t, p.other.Put(ctx, "k", 10+n))
			require.NoError(t, p.other.Put(ctx, "none", n))
			heard("k")
			heard("none")
			_, value := p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(10+n), value)
			_, value = p.reads(t, "none")
			assert.Equal(t, fmt.Sprint(n), value)
			took, _ := p.reads(t, "k")
			assert.Zero(t, took)
			entries, err := p.store.GetAll(ctx, "k", "none")
			require.NoError(t, err)
			assert.Len(t, entries, 2)
			assert.Zero(t, p.recorder.Count())
			require.NoError(t, p.other.Delete(ctx, "none"))
			eventually(t, func() bool { return p.store.Get(ctx, "none", new(any)) != nil }, "an event has told of it")
		}

		// What the process has written it reads, whatever comes late, and whatever does not come.
		p.delivers(func([]*event.Event) {})
		for n := range 5 {
			require.NoError(t, p.other.Put(ctx, fmt.Sprint("other", n), n))
			require.NoError(t, p.store.Put(ctx, "k", -n))
			_, value := p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(-n), value)
			took, value := p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(-n), value)
			assert.Zero(t, took)
			require.NoError(t, roomkv.Update(ctx, p.store, "k", increment))
			took, value = p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(1-n), value)
			assert.Zero(t, took, "the write has asked")
		}
		want := map[string]string{"k": "-3", "other": "1", "other0": "0", "other1": "1", "other2": "2", "other3": "3", "other4": "4"}
		assert.Equal(t, want, memoryOf(t, p.other), "nothing is lost")
	})
}

// A write looks first at what an event has told of, so that it does not hide that for a moment and then merge.
func TestWritesLookAtWhatEventsTellOf(t *testing.T) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			p := newPushed(t, fakehstest.New(t, fakehs.Options{Mode: mode, Seed: 1}), 0)
			ctx := t.Context()
			sends := func() (n int) {
				for _, request := range p.recorder.Requests() {
					if request.Method == http.MethodPut {
						n++
					}
				}
				return n
			}
			heard := p.hears(t)
			for n := range 3 {
				require.NoError(t, p.store.Put(ctx, "own", n))
				other := fmt.Sprint("other", n)
				require.NoError(t, p.other.Put(ctx, other, n))
				heard(other)
				p.recorder.Reset()
				require.NoError(t, p.store.Put(ctx, "own", n+10))
				assert.Equal(t, 1, sends(), "it did not have to merge")
			}
			assert.Equal(t, map[string]string{"own": "12", "other0": "0", "other1": "1", "other2": "2"}, memoryOf(t, p.other))
		})
	}
}

// No event comes, and no read misses what others wrote longer than maxAge ago.
func TestReadsAreNoOlderThanMaxAge(t *testing.T) {
	const maxAge = 300 * time.Millisecond
	eachPushed(t, maxAge, func(t *testing.T, p *pushed) {
		p.delivers(func([]*event.Event) {})
		asked, reads := 0, 0
		for n := range 4 {
			require.NoError(t, p.other.Put(t.Context(), "k", n))
			for end := time.Now().Add(maxAge); time.Now().Before(end); reads++ {
				if n > 0 {
					took, value := p.reads(t, "k")
					assert.Contains(t, []string{fmt.Sprint(n - 1), fmt.Sprint(n)}, value)
					asked += took
				}
			}
			_, value := p.reads(t, "k")
			assert.Equal(t, fmt.Sprint(n), value)
		}
		assert.Less(t, asked, 10+reads/2, "of %d reads", reads)
	})
}

// Events come twice, in another order, late and in part, and events come that are not true: a watch tells each change once, in order.
func TestWatchWhileFollowingEvents(t *testing.T) {
	for name, deliver := range map[string]func(p *pushed) func(events []*event.Event){
		"in order": func(p *pushed) func([]*event.Event) { return p.handle },
		"twice": func(p *pushed) func([]*event.Event) {
			var before []*event.Event
			return func(events []*event.Event) {
				p.handle(before)
				p.handle(events)
				before = append(before, events...)
			}
		},
		"at once and in any order": func(p *pushed) func([]*event.Event) {
			return func(events []*event.Event) {
				for _, i := range rand.Perm(len(events)) {
					go p.handle(events[i : i+1])
				}
			}
		},
		"backwards and late": func(p *pushed) func([]*event.Event) {
			var kept []*event.Event
			return func(events []*event.Event) {
				if kept = append(kept, events...); len(kept) >= 6 {
					slices.Reverse(kept)
					p.handle(kept)
					kept = nil
				}
			}
		},
		"with gaps": func(p *pushed) func([]*event.Event) {
			return func(events []*event.Event) {
				for i, evt := range events {
					if _, last := evt.Content.Raw["last"]; last || i%2 == 1 {
						p.handle(events[i : i+1])
					}
				}
			}
		},
		"with false ones": func(p *pushed) func([]*event.Event) {
			return func(events []*event.Event) {
				for _, evt := range events {
					for _, lie := range lies(evt) {
						p.handle([]*event.Event{lie})
					}
					p.handle([]*event.Event{evt})
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachPushed(t, time.Hour, func(t *testing.T, p *pushed) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				require.NoError(t, p.other.PutAll(ctx, map[string]any{"a": 0, "b": 0}))
				p.delivers(deliver(p))
				var told []string
				wrote, done := make(chan error, 1), make(chan bool)
				write := func() error {
					for n := range 5 {
						if err := p.other.Put(ctx, "a", n+1); err != nil {
							return err
						}
						if err := p.store.Put(ctx, "b", n+1); err != nil {
							return err
						}
					}
					for n := 0; ; n++ { // until all has come, however much is kept back
						if err := p.other.Put(ctx, "last", n); err != nil {
							return err
						}
						select {
						case <-done:
							return nil
						case <-time.After(20 * time.Millisecond):
						}
					}
				}
				now := map[string]string{}
				for change, err := range p.store.Watch(ctx, roomkv.WatchInitial()) {
					require.NoError(t, err, "after %v", told)
					if change.EndOfInitial {
						assert.Equal(t, map[string]string{"a": "0", "b": "0"}, now)
						go func() { wrote <- write() }()
						continue
					}
					assert.Equal(t, now[change.Key], string(change.Old), "after %v", told)
					if now[change.Key] = string(change.New); now["last"] != "" {
						break
					}
					told = append(told, spell([]roomkv.Change{change})...)
				}
				close(done)
				require.NoError(t, <-wrote)
				delete(now, "last")
				assert.Equal(t, map[string]string{"a": "5", "b": "5"}, now)
				if name != "with gaps" { // what nobody tells of comes with what comes next
					want := []string{"a:  -> 0", "b:  -> 0"}
					for n := range 5 {
						want = append(want, fmt.Sprintf("a: %d -> %d", n, n+1), fmt.Sprintf("b: %d -> %d", n, n+1))
					}
					assert.Equal(t, want, told)
				}
			})
		})
	}
}

// A watch takes two requests for each event of the memory, whoever has sent it, and none for one that comes once more.
func TestRequestsOfAWatchWhileFollowingEvents(t *testing.T) {
	t.Parallel()
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			p := newPushed(t, fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Seed: 1}), 0, layout)
			p.delivers(func(events []*event.Event) {
				p.handle(events)
				p.handle(events)
			})
			require.NoError(t, p.other.Put(ctx, "k", 0))
			n := 0
			for change, err := range p.store.Watch(ctx, roomkv.WatchInitial()) {
				require.NoError(t, err)
				switch {
				case n > 0:
					assert.Equal(t, fmt.Sprint(n), string(change.New))
					if n > 1 { // before the first it has asked whether the room was upgraded
						assert.Equal(t, 2, p.recorder.Count())
					}
				case !change.EndOfInitial:
					continue
				}
				if n++; n == 5 {
					break
				}
				time.Sleep(50 * time.Millisecond) // until what comes once more has come
				p.recorder.Reset()
				require.NoError(t, p.other.Put(ctx, "k", n))
			}
		})
	}
}

// lies are events that are not true, made of one that is.
func lies(evt *event.Event) (all []*event.Event) {
	lie := func(change func(evt *event.Event)) {
		other := *evt
		change(&other)
		all = append(all, &other)
	}
	empty, elsewhere := "", "elsewhere"
	lie(func(evt *event.Event) { evt.RoomID = "!elsewhere:example.org" })
	lie(func(evt *event.Event) { evt.RoomID = "" })
	lie(func(evt *event.Event) { evt.Content = event.Content{VeryRaw: json.RawMessage(`{"a":"a lie"}`)} })
	lie(func(evt *event.Event) { evt.Content = event.Content{} })
	lie(func(evt *event.Event) { evt.Sender, evt.Timestamp = "@eve:example.org", 1<<62 })
	lie(func(evt *event.Event) { evt.StateKey = &elsewhere })
	lie(func(evt *event.Event) { evt.StateKey = nil })
	lie(func(evt *event.Event) { evt.Unsigned.RedactedBecause = evt })
	lie(func(evt *event.Event) { evt.Type = event.EventRedaction; evt.StateKey = nil; evt.Redacts = evt.ID })
	lie(func(evt *event.Event) { evt.Type, evt.StateKey = event.StateTombstone, &empty })
	lie(func(evt *event.Event) { evt.Type, evt.StateKey = event.StateEncryption, &empty })
	return all
}

// Events that are not true, or nothing at all, change nothing and break nothing.
func TestFalseEvents(t *testing.T) {
	eachPushed(t, time.Hour, func(t *testing.T, p *pushed) {
		ctx := t.Context()
		require.NoError(t, p.other.Put(ctx, "a", 1))
		p.delivers(func([]*event.Event) {})
		entry, err := p.store.Entry(ctx, "a")
		require.NoError(t, err)
		all := []*event.Event{{}, {RoomID: p.room}}
		for _, evt := range []id.EventID{"", "$never", id.EventID(entry.Revision)} {
			for _, stateKey := range []string{"", "a", "none", "roomkv.seal"} {
				all = append(all, lies(&event.Event{ID: evt, RoomID: p.room, Type: database, StateKey: &stateKey, Sender: p.client.UserID})...)
			}
		}
		for _, handle := range p.handlers {
			for _, evt := range append(all, nil) {
				require.NotPanics(t, func() { handle(ctx, evt) })
			}
		}
		assert.Equal(t, map[string]string{"a": "1"}, memoryOf(t, p.store))
		require.NoError(t, p.store.Put(ctx, "b", 2))
		assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, p.other))
	})
}

// An event that tells of a redaction, of an upgrade or of encryption counts at once.
func TestEventsOfTheRoom(t *testing.T) {
	eachPushed(t, time.Hour, func(t *testing.T, p *pushed) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, p.store.PutAll(ctx, map[string]any{"a": 1}))
		entry, err := p.store.Entry(ctx, "a")
		require.NoError(t, err)
		var told []string
		for change, err := range p.store.Watch(ctx, roomkv.WatchInitial()) {
			if err != nil {
				require.ErrorIs(t, err, roomkv.ErrRoomUpgraded, "after %v", told)
				told = append(told, "upgraded")
				break
			}
			told = append(told, spell([]roomkv.Change{change})...)
			switch {
			case change.EndOfInitial:
				_, err := p.device.RedactEvent(ctx, p.room, id.EventID(entry.Revision))
				require.NoError(t, err)
			case change.Old != nil:
				require.ErrorIs(t, p.store.Get(ctx, "a", new(any)), roomkv.ErrNotFound)
				require.NoError(t, p.other.Put(ctx, "b", 1))
			case change.Key == "b":
				_, err := p.device.SendStateEvent(ctx, p.room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
				require.NoError(t, err)
				eventually(t, func() bool { return p.store.Put(ctx, "c", time.Now().UnixNano()%1000) != nil }, "it is encrypted")
				require.ErrorIs(t, p.store.Put(ctx, "c", 2), roomkv.ErrNoCrypto)
				_, err = p.device.SendStateEvent(ctx, p.room, event.StateTombstone, "", &event.TombstoneEventContent{ReplacementRoom: "!new:example.org"})
				require.NoError(t, err)
			}
		}
		told = slices.DeleteFunc(told, func(line string) bool { return line[:1] == "c" })
		assert.Equal(t, []string{"a:  -> 1", ":  -> ", "a: 1 -> ", "b:  -> 1", "upgraded"}, told)
		require.ErrorIs(t, p.store.Delete(ctx, "b"), roomkv.ErrRoomUpgraded)
	})
}

// What a process has acknowledged, and what it has read, it goes on reading while others write.
func TestManyWritersWhileFollowingEvents(t *testing.T) {
	eachPushed(t, 50*time.Millisecond, func(t *testing.T, p *pushed) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p.delivers(func(events []*event.Event) {
			for _, i := range rand.Perm(len(events)) {
				if rand.N(3) > 0 {
					go p.handle(events[i : i+1])
				}
			}
		})
		const writers, puts = 3, 5
		var all sync.WaitGroup
		var shared atomic.Int64
		for writer := range writers {
			store := p.store
			if writer == 0 {
				store = p.other
			}
			all.Go(func() {
				key, last := fmt.Sprint("w", writer), 0
				for n := range puts {
					assert.NoError(t, store.Put(ctx, key, n))
					got, err := roomkv.Get[int](ctx, store, key)
					assert.NoError(t, err)
					assert.Equal(t, n, got, "read your writes")
					assert.NoError(t, roomkv.Update(ctx, store, "count", increment))
					shared.Add(1)
					count, err := roomkv.Get[int](ctx, store, "count")
					assert.NoError(t, err)
					assert.GreaterOrEqual(t, count, last+1, "it has counted once more itself")
					last = count
				}
			})
		}
		all.Wait()
		eventually(t, func() bool {
			count, err := roomkv.Get[int](ctx, p.store, "count")
			return err == nil && int64(count) == shared.Load()
		}, "after maxAge")
		assert.Equal(t, map[string]string{"count": fmt.Sprint(writers * puts), "w0": "4", "w1": "4", "w2": "4"}, memoryOf(t, p.store))
	})
}

func TestFollowEventsOrASync(t *testing.T) {
	t.Parallel()
	server := fakehstest.New(t, fakehs.Options{})
	ctx := t.Context()
	client := fakehstest.Client(t, server)
	room := hstest.Room(t, client)
	on := func(event.Type, func(context.Context, *event.Event)) {}
	store := open(t, client, room)
	require.ErrorIs(t, store.FollowEvents(nil, 0), roomkv.ErrInvalidOption)
	require.ErrorIs(t, store.FollowEvents(on, -1), roomkv.ErrInvalidOption)
	require.NoError(t, store.FollowEvents(on, 0))
	require.NoError(t, store.FollowEvents(func(event.Type, func(context.Context, *event.Event)) { t.Error("it is done") }, time.Hour))
	require.ErrorIs(t, store.Follow(), roomkv.ErrInvalidOption)
	require.NoError(t, store.Close(ctx))
	require.ErrorIs(t, store.FollowEvents(on, 0), roomkv.ErrInvalidOption)
	for _, err := range store.Watch(ctx) {
		require.ErrorIs(t, err, roomkv.ErrNotFollowing)
	}
	syncs := open(t, client, room)
	require.NoError(t, syncs.Follow())
	require.ErrorIs(t, syncs.FollowEvents(on, 0), roomkv.ErrInvalidOption)
}

// Close makes reads ask again, and events tell nothing.
func TestCloseEndsFollowingEvents(t *testing.T) {
	eachPushed(t, time.Hour, func(t *testing.T, p *pushed) {
		ctx := t.Context()
		require.NoError(t, p.other.Put(ctx, "k", 1))
		p.reads(t, "k")
		require.NoError(t, p.store.Close(ctx))
		for range 2 {
			took, _ := p.reads(t, "k")
			assert.Equal(t, 1, took)
		}
		require.NoError(t, p.store.Put(ctx, "k", 2))
		_, value := p.reads(t, "k")
		assert.Equal(t, "2", value)
	})
}
