package load_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/faults/load"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// script plays one fault, the same way each time. It returns what does not hold, or nil where all holds.
type script struct {
	name string
	play func(s *stage) error
}

var scripts = []script{
	{"a look back that fails after a PUT: what the PUT hides comes back", failedLookBack},
	{"a look back that fails after a PUT: one process holds a lock", failedLookBackOfLock},
	{"a process reads what it has written though a rival hides that", ownHidden},
	{"a PUT that is delivered late undoes no later Put, per key", lateAfterPut},
	{"a PUT that is delivered late undoes no later Delete, per key", lateAfterDelete},
	{"a PUT that is delivered late undoes no later Put, single writer", lateSingleWriter},
	{"a PUT that is delivered late undoes no later Put that is not listed yet", lateBeforeListed},
	{"a PUT that is delivered late undoes no later Put, single writer that follows", lateSingleFollower},
	{"a Put of the same value counts after one whose request was made again, behind another's Update", samePutAgain},
	{"an Update counts by no guess which of two first events was stored first", unplaced},
	{"a follower repairs a fork though its first request fails", repairFails},
	{"an encrypted value is readable though its event was delivered twice", encryptedTwice},
	{"an encrypted value is readable though a device was not listed at first", keyless("/keys/query")},
	{"an encrypted value is readable though a one-time key was not claimed at first", keyless("/keys/claim")},
	{"an encrypted value is readable though its session was not shared at first", keyless("/sendToDevice/m.room.encrypted/")},
	{"an encrypted value is readable though a device had no one-time key at first", withheld},
	{"a Put outlives one 408", once(faults.Fault{Kind: faults.Timeout})},
	{"a Put outlives one 500", once(faults.Fault{Kind: faults.Internal})},
	{"a Put outlives one 502", once(faults.Fault{Kind: faults.BadGateway})},
	{"a Put outlives one 503", once(faults.Fault{Kind: faults.Unavailable})},
	{"a Put outlives one 504", once(faults.Fault{Kind: faults.GatewayLate})},
	{"a Put outlives one 520", once(faults.Fault{Kind: faults.Cloudflare, Status: 520})},
	{"a Put outlives one 530", once(faults.Fault{Kind: faults.Cloudflare, Status: 530})},
	{"a Put outlives one 429", once(faults.Fault{Kind: faults.Limited})},
	{"a Put outlives a lost answer", once(faults.Fault{Kind: faults.Lose})},
	{"a Put outlives a body that breaks", once(faults.Fault{Kind: faults.Reset, Part: 0.5})},
	{"a body that is cut and does not say so does no harm", harmless(faults.Fault{Kind: faults.Truncated, Part: 0.5})},
	{"a page of HTML does no harm", harmless(faults.Fault{Kind: faults.HTML})},
	{"a Put waits as long as the body of a 429 says", waitsForBody},
}

func TestScripts(t *testing.T) {
	eachGround(t, func(t *testing.T, on *ground) {
		for _, script := range scripts {
			t.Run(script.name, func(t *testing.T) {
				t.Parallel()
				client, err := on.Register(t.Context(), "script")
				require.NoError(t, err)
				require.NoError(t, script.play(&stage{T: t, on: on, client: client}))
			})
		}
	})
}

// stage is what a script plays on: a room, and processes of one account.
type stage struct {
	*testing.T
	on     *ground
	client *mautrix.Client
	room   id.RoomID

	brought  sync.Map             // of event IDs: the messages that a follower's sync has brought
	entered  func(a *actor) error // is told of each process that late makes, where it is given
	unlisted bool                 // whether a late delivery comes before the homeserver lists what it comes after
}

// actor is a process with a transport that does what its decide says.
type actor struct {
	*roomkv.Store
	client    *mautrix.Client
	transport *faults.Transport
}

// enter makes a process.
func (s *stage) enter(decide faults.Decide, options ...roomkv.Option) *actor {
	s.Helper()
	if s.room == "" {
		s.room = hstest.Room(s.T, s.client)
	}
	client, err := s.on.NewDevice(s.Context(), s.client.UserID)
	require.NoError(s, err)
	client.DefaultHTTPBackoff = 20 * time.Millisecond
	a := &actor{client: client}
	if decide != nil {
		a.transport = faults.Under(client, decide, nil)
		a.transport.Begin()
		s.Cleanup(func() {
			a.transport.Heal()
			a.transport.Wait()
		})
	}
	a.Store, err = roomkv.New(client, s.room.String(), options...)
	require.NoError(s, err)
	return a
}

