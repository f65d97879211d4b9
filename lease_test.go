package roomkv_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

var leaseSeeds = flag.Int("lease-seeds", 8, "how many runs TestLeases and TestOnce make for each layout, in virtual time")

// leaseTTL is how long leases are for in these tests.
const leaseTTL = 30 * time.Second

// replicas are processes that share a memory, on a homeserver in memory and in virtual time. Requests take a while, and some fail.
type replicas struct {
	t      *testing.T
	random *chance
	server *fakehs.Server
	admin  *mautrix.Client
	room   id.RoomID
	opts   []roomkv.Option
	faulty bool

	mu     sync.Mutex
	stores []*roomkv.Store
}

// end closes what is left, and waits for what nobody waits for any more.
func (r *replicas) end() {
	for _, store := range r.stores {
		_ = store.Close(context.Background()) // which fails where the process is cut off
	}
	time.Sleep(2 * time.Minute)
}

func newReplicas(t *testing.T, seed uint64, layout string) *replicas {
	r := &replicas{t: t, random: &chance{random: rand.New(rand.NewPCG(seed, 0))}, opts: []roomkv.Option{layouts[layout]}}
	r.faulty = seed%4 < 2
	r.server = fakehs.New(fakehs.Options{Mode: fakehs.Modes[seed%2], Seed: seed, Name: layout})
	var err error
	r.admin, err = r.server.Register(t.Context(), "admin")
	require.NoError(t, err)
	r.room = administeredBy(t, r.admin, false)
	return r
}

var errCut = errors.New("the process is cut off")

// replica is a process. It is cut off from the homeserver once cut is called.
type replica struct {
	store *roomkv.Store
	cut   func()
	gone  chan struct{}
}

func (r *replicas) start(follows bool) *replica {
	same := twin(r.t, r.admin)
	same.DefaultHTTPBackoff = 50 * time.Millisecond // for one process here is what several are elsewhere, and one of them can wait for what another asks
	next := r.admin.Client.Transport
	p := &replica{gone: make(chan struct{})}
	p.cut = sync.OnceFunc(func() { close(p.gone) })
	same.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		r.random.sleep(20 * time.Millisecond)
		faults := 1 << 30
		if r.faulty {
			faults = 60
		}
		if strings.HasSuffix(req.URL.Path, "/sync") || strings.HasSuffix(req.URL.Path, "/filter") { // a sync that does not begin is not tried again
			faults = 1 << 30
		}
		switch r.random.below(faults) {
		case 0:
			return nil, errors.New("it did not arrive")
		case 1:
			select {
			case <-time.After(time.Duration(r.random.below(int(6 * time.Second)))):
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		}
		select {
		case <-p.gone:
			return nil, errCut
		default:
		}
		resp, err := next.RoundTrip(req)
		if r.random.below(faults) == 0 {
			return nil, errors.New("the answer was lost")
		}
		return resp, err
	})}
	p.store = open(r.t, same, r.room, r.opts...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stores = append(r.stores, p.store)
	if follows {
		require.NoError(r.t, p.store.Follow())
		r.t.Cleanup(startSync(same))
	}
	return p
}

