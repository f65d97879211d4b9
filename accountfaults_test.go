package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
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

// accountFaults are the known faults of WithAccountDataFallback, which is to be rebuilt. The list is to be emptied: a fault that is there
// no more and is still listed fails the test, and its check then becomes a test of what is right.
var accountFaults = []accountFault{
	{name: "a write outlives its deadline while the memory moves into the state", check: outlivesItsDeadline},
	{name: "Restore panics where the power goes between its event and the merge", check: restoreWithoutPower, panics: "index out of range"},
	{name: "a memory with a single state key and one per key share their account data", check: sharesAccountData},
	{name: "the contents that were sent lately are kept without bound", check: keepsAllContents},
	{name: "a slow watch loses the last change of account data", check: watchLosesTheLast},
	{name: "two processes of one account both create the same key", check: bothCreate},
	{name: "two processes of one account both pop the same value", check: bothPop},
	{name: "two processes of one account lose an update", check: losesUpdate},
	{name: "known account data that comes back empty once is overwritten", check: overwritesWhatWasKnown},
	{name: "account data that comes empty once to a new process is overwritten", check: overwritesWhatIsThere},
}

type accountFault struct {
	name   string
	check  func(t *testing.T, b *guestBot) (there bool)
	panics string // what the fault's panic says, where that is the fault
}

// run tells whether the fault is there. A panic is one where that is the fault, and else fails the test.
func (f accountFault) run(t *testing.T, b *guestBot) (there bool) {
	t.Helper()
	defer func() {
		switch text := fmt.Sprint(recover()); {
		case text == "<nil>":
		case f.panics != "" && strings.Contains(text, f.panics):
			there = true
		default:
			t.Errorf("a panic: %s", text)
			there = true
		}
	}()
	return f.check(t, b)
}

func TestKnownFaultsOfAccountData(t *testing.T) {
	for _, fault := range accountFaults {
		for _, mode := range fakehs.Modes {
			t.Run(fault.name+"/"+mode.String(), func(t *testing.T) {
				b := newBot2(t, fakehstest.New(t, fakehs.Options{Mode: mode, Seed: 1, Spread: -1}))
				if !fault.run(t, b) {
					t.Error("the fault is not there any more: take it off the list, and make its check a test of what is right")
				}
			})
		}
	}
}

// guestBot is a bot in a room where it has no power to write state.
type guestBot struct {
	server *fakehs.Server
	admin  *mautrix.Client
	client *mautrix.Client
	room   id.RoomID
}

func newBot2(t *testing.T, server *fakehs.Server) *guestBot {
	t.Helper()
	b := &guestBot{server: server, admin: fakehstest.Client(t, server), client: fakehstest.Client(t, server)}
	b.room = hstest.Room(t, b.admin)
	_, err := b.admin.InviteUser(t.Context(), b.room, &mautrix.ReqInviteUser{UserID: b.client.UserID})
	require.NoError(t, err)
	_, err = b.client.JoinRoomByID(t.Context(), b.room)
	require.NoError(t, err)
	return b
}

// open makes a store of the bot's.
func (b *guestBot) open(t *testing.T, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	return open(t, b.client, b.room, append(opts, roomkv.WithAccountDataFallback())...)
}

// process makes a store of the bot's in another process, as far as account data goes.
func (b *guestBot) process(t *testing.T, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	roomkv.ForgetAccounts(b.room)
	return b.open(t, opts...)
}

// power gives the bot so much.
func (b *guestBot) power(t *testing.T, level int) {
	t.Helper()
	assert.NoError(t, b.givePower(t.Context(), level))
}

func (b *guestBot) givePower(ctx context.Context, level int) error {
	var levels event.PowerLevelsEventContent
	if err := b.admin.StateEvent(ctx, b.room, event.StatePowerLevels, "", &levels); err != nil {
		return err
	}
	levels.SetUserLevel(b.client.UserID, level)
	_, err := b.admin.SendStateEvent(ctx, b.room, event.StatePowerLevels, "", &levels)
	return err
}

// isOwn tells whether a request is the bot's, of a method and of a path that contains a text.
func (b *guestBot) isOwn(req *http.Request, method, path string) bool {
	return req.Method == method && strings.Contains(req.URL.Path, path) && strings.HasSuffix(req.Header.Get("Authorization"), " "+b.client.AccessToken)
}

// account is the account data as the homeserver has it.
func (b *guestBot) account(t *testing.T) (content map[string]json.RawMessage) {
	t.Helper()
	require.NoError(t, b.client.GetRoomAccountData(t.Context(), b.room, roomkv.DefaultEventType, &content))
	return content
}

// emptyOnce makes the homeserver answer once that there is nothing in account data, though there is.
func (b *guestBot) emptyOnce() {
	var answered atomic.Bool
	b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !b.isOwn(req, http.MethodGet, "/account_data/") || answered.Swap(true) {
			return next(req)
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
			Body: io.NopCloser(strings.NewReader(`{}`))}, nil
	})
}

func outlivesItsDeadline(t *testing.T, b *guestBot) bool {
	store := b.process(t)
	require.NoError(t, store.Put(t.Context(), "k", 1))
	b.power(t, 50)
	roomkv.PassTime(b.room, store)
	ctx, cancel := context.WithCancel(t.Context())
	sending, returned := make(chan bool), make(chan bool)
	var held atomic.Bool
	b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if b.isOwn(req, http.MethodPut, "/state/") && !held.Swap(true) {
			close(sending)
			select {
			case <-returned:
			case <-time.After(time.Second):
			}
		}
		return next(req)
	})
	go func() {
		defer close(returned)
		_ = store.Put(ctx, "other", 2)
	}()
	<-sending
	cancel()
	select {
	case <-returned:
		return false
	case <-time.After(500 * time.Millisecond):
		<-returned
		return true
	}
}