// settle waits until the homeserver lists what it has acknowledged.
func (s *stage) settle() (sent *mautrix.RespSendEvent, err error) {
	sent, err = s.client.SendText(s.Context(), s.room, "settled")
	if err != nil {
		return nil, err
	}
	return sent, soon(func() error {
		page, err := s.client.Messages(s.Context(), s.room, "", "", mautrix.DirectionBackward, nil, 10)
		if err == nil && !slices.ContainsFunc(page.Chunk, func(evt *event.Event) bool { return evt.ID == sent.EventID }) {
			err = errors.New("the homeserver does not list what it has acknowledged")
		}
		return err
	})
}

// soon asks again what does not hold, for as long as a writer looks for rivals in the background.
func soon(holds func() error) (err error) {
	for end := time.Now().Add(50 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = holds(); err == nil {
			return nil
		}
	}
	return err
}

// reads tells what is wrong where the store does not read that value.
func reads(ctx context.Context, store *roomkv.Store, key string, want int) error {
	got, err := roomkv.Get[int](ctx, store, key)
	if err == nil && got != want {
		err = fmt.Errorf("%q is %d and not %d", key, got, want)
	}
	return err
}

func isPut(req *http.Request) bool {
	return req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType)
}

func isMessages(req *http.Request) bool { return strings.HasSuffix(req.URL.Path, "/messages") }

// rival is a process whose next PUT is held until release is called, and whose look backs after that fail.
func (s *stage) rival(options ...roomkv.Option) (a *actor, armed func(), held <-chan struct{}, release func()) {
	s.Helper()
	isHeld, released := make(chan struct{}), make(chan struct{})
	var on, sent atomic.Bool
	var once sync.Once
	a = s.enter(func(_ int, req *http.Request) faults.Fault {
		switch {
		case on.Load() && isPut(req):
			once.Do(func() {
				sent.Store(true)
				close(isHeld)
				<-released
			})
		case sent.Load() && isMessages(req):
			return faults.Fault{Kind: faults.Internal}
		}
		return faults.Fault{}
	}, options...)
	return a, func() { on.Store(true) }, isHeld, sync.OnceFunc(func() { close(released) })
}

// hide lets a write of one process be hidden by one of a rival who began before and cannot look back, for good if the rival has died. It
// returns the first process, and both errors.
func (s *stage) hide(dies bool, first, second func(context.Context, *roomkv.Store) error, options ...roomkv.Option) (a *actor, firstErr, secondErr error) {
	s.Helper()
	ctx := s.Context()
	a = s.enter(nil, options...)
	b, arm, held, release := s.rival(options...)
	require.NoError(s, a.Put(ctx, "before", 0))
	for _, store := range []*roomkv.Store{a.Store, b.Store} {
		_, err := store.Keys(ctx)
		require.NoError(s, err)
	}
	arm()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		done <- second(ctx, b.Store)
	}()
	select {
	case <-held:
	case err := <-done:
		require.NoError(s, err, "the rival sends nothing")
	}
	firstErr = first(ctx, a.Store)
	release()
	secondErr = <-done
	if !dies { // only what came right after the PUT has failed
		b.transport.Heal()
	}
	return a, firstErr, secondErr
}

func putA(ctx context.Context, store *roomkv.Store) error { return store.Put(ctx, "a", 1) }

func putB(ctx context.Context, store *roomkv.Store) error { return store.Put(ctx, "b", 2) }

func failedLookBack(s *stage) error {
	_, err, _ := s.hide(false, putA, putB)
	if err != nil {
		return nil // nothing was acknowledged
	}
	return soon(func() error { return reads(s.Context(), s.enter(nil).Store, "a", 1) })
}