// Of processes that are cut off one after the other, one at a time has the lease, another has it soon afterwards, and nothing counts that an earlier
// holder has written since.
func TestLeases(t *testing.T) {
	for _, layout := range []string{"single", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			t.Parallel()
			for seed := range *leaseSeeds {
				synctest.Test(t, func(t *testing.T) { leases(t, newReplicas(t, uint64(seed), layout), layout == "single") })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func leases(t *testing.T, r *replicas, atomic bool) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	held := map[*roomkv.Lease]*replica{}
	var cutAt time.Time
	fences, written := int64(0), int64(0)
	var group sync.WaitGroup
	work := func(p *replica) {
		for ctx.Err() == nil {
			lease, err := p.store.Lease(ctx, "leader", leaseTTL)
			if err != nil {
				select {
				case <-p.gone:
					return
				default:
					r.random.sleep(time.Second)
				}
				continue
			}
			mu.Lock()
			for other := range held {
				select {
				case <-other.Done():
					delete(held, other)
				default:
					t.Errorf("fences %d and %d are held at once", other.Fence(), lease.Fence())
				}
			}
			held[lease] = p
			assert.Greater(t, lease.Fence(), fences)
			fences = lease.Fence()
			if !cutAt.IsZero() {
				within := leaseTTL + 3*time.Second
				if r.faulty {
					within += 6 * time.Second // a request can stall
				}
				assert.Less(t, time.Since(cutAt), within, "until another has it")
				cutAt = time.Time{}
			}
			mu.Unlock()
			for on := true; on; {
				select {
				case <-lease.Done():
					on = false
				case <-ctx.Done():
					_ = lease.Release(context.WithoutCancel(ctx)) // which fails where the process is cut off
					return
				case <-time.After(9 * time.Second):
				}
				err := p.store.Transact(ctx, func(tx *roomkv.Tx) error {
					if err := tx.Require(lease); err != nil {
						return err
					}
					return tx.Put("by", lease.Fence())
				})
				switch {
				case !atomic:
					require.Error(t, err, "the record and the key have an event each")
				case err == nil:
					mu.Lock()
					assert.GreaterOrEqual(t, lease.Fence(), written, "an earlier holder has written")
					written = max(written, lease.Fence())
					mu.Unlock()
				}
			}
		}
	}
	begin := func() {
		p := r.start(r.random.below(2) == 0)
		group.Go(func() { work(p) })
	}
	for range 3 {
		begin()
	}
	for range 4 {
		time.Sleep(leaseTTL)
		r.random.sleep(leaseTTL)
		mu.Lock()
		for lease, p := range held {
			select {
			case <-lease.Done():
			default:
				p.cut()
				cutAt = time.Now()
			}
		}
		mu.Unlock()
		begin()
	}
	time.Sleep(2 * leaseTTL)
	mu.Lock()
	assert.True(t, cutAt.IsZero(), "somebody has the lease in the end")
	assert.Greater(t, fences, int64(2))
	mu.Unlock()
	cancel()
	group.Wait()
	r.end()
	if atomic {
		got, err := roomkv.Get[int64](t.Context(), open(t, r.admin, r.room, r.opts...), "by")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, got, written)
	}
}

// heldLease is a lease that a process has just got, while another process looks on.
type heldLease struct {
	*roomkv.Lease
	holder *replica
	other  *roomkv.Store
	fault  atomic.Pointer[func(*http.Request) error] // comes before each of the holder's requests
}

func (l *heldLease) before(fault func(*http.Request) error) { l.fault.Store(&fault) }

func (l *heldLease) ended() bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

// A lease is renewed after each third of its time, and ends by what its renewals find.
func TestLeaseRenewals(t *testing.T) {
	for about, renew := range map[string]func(t *testing.T, l *heldLease){
		"the record is another's": func(t *testing.T, l *heldLease) {
			record := map[string]any{"holder": "another", "fence": int64(7), "until": time.Now().Add(time.Hour).UnixMilli()}
			require.NoError(t, l.other.Put(t.Context(), "leader", record))
			require.ErrorIs(t, l.holder.store.Transact(t.Context(), func(tx *roomkv.Tx) error { return tx.Require(l.Lease) }), roomkv.ErrLeaseLost)
			time.Sleep(leaseTTL / 2)
			assert.True(t, l.ended())
			require.NoError(t, l.Release(t.Context()))
			is, err := roomkv.Get[struct{ Holder string }](t.Context(), l.other, "leader")
			require.NoError(t, err)
			assert.Equal(t, "another", is.Holder, "neither a renewal nor Release changes it")
		},
		"no request arrives for a while": func(t *testing.T, l *heldLease) {
			l.before(func(*http.Request) error { return errors.New("it did not arrive") })
			time.Sleep(leaseTTL * 2 / 3)
			l.before(func(*http.Request) error { return nil })
			time.Sleep(leaseTTL)
			assert.False(t, l.ended())
		},
		"the last one was slow": func(t *testing.T, l *heldLease) {
			l.before(func(req *http.Request) error {
				if req.Method == http.MethodPut {
					time.Sleep(leaseTTL / 6)
				}
				return nil
			})
			time.Sleep(leaseTTL * 2 / 3)
			l.holder.cut()
			time.Sleep(leaseTTL/2 + time.Second)
			assert.False(t, l.ended(), "it was renewed")
			time.Sleep(leaseTTL / 6)
			assert.True(t, l.ended(), "its time begins when the renewal was sent")
		},
	} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReplicas(t, 2, "single") // without faults by chance
				defer r.end()
				l := &heldLease{}
				l.before(func(*http.Request) error { return nil })
				next := r.admin.Client.Transport
				r.admin.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
					if err := (*l.fault.Load())(req); err != nil {
						return nil, err
					}
					return next.RoundTrip(req)
				})
				l.holder = r.start(false)
				r.admin.Client.Transport = next
				l.other = r.start(false).store
				var err error
				l.Lease, err = l.holder.store.Lease(t.Context(), "leader", leaseTTL)
				require.NoError(t, err)
				renew(t, l)
			})
		})
	}
}

// Each event is dealt with by one replica at most, and by one exactly where no call failed.
func TestOnce(t *testing.T) {
	for _, layout := range []string{"single", "perkey"} {
		t.Run("layout="+layout, func(t *testing.T) {
			t.Parallel()
			for seed := range *leaseSeeds {
				synctest.Test(t, func(t *testing.T) { dealtWithOnce(t, newReplicas(t, uint64(seed), layout)) })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func dealtWithOnce(t *testing.T, r *replicas) {
	const events = 40
	var mu sync.Mutex
	dealt, failed := map[int]int{}, map[int]bool{} // how many replicas deal with an event, and whether a call failed
	var group sync.WaitGroup
	for n := range 4 {
		p := r.start(n%2 == 0)
		if n == 3 {
			time.AfterFunc(8*time.Second, p.cut)
		}
		group.Go(func() {
			for event := range events {
				r.random.sleep(400 * time.Millisecond)
				mine, err := p.store.Once(t.Context(), id.EventID(fmt.Sprintf("$event%d", event)), time.Hour)
				mu.Lock()
				if mine {
					dealt[event]++
				}
				failed[event] = failed[event] || err != nil
				mu.Unlock()
			}
		})
	}
	group.Wait()
	r.end()
	for event := range events {
		if !failed[event] {
			assert.Equal(t, 1, dealt[event], "event %d", event)
		}
		assert.LessOrEqual(t, dealt[event], 1, "event %d", event)
	}
}