func restoreWithoutPower(t *testing.T, b *guestBot) bool {
	ctx := t.Context()
	b.power(t, 50)
	store := b.process(t)
	require.NoError(t, store.Follow())
	fakehstest.Sync(t, b.client)
	require.NoError(t, store.Put(ctx, "k", 1))
	b.server.Settle()
	snapshot, err := store.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
	require.NoError(t, err)
	require.NoError(t, store.Put(ctx, "k", 2))
	var once atomic.Bool
	asked := make(chan bool, 100)
	b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		resp, err := next(req)
		if once.Load() && b.isOwn(req, http.MethodGet, "/state/m.room.power_levels") {
			asked <- true
		}
		return resp, err
	})
	b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !b.isOwn(req, http.MethodPut, "/state/") || once.Swap(true) {
			return next(req)
		}
		// A rival that it has not seen, and no power to merge the two, as the sync tells while the answer is on its way.
		_, err := b.admin.SendStateEvent(context.WithoutCancel(ctx), b.room, database, "", map[string]any{"k": 2, "theirs": 1})
		assert.NoError(t, err)
		resp, err := next(req)
		assert.NoError(t, b.givePower(context.WithoutCancel(ctx), 0))
		b.server.Settle()
		select {
		case <-asked:
		case <-time.After(3 * time.Second):
			assert.Fail(t, "the sync does not tell of the power")
		}
		time.Sleep(50 * time.Millisecond)
		return resp, err
	})
	_, _ = store.Restore(ctx, snapshot)
	return false
}

func sharesAccountData(t *testing.T, b *guestBot) bool {
	ctx := t.Context()
	single, perKey := b.process(t), b.open(t, roomkv.WithPerKeyState())
	require.NoError(t, single.Put(ctx, "k", 1))
	copied, err := roomkv.Copy(ctx, perKey, single)
	require.NoError(t, err)
	require.NoError(t, perKey.Delete(ctx, "k"))
	gone := single.Get(ctx, "k", new(int))
	return copied.Equal == 1 || gone != nil
}

func keepsAllContents(t *testing.T, b *guestBot) bool {
	b.power(t, 50)
	store := b.process(t, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(t.Context(), "k", 1))
	return roomkv.SendLately(t.Context(), store, 1000) > 2*256
}

func watchLosesTheLast(t *testing.T, b *guestBot) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &heldStore{server: b.server, client: b.client, room: b.room, store: b.process(t)}
	w.follow(t)
	const waiting = 1001 // one more than a watch lets wait
	told, slow := make(chan string, 2*waiting), make(chan bool)
	go func() {
		for change, err := range w.store.Watch(ctx) {
			if err == nil {
				told <- string(change.New)
				<-slow
			}
		}
	}()
	for n, begun := -1000, false; !begun; n++ { // until it is slow
		require.NoError(t, w.store.Put(ctx, "k", n))
		select {
		case <-told:
			begun = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	for n := range waiting {
		require.NoError(t, w.store.Put(ctx, "k", n+1))
	}
	close(slow)
	for {
		select {
		case value := <-told:
			if value == fmt.Sprint(waiting) {
				return false
			}
		case <-time.After(500 * time.Millisecond):
			return true
		}
	}
}

// twoProcesses have both read account data before either writes.
func (b *guestBot) twoProcesses(t *testing.T) (first, second *roomkv.Store) {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, b.process(t).Put(ctx, "n", 1))
	for _, store := range []**roomkv.Store{&first, &second} {
		*store = b.process(t)
		require.NoError(t, (*store).Get(ctx, "n", new(int)))
	}
	return first, second
}

func bothCreate(t *testing.T, b *guestBot) bool {
	first, second := b.twoProcesses(t)
	return first.Create(t.Context(), "k", 1) == nil && second.Create(t.Context(), "k", 2) == nil
}

func bothPop(t *testing.T, b *guestBot) bool {
	first, second := b.twoProcesses(t)
	return first.Pop(t.Context(), "n", new(int)) == nil && second.Pop(t.Context(), "n", new(int)) == nil
}

func losesUpdate(t *testing.T, b *guestBot) bool {
	first, second := b.twoProcesses(t)
	want := 1
	for _, store := range []*roomkv.Store{first, second} {
		if roomkv.Update(t.Context(), store, "n", increment) == nil {
			want++
		}
	}
	got, err := roomkv.Get[int](t.Context(), b.process(t), "n")
	require.NoError(t, err)
	return got != want
}

func overwritesWhatWasKnown(t *testing.T, b *guestBot) bool {
	ctx := t.Context()
	store := b.process(t)
	require.NoError(t, store.Put(ctx, "k", 1))
	b.emptyOnce()
	_, err := roomkv.Copy(ctx, open(t, b.admin, b.room), store) // which asks for account data anew
	if err == nil {
		_ = store.Put(ctx, "other", 2)
	}
	return b.account(t)["k"] == nil
}

func overwritesWhatIsThere(t *testing.T, b *guestBot) bool {
	ctx := t.Context()
	require.NoError(t, b.process(t).Put(ctx, "k", 1))
	store := b.process(t)
	b.emptyOnce()
	_ = store.Put(ctx, "other", 2)
	return b.account(t)["k"] == nil
}