func failedLookBackOfLock(s *stage) error {
	create := func(value int) func(context.Context, *roomkv.Store) error {
		return func(ctx context.Context, store *roomkv.Store) error { return store.Create(ctx, "lock", value) }
	}
	_, first, second := s.hide(false, create(1), create(2), roomkv.WithPerKeyState())
	switch {
	case first == nil && second == nil:
		return errors.New("both have the lock")
	case first == nil:
		return soon(func() error { return reads(s.Context(), s.enter(nil, roomkv.WithPerKeyState()).Store, "lock", 1) })
	}
	return nil
}

func ownHidden(s *stage) error {
	a, err, _ := s.hide(false, putA, putB)
	if err != nil {
		return nil
	}
	for i := range 5 {
		if err := reads(s.Context(), a.Store, "a", 1); err != nil {
			return fmt.Errorf("read %d: %w", i+1, err)
		}
	}
	return nil
}

// late lets the first delivery of a PUT come after what is done meanwhile, and returns once it has come. Its sender is told 504, tries again,
// and is acknowledged.
func (s *stage) late(meanwhile func(ctx context.Context, store *roomkv.Store) error, options ...roomkv.Option) (*actor, error) {
	var once atomic.Bool
	a := s.enter(func(_ int, req *http.Request) faults.Fault {
		if isPut(req) && once.CompareAndSwap(false, true) {
			return faults.Fault{Kind: faults.Late, Wait: time.Hour}
		}
		return faults.Fault{}
	}, options...)
	if s.entered != nil {
		if err := s.entered(a); err != nil {
			return nil, err
		}
	}
	if err := a.Put(s.Context(), "k", 1); err != nil {
		return nil, err
	}
	if err := meanwhile(s.Context(), a.Store); err != nil {
		return nil, err
	}
	if !s.unlisted {
		if _, err := s.settle(); err != nil {
			return nil, err
		}
	}
	a.transport.Heal()
	a.transport.Wait()
	return a, nil
}

// lateAfterPut and lateAfterDelete: who wrote the key in the last minute knows a late delivery for what it is, and writes the right value back.
func lateAfterPut(s *stage) error {
	a, err := s.late(func(ctx context.Context, a *roomkv.Store) error { return a.Put(ctx, "k", 2) }, roomkv.WithPerKeyState())
	if err != nil {
		return err
	}
	if err := reads(s.Context(), a.Store, "k", 2); err != nil {
		return err
	}
	return soon(func() error { return reads(s.Context(), s.enter(nil, roomkv.WithPerKeyState()).Store, "k", 2) })
}

// samePutAgain: the answer to a Put is lost, another process writes, and the request is made again, which passes for a late delivery. The next Put
// has the same value.
func samePutAgain(s *stage) error {
	add := func(old int, _ bool) (int, error) { return old + 10, nil }
	b := s.enter(nil, roomkv.WithPerKeyState())
	var puts atomic.Int32
	var failed error
	a := s.enter(func(_ int, req *http.Request) faults.Fault {
		if isPut(req) {
			switch puts.Add(1) {
			case 1:
				return faults.Fault{Kind: faults.Lose}
			case 2:
				failed = roomkv.Update(s.Context(), b.Store, "k", add)
			}
		}
		return faults.Fault{}
	}, roomkv.WithPerKeyState())
	for range 2 {
		if err := errors.Join(a.Put(s.Context(), "k", 1), failed); err != nil {
			return err
		}
	}
	if err := roomkv.Update(s.Context(), s.enter(nil, roomkv.WithPerKeyState()).Store, "k", add); err != nil {
		return err
	}
	return reads(s.Context(), b.Store, "k", 11)
}

