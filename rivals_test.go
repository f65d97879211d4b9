package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/roomkv/roomkv/internal/wire"
)

// between is a transport that lets a test do something before and after each write, where a rival's would fall.
type between struct {
	calls atomic.Pointer[calls]
	next  http.RoundTripper
}

type calls struct {
	before func(n int)
	after  func(n int, event id.EventID)
	n      atomic.Int64
}

// interrupt has a transport under client call these from now on. Before and after get the number of the write, the first
// being 0. A write whose caller has given up can still be on its way, so that the transport stays where it is.
func interrupt(client *mautrix.Client, before func(n int), after func(n int, event id.EventID)) {
	b, ok := client.Client.Transport.(*between)
	if !ok {
		b = &between{next: http.DefaultTransport}
		interrupted := *client.Client
		interrupted.Transport = b
		client.Client = &interrupted
	}
	b.calls.Store(&calls{before: before, after: after})
}

func (b *between) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/state/") {
		return b.next.RoundTrip(req)
	}
	calls := b.calls.Load()
	n := int(calls.n.Add(1)) - 1
	if calls.before != nil {
		calls.before(n)
	}
	resp, err := b.next.RoundTrip(req)
	if err != nil || calls.after == nil {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var sent struct {
		EventID id.EventID `json:"event_id"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return nil, err
	}
	calls.after(n, sent.EventID)
	return resp, nil
}

// feed hands the client a sync response with these events of the room, as if the homeserver had sent it.
func feed(t testing.TB, server, client *mautrix.Client, room id.RoomID, limited bool, events ...id.EventID) {
	all := []json.RawMessage{}
	for _, evt := range events {
		var raw json.RawMessage
		eventually(t, func() bool {
			_, err := server.MakeRequest(context.Background(), http.MethodGet, server.BuildClientURL("v3", "rooms", room, "event", evt), nil, &raw)
			return err == nil
		}, "the event")
		all = append(all, raw)
	}
	text, err := json.Marshal(map[string]any{"next_batch": "x", "rooms": map[string]any{"join": map[string]any{
		room.String(): map[string]any{"timeline": map[string]any{"limited": limited, "events": all}}}}})
	assert.NoError(t, err)
	var resp mautrix.RespSync
	assert.NoError(t, json.Unmarshal(text, &resp))
	assert.NoError(t, client.Syncer.ProcessResponse(context.Background(), &resp, "x"))
}

func revision(t testing.TB, store *roomkv.Store, key string) id.EventID {
	entry, err := store.Entry(context.Background(), key)
	assert.NoError(t, err)
	return id.EventID(entry.Revision)
}

// rivals are two processes of one bot. The one of client follows a sync that the test feeds.
type rivals struct {
	client, device *mautrix.Client
	room           id.RoomID
	store, other   *roomkv.Store
}

func newRivals(t testing.TB, layout roomkv.Option) rivals {
	client := hstest.Client(t)
	r := rivals{client: client, device: again(t, client), room: hstest.Room(t, client)}
	r.other = open(t, r.device, r.room, layout)
	r.store = open(t, client, r.room, layout)
	return r
}

func (r rivals) feed(t testing.TB, limited bool, events ...id.EventID) {
	feed(t, r.device, r.client, r.room, limited, events...)
}

// What the sync skips, or a redaction makes the store forget, while a write is on its way, hides no rival's write.
func TestForgetWhileWriting(t *testing.T) {
	hstest.Parallel(t)
	for name, after := range map[string]func(t *testing.T, r rivals, rival, redaction, own id.EventID){
		"skipped later": func(t *testing.T, r rivals, rival, _, own id.EventID) {
			r.feed(t, false, rival, own)
			time.Sleep(10 * time.Millisecond)
			r.feed(t, true)
		},
		"skipped the rival": func(t *testing.T, r rivals, _, _, own id.EventID) { r.feed(t, true, own) },
		"redacted the base": func(t *testing.T, r rivals, rival, redaction, own id.EventID) {
			r.feed(t, false, rival, redaction, own)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			r := newRivals(t, layouts["single"])
			require.NoError(t, r.other.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
			base := revision(t, r.other, "a")
			require.NoError(t, r.store.Follow())
			r.feed(t, false)
			require.NoError(t, r.store.Get(ctx, "a", new(int)))
			var rival, redaction id.EventID
			interrupt(r.client, func(n int) {
				if n > 0 {
					return
				}
				assert.NoError(t, r.other.Put(ctx, "rival", 1))
				rival = revision(t, r.other, "rival")
				if strings.HasPrefix(name, "redacted") {
					resp, err := r.device.RedactEvent(ctx, r.room, base)
					assert.NoError(t, err)
					redaction = resp.EventID
				}
			}, func(n int, own id.EventID) {
				if n == 0 {
					go after(t, r, rival, redaction, own)
				} else {
					go r.feed(t, false, own)
				}
			})
			require.NoError(t, r.store.Put(ctx, "own", 1))
			require.NoError(t, r.store.Put(ctx, "later", 1))
			memory := memoryOf(t, r.other)
			for _, key := range []string{"a", "b", "rival", "own", "later"} {
				assert.Contains(t, memory, key)
			}
		})
	}
}

// A sync that brings what happened before the store first read changes nothing.
func TestSyncBehindTheFirstRead(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		r := newRivals(t, layout)
		require.NoError(t, r.store.Follow())
		r.feed(t, false)
		var events []id.EventID
		put := func(key string, value int) {
			require.NoError(t, r.other.Put(ctx, key, value))
			events = append(events, revision(t, r.other, key))
		}
		put("k", 1)
		for i := range 8 {
			put(fmt.Sprint("other ", i), i)
		}
		put("k", 2)
		require.NoError(t, r.store.Get(ctx, "k", new(int)))
		r.feed(t, false, events...)
		got, err := roomkv.Get[int](ctx, r.store, "k")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
	})
}

// small are values of about that many bytes together, of which none is made smaller by moving it to the media repository.
func small(prefix string, size int) map[string]any {
	const each = 330
	values := map[string]any{}
	for i := range size / each {
		key := fmt.Sprintf("%s %03d", prefix, i)
		values[key] = strings.Repeat("x", each-len(key)-len(`"":"",`))
	}
	return values
}

// Two writes that fit alone and not together: what was acknowledged stays, and nobody is blocked.
func TestMergeTooLarge(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	r := newRivals(t, layouts["single"])
	require.NoError(t, r.other.PutAll(ctx, small("base", 60_500)))
	require.NoError(t, r.store.Get(ctx, "base 000", new(any)))
	interrupt(r.client, func(n int) {
		if n == 0 {
			assert.NoError(t, r.other.PutAll(ctx, small("acknowledged", 2500)))
		}
	}, nil)
	require.ErrorIs(t, r.store.PutAll(ctx, small("second", 2500)), roomkv.ErrTooLarge)
	require.NoError(t, r.other.Put(ctx, "next", 1))
	memory := memoryOf(t, open(t, again(t, r.client), r.room))
	assert.Contains(t, memory, "acknowledged 000")
	assert.Contains(t, memory, "next")
	assert.NotContains(t, memory, "second 000")
}

// Two writes that fit alone and not together, of values that can be moved out.
func TestMergeMovesValuesOut(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	r := newRivals(t, layouts["single"])
	large := func(n int) string { return strings.Repeat("x", n) }
	require.NoError(t, r.other.Put(ctx, "base", large(40_000)))
	require.NoError(t, r.store.Get(ctx, "base", new(any)))
	interrupt(r.client, func(n int) {
		if n == 0 {
			assert.NoError(t, r.other.Put(ctx, "acknowledged", large(20_000)))
		}
	}, nil)
	require.NoError(t, r.store.Put(ctx, "second", large(20_000)))
	require.NoError(t, r.other.Put(ctx, "next", 1))
	memory := memoryOf(t, open(t, again(t, r.client), r.room))
	for key, size := range map[string]int{"base": 40_000, "acknowledged": 20_000, "second": 20_000} {
		assert.Len(t, memory[key], size+2, key)
	}
}

// Whoever joins a batch that the homeserver refused for its size gets an answer.
func TestJoinWhatIsTakenApart(t *testing.T) {
	hstest.Parallel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := newRivals(t, layouts["single"])
	require.NoError(t, r.other.PutAll(ctx, small("base", 59_500)))
	require.NoError(t, r.store.Get(ctx, "base 000", new(any)))
	var group sync.WaitGroup
	put := func(key string, size int, want error) {
		group.Go(func() {
			values := small(key, size)
			values[key] = 1
			if err := r.store.PutAll(ctx, values); want == nil {
				assert.NoError(t, err, key)
			} else if err != nil {
				assert.ErrorIs(t, err, want, key)
			}
		})
	}
	interrupt(r.client, func(n int) {
		switch n {
		case 0:
			put("one of two", 2700, roomkv.ErrTooLarge)
			put("the other", 2700, roomkv.ErrTooLarge)
			time.Sleep(100 * time.Millisecond)
		case 2: // the first of those alone
			assert.NoError(t, r.other.Put(ctx, "rival", 1))
			put("joins", 10, nil)
			time.Sleep(100 * time.Millisecond)
		}
	}, nil)
	put("first", 10, nil)
	group.Wait()
}

// A CompareAndPut that joins a commit looks as far back as one that begins it.
func TestCompareJoins(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	r := newRivals(t, layouts["single"])
	require.NoError(t, r.other.Put(ctx, "k", 1))
	old := roomkv.Revision(revision(t, r.other, "k"))
	for i := range 55 {
		require.NoError(t, r.other.Put(ctx, "other", i))
	}
	done := make(chan error, 1)
	interrupt(r.client, func(n int) {
		if n == 0 {
			assert.NoError(t, r.other.Put(ctx, "rival", 1))
			go func() { done <- r.store.CompareAndPut(ctx, "k", 2, old) }()
			time.Sleep(100 * time.Millisecond)
		}
	}, nil)
	require.NoError(t, roomkv.Update(ctx, r.store, "p", func(int, bool) (int, error) { return 1, nil }))
	require.NoError(t, <-done)
}

// A Pop that was overtaken gives the value that it removed, and nothing of the one before.
func TestPopGivesWhatItRemoved(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		r := newRivals(t, layout)
		require.NoError(t, r.other.Put(t.Context(), "k", map[string]int{"a": 1}))
		require.NoError(t, r.store.Get(t.Context(), "k", new(any)))
		interrupt(r.client, func(n int) {
			if n == 0 {
				assert.NoError(t, r.other.Put(t.Context(), "k", map[string]int{"b": 2}))
			}
		}, nil)
		var got map[string]int
		require.NoError(t, r.store.Pop(t.Context(), "k", &got))
		assert.Equal(t, map[string]int{"b": 2}, got)
	})
}

// Somebody with the power to write can make any number of heads.
func TestManyHeads(t *testing.T) {
	hstest.Parallel(t)
	const heads = 70
	store, client, room := newStore(t)
	require.NoError(t, store.Put(t.Context(), "base", 0))
	base := revision(t, store, "base")
	for i := range heads {
		fork := wire.Dict{
			Names:   map[string]string{"base": `0`, fmt.Sprint("fork ", i): `1`},
			Parents: &wire.Parents{Events: []id.EventID{base}, By: fmt.Sprint(i)},
		}
		_, err := client.SendStateEvent(t.Context(), room, database, "", fork.Content())
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	require.NoError(t, open(t, again(t, client), room).Put(ctx, "x", 1))
	assert.Len(t, memoryOf(t, store), heads+2)
}

// A Delete works in an encrypted room, also beside a Put that does not.
func TestDeleteBesideARefusedPut(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		const keys = 10
		client := hstest.Client(t)
		room := hstest.Room(t, client, &mautrix.ReqCreateRoom{Preset: "private_chat", InitialState: []*event.Event{{
			Type: event.StateEncryption, StateKey: new(string), Content: event.Content{Raw: map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}}}}})
		clear := open(t, client, room, layout, roomkv.WithEncryption(false))
		for i := range keys {
			require.NoError(t, clear.Put(t.Context(), fmt.Sprint(i), i))
		}
		store := open(t, client, room, layout)
		var group sync.WaitGroup
		for i := range keys {
			group.Go(func() {
				assert.ErrorIs(t, store.Put(t.Context(), fmt.Sprint(i), "new"), roomkv.ErrNoCrypto)
			})
			group.Go(func() { assert.NoError(t, store.Delete(t.Context(), fmt.Sprint(i))) })
		}
		group.Wait()
	})
}

// late is a transport that lists the events of a dict by another order than that in which they were stored: the last one
// comes before the one that was stored before it, as Synapse lists an event that took long to store. As that, it lists all
// that was acknowledged, for which Dendrite takes some milliseconds.
type late struct {
	listed atomic.Int64
	sent   atomic.Value // the answer to the last event
}

func (l *late) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if req.Method == http.MethodPut {
		body, err := io.ReadAll(resp.Body)
		l.sent.Store(string(body[bytes.IndexByte(body, '$')+1 : bytes.LastIndexByte(body, '"')]))
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, err
	}
	if !strings.HasSuffix(req.URL.Path, "/messages") || req.URL.Query().Has("from") {
		return resp, err
	}
	listing, err := io.ReadAll(resp.Body)
	for sent, _ := l.sent.Load().(string); err == nil && !bytes.Contains(listing, []byte(sent)); {
		if resp, err = http.DefaultTransport.RoundTrip(req); err == nil {
			listing, err = io.ReadAll(resp.Body)
		}
	}
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(listing))
	var page map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, err
	}
	if events, _ := page["chunk"].([]any); len(events) > 1 {
		events[0], events[1] = events[1], events[0]
		l.listed.Add(1)
	}
	body, err := json.Marshal(page)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, err
}

// A writer whose event is listed before one that had been stored and acknowledged gives way to that.
func TestListedBeforeWhatWasAcknowledged(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, other.Put(ctx, "counter", 0))
		require.NoError(t, other.Put(ctx, "base", 0))
		increment := func(store *roomkv.Store) error {
			return roomkv.Update(ctx, store, "counter", func(old int, _ bool) (int, error) { return old + 1, nil })
		}
		store := open(t, client, room, layout)
		require.NoError(t, store.Get(ctx, "counter", new(int)))
		interrupt(client, func(n int) {
			if n == 0 {
				assert.NoError(t, increment(other))
				assert.ErrorIs(t, other.Create(ctx, "counter", 7), roomkv.ErrExists)
			}
		}, nil)
		listing := new(late)
		client.Client.Transport.(*between).next = listing
		require.NoError(t, increment(store))
		require.NotZero(t, listing.listed.Load())
		got, err := roomkv.Get[int](ctx, open(t, again(t, client), room, layout), "counter")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
	})
}

// Every operation at once, by three processes of which two follow.
func TestAllAtOnce(t *testing.T) {
	hstest.Parallel(t)
	for _, name := range []string{"single", "perkey"} {
		t.Run("layout="+name, func(t *testing.T) {
			const goroutines, steps = 3, 3
			ctx := t.Context()
			client := hstest.Client(t)
			room := hstest.Room(t, client)
			var stores []*roomkv.Store
			for i := range 3 {
				device := again(t, client)
				if i == 0 {
					stores = append(stores, open(t, device, room, layouts[name]))
				} else {
					store, _ := follow(t, device, room, layouts[name])
					stores = append(stores, store)
				}
			}
			var creates, pops atomic.Int64
			var group sync.WaitGroup
			for s, store := range stores {
				for g := range goroutines {
					group.Go(func() {
						for i := range steps {
							key, slot := fmt.Sprintf("%d/%d/%d", s, g, i), fmt.Sprintf("slot %d/%d", g, i)
							assert.NoError(t, roomkv.Update(ctx, store, "counter", func(old int, _ bool) (int, error) { return old + 1, nil }))
							assert.NoError(t, store.Put(ctx, key, i))
							if err := store.Create(ctx, slot, s); err == nil {
								creates.Add(1)
							} else {
								assert.ErrorIs(t, err, roomkv.ErrExists)
							}
							assert.NoError(t, store.Put(ctx, "gone "+key, i))
							assert.NoError(t, store.Delete(ctx, "gone "+key))
							if err := store.Pop(ctx, slot, new(int)); err == nil {
								pops.Add(1)
							} else {
								assert.ErrorIs(t, err, roomkv.ErrNotFound)
							}
						}
					})
				}
			}
			group.Wait()
			fresh := open(t, again(t, client), room, layouts[name])
			counter, err := roomkv.Get[int](ctx, fresh, "counter")
			require.NoError(t, err)
			assert.Equal(t, len(stores)*goroutines*steps, counter)
			assert.Equal(t, creates.Load(), pops.Load())
			eventually(t, func() bool { return len(memoryOf(t, fresh)) == len(stores)*goroutines*steps+1 }, "the keys that were put, and the counter")
		})
	}
}

// A process creates a key of which it does not see that another has just done so, and dies before it finds out. Who takes the
// value then looks back beyond what is current, to the one that counts.
func TestFirstEventHasARival(t *testing.T) {
	hstest.Parallel(t)
	for name, read := range map[string]bool{"unknown": false, "read before": true} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			client := hstest.Client(t)
			room := hstest.Room(t, client)
			store := open(t, client, room, roomkv.WithPerKeyState())
			dieSending(t, again(t, client), room, "k", func(ctx context.Context, late *roomkv.Store) error { return late.Create(ctx, "k", 2) }, func() {
				assert.NoError(t, store.Create(ctx, "k", 1))
				others := map[string]any{}
				for i := range 60 {
					others[fmt.Sprint("other ", i)] = i
				}
				assert.NoError(t, store.PutAll(ctx, others), "more than one look back lists")
			}, roomkv.WithPerKeyState())

			device := again(t, client)
			use, next := through(device)
			var reads atomic.Int64
			use(func(req *http.Request) (*http.Response, error) {
				if strings.Contains(req.URL.Path, memoryPath) {
					reads.Add(1)
				}
				return next.RoundTrip(req)
			})
			taker, _ := follow(t, device, room, roomkv.WithPerKeyState())
			if read {
				eventually(t, func() bool {
					before := reads.Load()
					require.NoError(t, taker.Get(ctx, "k", new(int)))
					return reads.Load() == before
				}, "the sync feeds what is read")
			}
			var popped int
			require.NoError(t, taker.Pop(ctx, "k", &popped))
			assert.Equal(t, 1, popped)
			require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
		})
	}
}

// What has just been written hides nothing that rivals what it was written on.
func TestUpdateAfterAPut(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t)
	require.NoError(t, store.Put(ctx, "counter", 0))
	dieSending(t, again(t, client), room, "", func(ctx context.Context, late *roomkv.Store) error {
		return roomkv.Update(ctx, late, "counter", increment)
	}, func() {
		assert.NoError(t, roomkv.Update(ctx, store, "counter", increment))
		for i := range 25 {
			_, err := client.SendStateEvent(ctx, room, database, fmt.Sprint("another memory ", i), map[string]any{})
			assert.NoError(t, err, "more than one look back lists")
		}
	})
	other := open(t, again(t, client), room)
	require.NoError(t, other.Put(ctx, "other", 0))
	require.NoError(t, roomkv.Update(ctx, other, "counter", increment))
	require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
	assert.Equal(t, "3", memoryOf(t, open(t, again(t, client), room))["counter"])
}

// dieSending lets a process write under the state key that does not see what others do in the meantime, and dies as it has sent that.
func dieSending(t *testing.T, client *mautrix.Client, room id.RoomID, stateKey string, write func(ctx context.Context, store *roomkv.Store) error, meantime func(), opts ...roomkv.Option) {
	t.Helper()
	use, next := through(client)
	dead := errors.New("dead")
	var sent atomic.Bool
	use(func(req *http.Request) (*http.Response, error) {
		if sent.Load() {
			return nil, dead
		}
		if !isPut(req, stateKey) {
			return next.RoundTrip(req)
		}
		meantime()
		time.Sleep(time.Second) // longer than clocks differ
		defer sent.Store(true)
		return next.RoundTrip(req)
	})
	require.ErrorIs(t, write(mautrix.WithMaxRetries(t.Context(), 0), open(t, client, room, opts...)), dead)
	require.True(t, sent.Load())
}

// The sync brings the first event of a key before the homeserver's answer arrives that there is none.
func TestFirstEventOvertakesAnAnswer(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, client, room, layout)
		device := again(t, client)
		use, next := through(device)
		var asked atomic.Bool
		var first atomic.Value // the event
		first.Store("none")
		brought, fed := make(chan struct{}), make(chan struct{})
		use(func(req *http.Request) (*http.Response, error) {
			sync := strings.HasSuffix(req.URL.Path, "/sync")
			if sync {
				select {
				case <-brought: // handlers have run when the next request is made
					close(fed)
					brought = nil
				default:
				}
			}
			resp, err := next.RoundTrip(req)
			switch {
			case err != nil:
			case sync && brought != nil:
				body, err := io.ReadAll(resp.Body)
				resp.Body = io.NopCloser(bytes.NewReader(body))
				if bytes.Contains(body, []byte(first.Load().(string))) {
					close(brought)
				}
				return resp, err
			case strings.HasSuffix(req.URL.Path, wire.ShardsName): // which both stores, of one process, ask for one after the other
			case resp.StatusCode == http.StatusNotFound && strings.Contains(req.URL.Path, memoryPath) && !asked.Swap(true):
				first.Store(`"counter":1`)
				assert.NoError(t, roomkv.Update(ctx, other, "counter", increment))
				<-fed
			}
			return resp, err
		})
		store, _ := follow(t, device, room, layout)
		require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
		require.True(t, asked.Load())
		got, err := roomkv.Get[int](ctx, open(t, again(t, client), room, layout), "counter")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
	})
}

// A key is deleted and made anew where another store knows an older value of it, and compares with what it has heard of.
func TestCompareWithWhatIsNewer(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, store.Create(ctx, "k", "old"))
		require.NoError(t, other.Delete(ctx, "k"))
		require.NoError(t, other.Create(ctx, "k", "new"))
		entry, err := other.Entry(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, store.CompareAndPut(ctx, "k", "newer", entry.Revision))
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", "wrong", entry.Revision), roomkv.ErrConflict)
		assert.Equal(t, map[string]string{"k": `"newer"`}, memoryOf(t, other))
	})
}

// A store follows whose sync has not brought yet what others have done. What fails for what is there, or changes nothing, does so by what
// is current.
func TestNothingIsDoneOnWhatIsNoLongerThere(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.Room(t, client)
		other := open(t, client, room, layout)
		device := again(t, client)
		use, next := through(device)
		var held atomic.Bool
		arrived := make(chan struct{})
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if held.Load() && strings.HasSuffix(req.URL.Path, "/sync") {
				select {
				case <-arrived:
				case <-req.Context().Done():
				}
			}
			return resp, err
		})
		store, _ := follow(t, device, room, layout)
		for _, key := range []string{"put", "updated", "gone", "popped"} {
			require.NoError(t, store.Put(ctx, key, "B"))
			eventually(t, func() bool { return store.Get(ctx, key, new(string)) == nil }, "it is read")
		}
		held.Store(true)
		require.NoError(t, other.Put(ctx, "put", "A"))
		require.NoError(t, other.Put(ctx, "updated", "A"))
		require.NoError(t, other.Delete(ctx, "gone"))
		require.NoError(t, other.Pop(ctx, "popped", new(string)))

		assert.NoError(t, store.Put(ctx, "put", "B"))
		lost := errors.New("lost")
		assert.ErrorIs(t, roomkv.Update(ctx, store, "updated", func(old string, _ bool) (string, error) {
			if old != "B" {
				return "", lost
			}
			return old, nil
		}), lost)
		assert.NoError(t, store.Create(ctx, "gone", "C"))
		assert.ErrorIs(t, store.Pop(ctx, "popped", new(string)), roomkv.ErrNotFound)
		close(arrived)
		assert.Equal(t, map[string]string{"put": `"B"`, "updated": `"A"`, "gone": `"C"`}, memoryOf(t, other))
	})
}

// A store writes on what it wrote before. In between others have written more than one look back lists, and what they did stands.
func TestUpdateAfterManyOthers(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newStore(t)
	ctx := t.Context()
	require.NoError(t, store.Put(ctx, "large", strings.Repeat("x", 44<<10)))
	require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
	other := open(t, again(t, client), room)
	for range 100 {
		require.NoError(t, roomkv.Update(ctx, other, "counter", increment))
	}
	require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
	assert.Equal(t, "102", memoryOf(t, open(t, again(t, client), room))["counter"])
}

// The homeserver gives as current what it does not list yet, with what comes before.
func TestListsAreBehindWhatIsCurrent(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
		require.NoError(t, roomkv.Update(ctx, other, "counter", increment))
		require.NoError(t, roomkv.Update(ctx, other, "counter", increment))
		lists := 0
		use, next := through(client)
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err != nil || !strings.HasSuffix(req.URL.Path, "/messages") {
				return resp, err
			}
			if lists++; lists > 3 {
				return resp, err
			}
			var page map[string]any
			assert.NoError(t, json.NewDecoder(resp.Body).Decode(&page))
			page["chunk"] = slices.DeleteFunc(page["chunk"].([]any), func(evt any) bool {
				counter, _ := evt.(map[string]any)["content"].(map[string]any)["counter"].(float64)
				return counter > 1
			})
			body, err := json.Marshal(page)
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			return resp, err
		})
		require.ErrorIs(t, store.Create(ctx, "counter", 0), roomkv.ErrExists)
		require.NoError(t, roomkv.Update(ctx, store, "counter", increment))
		assert.Equal(t, map[string]string{"counter": "4"}, memoryOf(t, open(t, again(t, client), room, layout)))
	})
}

// A write that the homeserver refuses for what is in it fails by itself, and not those that share an event with it.
func TestRefusedWriteFailsAlone(t *testing.T) {
	hstest.Parallel(t)
	refusing := func(client *mautrix.Client, status int) {
		use, next := through(client)
		use(func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/state/") {
				return next.RoundTrip(req)
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return nil, err
			}
			if !bytes.Contains(body, []byte("unwelcome")) {
				req.Body = io.NopCloser(bytes.NewReader(body))
				return next.RoundTrip(req)
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode": "M_BAD_JSON", "error": "from a test"}`))}, nil
		})
	}
	const writers = 20
	put := func(ctx context.Context, store *roomkv.Store, key string) error { return store.Put(ctx, key, key) }
	update := func(ctx context.Context, store *roomkv.Store, key string) error {
		return roomkv.Update(ctx, store, key, func(old string, _ bool) (string, error) { return old + key, nil })
	}
	for name, test := range map[string]struct {
		status int
		write  func(ctx context.Context, store *roomkv.Store, key string) error
		bad    []int
	}{
		"put 400": {400, put, []int{7}}, "put 413": {413, put, []int{0, 19}}, "put 500": {500, put, []int{3, 4, 5}},
		"update 400": {400, update, []int{0, 1}}, "update 413": {413, update, []int{11}}, "all 500": {500, put, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			store, client, room := newStore(t)
			client.DefaultHTTPBackoff, client.DefaultHTTPRetries = time.Millisecond, 1 // HTTP 500 is tried again
			refusing(client, test.status)
			require.NoError(t, store.Put(ctx, "first", 0))
			recorder := hstest.Record(client)
			var group sync.WaitGroup
			want := map[string]string{"first": "0"}
			held, free := make(chan bool), make(chan bool)
			hold := sync.OnceFunc(func() { close(held) })
			group.Go(func() { // whose fn holds up the others until all wait
				assert.NoError(t, roomkv.Update(ctx, store, "first", func(int, bool) (int, error) {
					hold()
					<-free
					return 0, nil
				}))
			})
			<-held
			for n := range writers {
				key := fmt.Sprint("welcome ", n)
				if slices.Contains(test.bad, n) {
					key = "un" + key
				} else {
					want[key] = strconv.Quote(key)
				}
				group.Go(func() {
					err := test.write(ctx, store, key)
					if slices.Contains(test.bad, n) {
						assert.Error(t, err, key)
					} else {
						assert.NoError(t, err, key)
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			close(free)
			group.Wait()
			assert.Equal(t, want, memoryOf(t, open(t, twin(t, client), room)))
			assert.Less(t, recorder.Count(), 2*5*writers, "each once more, where it failed")
		})
	}
}

// One that joins a merge is refused, and what was sent before it stands.
func TestRefusedWriteLeavesAMergeAlone(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	r := newRivals(t, roomkv.WithSingleStateKey(""))
	require.NoError(t, r.other.Put(ctx, "base", 0))
	require.NoError(t, r.store.Get(ctx, "base", new(int)))
	use, next := through(r.client)
	var group sync.WaitGroup
	sent := 0
	use(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/state/") {
			return next.RoundTrip(req)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		if bytes.Contains(body, []byte("unwelcome")) {
			return &http.Response{StatusCode: 400, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode": "M_BAD_JSON", "error": "from a test"}`))}, nil
		}
		if sent++; sent == 1 { // a rival writes first, and others join before the two are merged
			assert.NoError(t, open(t, twin(t, r.device), r.room).Put(ctx, "rival", 1))
			for _, key := range []string{"unwelcome", "welcome"} {
				group.Go(func() { assert.Equal(t, key == "welcome", r.store.Put(ctx, key, 1) == nil, key) })
			}
			time.Sleep(50 * time.Millisecond)
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		return next.RoundTrip(req)
	})
	assert.NoError(t, r.store.Put(ctx, "own", 1))
	group.Wait()
	assert.Equal(t, map[string]string{"base": "0", "own": "1", "rival": "1", "welcome": "1"}, memoryOf(t, open(t, r.device, r.room)))
}

// Who has long been alone looks back to its own last events.
func TestLookBackOfWhoIsAlone(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	recorder := hstest.Record(client)
	for n := range 12 {
		recorder.Reset()
		require.NoError(t, store.Put(t.Context(), "key", n))
		time.Sleep(600 * time.Millisecond) // longer than a homeserver takes to store an event, as it is taken to be
	}
	pages := 0
	for _, request := range recorder.Requests() {
		if strings.HasSuffix(request.Path, "/messages") { // several where the list lags
			pages++
			var page struct{ Chunk []json.RawMessage }
			require.NoError(t, json.Unmarshal(request.Response, &page))
			assert.LessOrEqual(t, len(page.Chunk), 2)
		}
	}
	assert.Positive(t, pages)
}

// A writer that has seen somebody else's write in the last minute looks for what is new before it writes, and makes no fork.
func TestWritersThatTakeTurns(t *testing.T) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const puts = 6
				ctx := t.Context()
				server := fakehs.New(fakehs.Options{Mode: mode, Seed: 1, Name: "turns-" + mode.String()})
				one, err := server.Register(ctx, "one")
				require.NoError(t, err)
				two, err := server.Register(ctx, "two")
				require.NoError(t, err)
				room := hstest.Room(t, one, &mautrix.ReqCreateRoom{
					Preset: "private_chat", Invite: []id.UserID{two.UserID},
					PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{one.UserID: 100, two.UserID: 50}},
				})
				_, err = two.JoinRoomByID(ctx, room)
				require.NoError(t, err)
				stores, recorders := []*roomkv.Store{open(t, one, room), open(t, two, room)}, []*hstest.Recorder{hstest.Record(one), hstest.Record(two)}
				for n := range puts {
					for i, store := range stores {
						if n == 2 { // by then each knows of the other
							recorders[i].Reset()
						}
						require.NoError(t, store.Put(ctx, fmt.Sprint("key ", i), n))
						time.Sleep(2 * time.Second)
					}
				}
				for _, recorder := range recorders {
					assert.Equal(t, puts-2, len(statePuts(recorder)))
					assert.LessOrEqual(t, requests(recorder), (puts-2)*3+2, "for each Put the event, one list of what is new, and a look back; twice whether the room was upgraded")
				}
			})
		})
	}
}