// unplaced: two processes make the first event of a key at once, and the one that is to ask which was stored first gets a page of HTML.
func unplaced(s *stage) error {
	perKey := roomkv.WithPerKeyState()
	held, released := make(chan struct{}), make(chan struct{})
	hold, asked := sync.OnceFunc(func() {
		close(held)
		<-released
	}), atomic.Int32{}
	b := s.enter(func(_ int, req *http.Request) faults.Fault {
		switch {
		case isPut(req):
			hold()
		case strings.Contains(req.URL.Path, "/context/"):
			asked.Add(1)
			return faults.Fault{Kind: faults.HTML, Sent: true}
		}
		return faults.Fault{}
	}, perKey)
	update := func(store *roomkv.Store, token int) error {
		return roomkv.Update(s.Context(), store, "list", func(old []int, _ bool) ([]int, error) { return append(old, token), nil })
	}
	done := make(chan error, 1)
	go func() { done <- update(b.Store, 2) }()
	<-held
	err := update(s.enter(nil, perKey).Store, 1)
	close(released)
	guessed := <-done
	switch {
	case err != nil:
		return err
	case asked.Load() == 0:
		return errors.New("nobody asked which was stored first")
	case guessed == nil:
		return errors.New("the Update is acknowledged, though nobody told which was stored first")
	case !errors.Is(guessed, roomkv.ErrCorrupt):
		return guessed
	}
	last := s.enter(nil, perKey).Store
	if err := update(last, 3); err != nil {
		return err
	}
	got, err := roomkv.Get[[]int](s.Context(), last, "list")
	if err == nil && !slices.Contains(got, 1) {
		err = fmt.Errorf("the list is %v, without what was acknowledged", got)
	}
	return err
}

// lateBeforeListed is lateAfterPut on a homeserver that takes long to list what it has acknowledged, as Dendrite under load.
func lateBeforeListed(s *stage) error {
	s.unlisted = true
	s.on = &ground{&load.World{Homeserver: fakehs.New(fakehs.Options{Lag: 300 * time.Millisecond})}, "slow"}
	var err error
	if s.client, err = s.on.Register(s.Context(), "script"); err != nil {
		return err
	}
	return lateAfterPut(s)
}

func lateAfterDelete(s *stage) error {
	a, err := s.late(func(ctx context.Context, a *roomkv.Store) error { return a.Delete(ctx, "k") }, roomkv.WithPerKeyState())
	if err != nil {
		return err
	}
	gone := func(store *roomkv.Store) error {
		if err := reads(s.Context(), store, "k", 0); !errors.Is(err, roomkv.ErrNotFound) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	}
	if err := gone(a.Store); err != nil {
		return err
	}
	return soon(func() error { return gone(s.enter(nil, roomkv.WithPerKeyState()).Store) })
}

// lateSingleWriter: a single writer reads the old value until it writes again.
func lateSingleWriter(s *stage) error {
	a, err := s.late(func(ctx context.Context, a *roomkv.Store) error { return a.Put(ctx, "other", 2) }, roomkv.WithSingleWriter())
	if err != nil {
		return err
	}
	if err := a.Put(s.Context(), "third", 3); err != nil {
		return err
	}
	return reads(s.Context(), s.enter(nil).Store, "other", 2)
}

// lateSingleFollower is lateSingleWriter where the writer follows, so that the sync brings the late delivery.
func lateSingleFollower(s *stage) error {
	var a *actor
	stop := func() {}
	defer func() { stop() }()
	s.entered = func(entered *actor) (err error) {
		a = entered
		stop, err = s.follow(a)
		return err
	}
	_, err := s.late(func(ctx context.Context, a *roomkv.Store) error { return a.Put(ctx, "other", 2) }, roomkv.WithSingleWriter())
	if err != nil {
		return err
	}
	sent, err := s.settle()
	if err != nil {
		return err
	}
	if err := soon(func() error { // what the sync has brought, it has brought in order
		if _, brought := s.brought.Load(sent.EventID); !brought {
			return errors.New("the sync does not bring what was sent")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := a.Put(s.Context(), "third", 3); err != nil {
		return err
	}
	return reads(s.Context(), s.enter(nil).Store, "other", 2)
}

// follow makes a process follow its sync, and returns after the first response.
func (s *stage) follow(a *actor) (stop func(), err error) {
	if err := a.Follow(); err != nil {
		return nil, err
	}
	first := make(chan struct{})
	once := sync.OnceFunc(func() { close(first) })
	a.client.Syncer.(*mautrix.DefaultSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		once()
		return true
	})
	a.client.Syncer.(*mautrix.DefaultSyncer).OnEventType(event.EventMessage, func(_ context.Context, evt *event.Event) { s.brought.Store(evt.ID, true) })
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.client.SyncWithContext(ctx)
	}()
	<-first
	return func() {
		cancel()
		<-ended
	}, nil
}

// repairFails has a fork whose writers have died, and a follower whose first request to repair it fails.
func repairFails(s *stage) error {
	var on atomic.Bool
	var failed atomic.Int64
	follower := s.enter(func(_ int, req *http.Request) faults.Fault {
		if on.Load() && isPut(req) && failed.CompareAndSwap(0, 1) {
			return faults.Fault{Kind: faults.Internal}
		}
		return faults.Fault{}
	})
	stop, err := s.follow(follower)
	if err != nil {
		return err
	}
	defer stop()
	other := s.enter(nil)
	for i := range 2 { // what is read from memory is followed
		if err := other.Put(s.Context(), "warm", i); err != nil {
			return err
		}
		if err := soon(func() error { return reads(s.Context(), follower.Store, "warm", i) }); err != nil {
			return err
		}
	}
	on.Store(true)
	if _, err, _ = s.hide(true, putA, putB); err != nil {
		return err
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && failed.Load() == 0; {
		time.Sleep(50 * time.Millisecond)
	}
	if failed.Load() == 0 {
		return errors.New("the follower repairs nothing")
	}
	return soon(func() error { return reads(s.Context(), s.enter(nil).Store, "a", 1) })
}

func encryptedTwice(s *stage) error {
	hstest.Crypto(s.T, s.client)
	s.room = hstest.EncryptedRoom(s.T, s.client)
	defer s.sync(s.client)()
	device, err := s.on.NewDevice(s.Context(), s.client.UserID)
	require.NoError(s, err)
	hstest.Crypto(s.T, device)
	transport := faults.Under(device, func(_ int, req *http.Request) faults.Fault {
		if strings.Contains(req.URL.Path, "/send/m.room.encrypted") {
			return faults.Fault{Kind: faults.Twice}
		}
		return faults.Fault{}
	}, nil)
	transport.Begin()
	writer, err := roomkv.New(device, s.room.String())
	require.NoError(s, err)
	for i := range 5 {
		if err := writer.Put(s.Context(), fmt.Sprint(i), i); err != nil {
			return err
		}
	}
	transport.Wait()
	reader, err := roomkv.New(s.client, s.room.String())
	require.NoError(s, err)
	var errs []error
	for i := range 5 {
		errs = append(errs, reads(s.Context(), reader, fmt.Sprint(i), i))
	}
	return errors.Join(errs...)
}

// keyless: what befalls the requests by which a Megolm session reaches another device keeps none of the values from that device that are acknowledged.
func keyless(path string) func(*stage) error {
	return func(s *stage) error {
		var errs []error
		for _, fault := range []faults.Fault{
			{Kind: faults.Drop}, {Kind: faults.Lose}, {Kind: faults.Truncated, Part: 0.5}, {Kind: faults.HTML}, {Kind: faults.Internal, Sent: true},
		} {
			for _, times := range []int32{1, 6} { // one attempt of a request, and all attempts of one Put
				if err := s.shareAfter(path, fault, times); err != nil {
					errs = append(errs, fmt.Errorf("%q, sent=%t, %d times: %w", fault.Kind, fault.Sent, times, err))
				}
			}
		}
		return errors.Join(errs...)
	}
}

// shareAfter has a device write a value that another device of the user and another user read, after its first requests to the path have failed.
func (s *stage) shareAfter(path string, fault faults.Fault, times int32) error {
	var befell atomic.Int32
	cast := s.cast()
	transport := faults.Under(cast.writer, func(_ int, req *http.Request) faults.Fault {
		if strings.Contains(req.URL.Path, path) && befell.Add(1) <= times {
			return fault
		}
		return faults.Fault{}
	}, nil)
	transport.Begin()
	defer transport.Wait()
	if err := cast.share(s); err != nil {
		return err
	}
	if befell.Load() < times {
		return errors.New("the fault befell nothing")
	}
	return nil
}

// withheld: where another user's device has no one-time key left, mautrix tells that device that the session is withheld from it, and sends
// the session when it is asked for.
func withheld(s *stage) error {
	cast := s.cast()
	defer s.sync(cast.writer)()
	next := cmp.Or(cast.writer.Client.Transport, http.DefaultTransport)
	var once atomic.Bool
	client := *cast.writer.Client
	cast.writer.Client = &client
	client.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/keys/claim") || !once.CompareAndSwap(false, true) {
			return next.RoundTrip(req)
		}
		return &http.Response{StatusCode: http.StatusOK, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(`{"one_time_keys":{}}`))}, nil
	})
	cast.readers = cast.readers[1:] // the user's own devices get a session only once they are verified
	if err := cast.share(s); err != nil {
		return err
	}
	if !once.Load() {
		return errors.New("nobody claimed a one-time key")
	}
	return nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// cast are devices in an encrypted room. The readers sync, and are another device of the writer's user and one of another user.
type cast struct {
	room    id.RoomID
	writer  *mautrix.Client
	readers []*mautrix.Client
}

func (s *stage) cast() *cast {
	var own [2]*mautrix.Client
	var err error
	for i := range own {
		own[i], err = s.on.Register(s.Context(), "script")
		require.NoError(s, err)
	}
	c := &cast{room: hstest.EncryptedRoom(s.T, own[0], own[1].UserID), readers: own[:]}
	_, err = own[1].JoinRoomByID(s.Context(), c.room)
	require.NoError(s, err)
	c.writer, err = s.on.NewDevice(s.Context(), own[0].UserID)
	require.NoError(s, err)
	for _, client := range c.readers {
		hstest.Crypto(s.T, client)
		s.Cleanup(s.sync(client))
	}
	hstest.Crypto(s.T, c.writer)
	c.writer.DefaultHTTPBackoff, c.writer.DefaultHTTPRetries = 20*time.Millisecond, 2
	return c
}

// share has the writer put a value until that is acknowledged, and tells what is wrong where a reader does not read it.
func (c *cast) share(s *stage) error {
	writer, err := roomkv.New(c.writer, c.room.String())
	require.NoError(s, err)
	for try := 1; ; try++ {
		if err = writer.Put(s.Context(), "k", try); err != nil && try < 6 {
			continue
		}
		for _, client := range c.readers {
			reader, failed := roomkv.New(client, c.room.String())
			require.NoError(s, failed)
			err = errors.Join(err, reads(s.Context(), reader, "k", try))
		}
		return err
	}
}

// sync syncs until stop is called.
func (s *stage) sync(client *mautrix.Client) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.SyncWithContext(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// befallen is a process of which one fault befalls the first PUT, and one each the first request to read and to look back.
func (s *stage) befallen(fault faults.Fault) *actor {
	var puts, gets, looks atomic.Int64
	return s.enter(func(_ int, req *http.Request) faults.Fault {
		count := &gets
		switch {
		case isPut(req):
			count = &puts
		case isMessages(req):
			count = &looks
		}
		if count.Add(1) == 1 {
			return fault
		}
		return faults.Fault{}
	})
}

// harmless has faults that are not told from what a homeserver answers: a write can fail, and the next one does not.
func harmless(fault faults.Fault) func(*stage) error {
	return func(s *stage) error {
		a := s.befallen(fault)
		for i := range 4 { // three faults at most
			err := a.Put(s.Context(), "k", i)
			if err == nil {
				if err := reads(s.Context(), s.enter(nil).Store, "k", i); err != nil {
					return err
				}
			} else if i == 3 {
				return err
			}
		}
		return nil
	}
}

// once has one fault befall each kind of request.
func once(fault faults.Fault) func(*stage) error {
	return func(s *stage) error {
		a := s.befallen(fault)
		for range 2 {
			if err := a.Put(s.Context(), "k", 1); err != nil {
				return err
			}
		}
		return reads(s.Context(), s.enter(nil).Store, "k", 1)
	}
}

func waitsForBody(s *stage) error {
	var puts atomic.Int64
	a := s.enter(func(_ int, req *http.Request) faults.Fault {
		if isPut(req) && puts.Add(1) == 1 {
			return faults.Fault{Kind: faults.LimitedBody, Wait: time.Second}
		}
		return faults.Fault{}
	})
	a.client.DefaultHTTPBackoff = time.Minute
	began := time.Now()
	if err := a.Put(s.Context(), "k", 1); err != nil {
		return err
	}
	if took := time.Since(began); took < time.Second || took > 30*time.Second {
		return fmt.Errorf("it took %s where the homeserver has asked for 1 s", took)
	}
	return nil
}
