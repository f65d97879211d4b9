package roomkv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// expiryRows are about values that count for a time alone.
var expiryRows = []row{
	{name: "ExpireAfter hides a value and the next write removes it", in: inAll, run: expires},
	{name: "ExpireAfter of each write", in: each + " single/following", run: expiresOfEachWrite},
	{name: "ExpireAfter is taken off, and kept by an Update", in: inRooms, run: expiryKept},
	{name: "ExpireAfter with sealed keys", in: "single/sealed perkey/sealed", run: expires},
	{name: "ExpireAfter in account data", in: each, run: expiresInAccountData},
	{name: "ExpireAfter of what waits for a flush", in: each, run: expiresBeforeFlush},
	{name: "ExpireAfter is copied, exported and imported", in: each, run: expiryMoves},
	{name: "Sweep removes what has expired", in: inRooms, run: sweeps},
	{name: "Watch tells what expires", in: followed + " single/encrypted/following perkey/encrypted/following", run: watchTellsExpiry},
	{name: "Lease has one holder", in: inRooms + " single/following", run: leaseHeld},
	{name: "Lease in account data is refused", in: each, run: leaseInAccountData},
	{name: "Lease and Once are left alone by Restore, Import and Copy", in: inRooms + " single/sealed perkey/sealed", run: leasesStay},
	{name: "Once is true for one", in: inRooms + " " + followed, run: onceOfSeveral},
	{name: "opsdroid reads and writes beside expiry, Sub and leases", in: "single custom perkey", run: opsdroidBeside},
	{name: "ErrNoTime of a homeserver without a clock", in: each, run: errNoTime},
}

// life is how long values count in these rows, and longer than a busy machine takes to read one. The homeserver's time is known to half a second
// when it is first asked for.
const life = 4 * time.Second

// gone waits until the store does not find the key, and tells when that was.
func gone(t *testing.T, store *roomkv.Store, key string) time.Time {
	t.Helper()
	eventually(t, func() bool {
		_, err := store.Entry(t.Context(), key)
		if err != nil {
			require.ErrorIs(t, err, roomkv.ErrNotFound)
		}
		return err != nil
	}, key)
	return time.Now()
}

func expires(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, e.store.Put(ctx, "stays", 1))
	before := time.Now()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": []string{"x"}}, roomkv.ExpireAfter(life)))
	put := time.Now()
	e.reads(t, "a", "1")
	entry, err := e.store.Entry(ctx, "b")
	require.NoError(t, err)
	assert.JSONEq(t, `["x"]`, string(entry.Value))
	assert.WithinRange(t, entry.Expires, before.Add(life-time.Second), put.Add(life+time.Second), "on a machine with one clock")
	stays, err := other.Entry(ctx, "stays")
	require.NoError(t, err)
	assert.Zero(t, stays.Expires)
	left, err := other.Entry(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, entry.Expires, left.Expires)

	assert.WithinRange(t, gone(t, other, "a"), before.Add(life-time.Second), put.Add(life+5*time.Second))
	gone(t, e.store, "a")
	gone(t, other, "b")
	gone(t, e.store, "b")
	for _, store := range []*roomkv.Store{e.store, other} {
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"stays"}, keys)
		assert.Equal(t, map[string]string{"stays": "1"}, memoryOf(t, store))
		all, err := store.GetAll(ctx, "a", "b", "stays")
		require.NoError(t, err)
		assert.Len(t, all, 1)
	}
	require.NoError(t, other.Create(ctx, "a", "new"), "nothing is there")
	require.ErrorIs(t, other.CompareAndPut(ctx, "b", 2, entry.Revision), roomkv.ErrConflict, "it is gone")
	e.reads(t, "a", `"new"`)
	if e.single() {
		assert.NotContains(t, allState(t, e.client, e.room), "roomkv.expires", "the write of a key has removed what expired")
	}
}

func expiresOfEachWrite(t *testing.T, e *env) {
	ctx := t.Context()
	brief := roomkv.ExpireAfter(life)
	keys := []string{"put", "create", "compare", "update", "transact", "map"}
	for i, write := range []func(key string) error{
		func(key string) error { return e.store.Put(ctx, key, 1, brief) },
		func(key string) error { return e.store.Create(ctx, key, 1, brief) },
		func(key string) error { return e.store.CompareAndPut(ctx, key, 1, "", brief) },
		func(key string) error { return roomkv.Update(ctx, e.store, key, increment, brief) },
		func(key string) error {
			return e.store.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Put(key, 1, brief) })
		},
		func(key string) error { return roomkv.MapOf[int](e.store).Put(ctx, key, 1, brief) },
	} {
		began := time.Now()
		require.NoError(t, write(keys[i]), keys[i])
		entry, err := e.store.Entry(ctx, keys[i])
		if time.Since(began) > life-time.Second && errors.Is(err, roomkv.ErrNotFound) { // on a slow machine
			continue
		}
		require.NoError(t, err, keys[i])
		assert.False(t, entry.Expires.IsZero(), keys[i])
	}
	for _, key := range keys {
		gone(t, e.store, key)
	}
	require.ErrorIs(t, e.store.Pop(ctx, "put", new(int)), roomkv.ErrNotFound)
	require.NoError(t, roomkv.Update(ctx, e.store, "create", func(old int, found bool) (int, error) {
		assert.False(t, found)
		return 2, nil
	}))
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		require.ErrorIs(t, tx.Get("update", new(int)), roomkv.ErrNotFound)
		return tx.Put("update", 3)
	}))
	eventually(t, func() bool { // the other's time can be a second behind
		return assert.ObjectsAreEqual(map[string]string{"create": "2", "update": "3"}, memoryOf(t, e.another(t)))
	}, "what is left")

	require.ErrorIs(t, e.store.Put(ctx, "k", 1, roomkv.ExpireAfter(-time.Second)), roomkv.ErrInvalidOption)
	require.ErrorIs(t, e.store.Put(ctx, "k", 1, roomkv.ExpireAfter(1<<63-1), roomkv.ExpireAfter(-1)), roomkv.ErrInvalidOption)
	require.ErrorIs(t, e.store.Create(ctx, "k", 1, nil), roomkv.ErrInvalidOption)
}

func expiryKept(t *testing.T, e *env) {
	ctx := t.Context()
	until := func(key string) time.Time {
		entry, err := e.store.Entry(ctx, key)
		require.NoError(t, err)
		return entry.Expires
	}
	require.NoError(t, e.store.Put(ctx, "k", 1, roomkv.ExpireAfter(time.Hour)))
	first := until("k")
	require.NoError(t, roomkv.Update(ctx, e.store, "k", increment))
	assert.Equal(t, first, until("k"), "an Update keeps it")
	require.NoError(t, e.store.Put(ctx, "other", 1))
	assert.Equal(t, first, until("k"))
	require.NoError(t, roomkv.Update(ctx, e.store, "k", increment, roomkv.ExpireAfter(2*time.Hour)))
	assert.Greater(t, until("k"), first.Add(time.Minute))
	require.NoError(t, roomkv.Update(ctx, e.store, "k", increment, roomkv.ExpireAfter(0)))
	assert.Zero(t, until("k"))
	require.NoError(t, e.store.Put(ctx, "k", 7, roomkv.ExpireAfter(time.Hour)))
	require.NoError(t, e.store.Put(ctx, "k", 7))
	assert.Zero(t, until("k"), "a Put of the same value takes it off")
	if e.encrypted {
		return
	}
	require.NoError(t, e.store.Put(ctx, "k", 7, roomkv.ExpireAfter(time.Hour)))
	content := map[string]any{}
	require.NoError(t, e.client.StateEvent(ctx, e.room, database, e.stateKey("k"), &content))
	assert.InDelta(t, 7, content["k"], 0, "opsdroid finds the value")
	content["k"] = 8
	e.sendRaw(t, "k", content)
	read := e.another(t)
	entry, err := read.Entry(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, "8", string(entry.Value))
	assert.Zero(t, entry.Expires, "what opsdroid writes does not expire, though it copies the field")
}

func expiresInAccountData(t *testing.T, e *env) {
	ctx := t.Context()
	powerless := e.member(t, 0)
	store := open(t, powerless, e.room, e.opts(roomkv.WithAccountDataFallback())...)
	require.NoError(t, store.Put(ctx, "a", 1, roomkv.ExpireAfter(life)))
	require.NoError(t, store.Put(ctx, "b", 2))
	entry, err := store.Entry(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, roomkv.InAccountData, entry.Place)
	assert.False(t, entry.Expires.IsZero())
	gone(t, store, "a")
	require.NoError(t, store.Create(ctx, "a", 3))
	assert.Equal(t, map[string]string{"a": "3", "b": "2"}, memoryOf(t, store))
	require.NoError(t, store.Put(ctx, "a", 1, roomkv.ExpireAfter(life)))
	gone(t, store, "a")
	require.NoError(t, store.Sweep(ctx))
	assert.Equal(t, map[string]string{"b": "2"}, memoryOf(t, store))
}

func expiresBeforeFlush(t *testing.T, e *env) {
	ctx := t.Context()
	store := open(t, e.client, e.room, e.opts(roomkv.WithFlushEvery(time.Hour))...)
	require.NoError(t, store.Put(ctx, "a", 1, roomkv.ExpireAfter(life)))
	require.NoError(t, roomkv.Update(ctx, store, "a", increment))
	require.NoError(t, roomkv.Update(ctx, store, "b", increment, roomkv.ExpireAfter(time.Hour)))
	entry, err := store.Entry(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, "2", string(entry.Value))
	assert.False(t, entry.Expires.IsZero())
	gone(t, store, "a")
	keys, err := store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"b"}, keys)
	require.NoError(t, roomkv.Update(ctx, store, "a", func(_ int, found bool) (int, error) {
		assert.False(t, found)
		return 5, nil
	}))
	require.NoError(t, store.Flush(ctx))
	entry, err = e.another(t).Entry(ctx, "b")
	require.NoError(t, err)
	assert.False(t, entry.Expires.IsZero())
	assert.Equal(t, map[string]string{"a": "5", "b": "1"}, memoryOf(t, e.another(t)))
	require.NoError(t, store.Close(ctx))
}

func expiryMoves(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "long", 1, roomkv.ExpireAfter(time.Hour)))
	require.NoError(t, e.store.Put(ctx, "short", 1, roomkv.ExpireAfter(life)))
	require.NoError(t, e.store.Put(ctx, "ever", 1))
	want, err := e.store.Entry(ctx, "long")
	require.NoError(t, err)
	copied := e.another(t, roomkv.WithEventType("com.example.copied"))
	_, err = roomkv.Copy(ctx, copied, e.store)
	require.NoError(t, err)
	file := bytes.NewReader(exported(t, e.store))
	imported := e.another(t, roomkv.WithEventType("com.example.imported"))
	gone(t, e.store, "short")
	_, err = imported.Import(ctx, file)
	require.NoError(t, err)
	late, err := roomkv.Copy(ctx, e.another(t, roomkv.WithEventType("com.example.late")), e.store)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 2}, late, "what has expired is not copied")
	for _, store := range []*roomkv.Store{copied, imported} {
		gone(t, store, "short")
		got, err := store.Entry(ctx, "long")
		require.NoError(t, err)
		assert.Equal(t, want.Expires, got.Expires)
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"ever", "long"}, keys)
	}
}

// dateless is a transport that takes the time off answers, as some proxies do.
type dateless struct{ http.RoundTripper }

func (d dateless) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Header.Del("Date")
	}
	return resp, err
}

func errNoTime(t *testing.T, e *env) {
	ctx := t.Context()
	client := e.twin(t)
	client.Client.Transport = dateless{client.Client.Transport}
	store := open(t, client, e.room, e.opts()...)
	require.NoError(t, store.Put(ctx, "k", 1))
	require.ErrorIs(t, store.Put(ctx, "k", 1, roomkv.ExpireAfter(time.Hour)), roomkv.ErrNoTime)
	require.NoError(t, e.store.Put(ctx, "k", 2, roomkv.ExpireAfter(time.Hour)))
	require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNoTime, "nobody can tell whether it counts")
	_, err := store.Keys(ctx)
	require.ErrorIs(t, err, roomkv.ErrNoTime)
	_, err = store.GetAll(ctx, "j", "k")
	require.ErrorIs(t, err, roomkv.ErrNoTime)
	require.ErrorIs(t, roomkv.Update(ctx, store, "k", increment), roomkv.ErrNoTime)
	require.ErrorIs(t, store.Sweep(ctx), roomkv.ErrNoTime)
}

func sweeps(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "stays", 1))
	require.NoError(t, e.store.Sweep(ctx), "nothing has expired")
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 1, "c": 1}, roomkv.ExpireAfter(life)))
	require.NoError(t, e.store.Put(ctx, "later", 1, roomkv.ExpireAfter(time.Hour)))
	assert.Contains(t, allState(t, e.client, e.room), `"a"`)
	gone(t, e.store, "c")
	require.NoError(t, e.store.Sweep(ctx))
	state := allState(t, e.client, e.room)
	for _, key := range []string{"a", "b", "c"} {
		assert.NotContains(t, state, `"`+key+`":{"at"`)
	}
	assert.Contains(t, state, `"later":{"at"`)
	assert.Equal(t, map[string]string{"stays": "1", "later": "1"}, memoryOf(t, e.another(t)))
	before := revisions(t, e.store, "stays", "later")
	e.requests.Reset()
	require.NoError(t, e.store.Sweep(ctx))
	assert.Zero(t, writes(e.requests), "nothing is left to be removed")
	assert.Equal(t, before, revisions(t, e.store, "stays", "later"))
}

func leaseHeld(t *testing.T, e *env) {
	ctx := t.Context()
	lease, err := e.store.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	assert.Equal(t, int64(1), lease.Fence())
	other := e.another(t)
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = other.Lease(brief, "leader", leaseTTL)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it is held")
	second, err := other.Lease(ctx, "another name", time.Minute)
	require.NoError(t, err)
	require.NoError(t, second.Release(ctx))

	write := func(of *roomkv.Store, value int) error {
		return of.Transact(ctx, func(tx *roomkv.Tx) error {
			if err := tx.Require(lease); err != nil {
				return err
			}
			return tx.Put("by", value)
		})
	}
	if e.single() {
		require.NoError(t, write(e.store, 1))
		e.reads(t, "by", "1")
	} else {
		require.ErrorIs(t, write(e.store, 1), roomkv.ErrNotAtomic)
	}
	require.ErrorIs(t, write(other, 2), roomkv.ErrInvalidOption, "the lease is the other store's")
	select {
	case <-lease.Done():
		assert.Fail(t, "it is held")
	default:
	}
	require.NoError(t, lease.Release(ctx))
	<-lease.Done()
	require.NoError(t, lease.Release(ctx), "a second time")
	require.ErrorIs(t, write(e.store, 3), roomkv.ErrLeaseLost)
	third, err := other.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	assert.Equal(t, int64(2), third.Fence())
	require.NoError(t, other.Close(ctx))
	<-third.Done()
	_, err = other.Lease(ctx, "another name", leaseTTL)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption, "the store was closed")
	_, err = e.store.Lease(ctx, "leader", time.Second)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = e.another(t, roomkv.WithSingleWriter()).Lease(ctx, "leader", leaseTTL)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
}

func leasesStay(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "value", 1))
	at := func() *roomkv.Snapshot {
		e.settle(t)
		time.Sleep(5 * time.Millisecond)
		snapshot, err := e.store.At(ctx, roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		time.Sleep(5 * time.Millisecond)
		return snapshot
	}
	earlier, empty := at(), exported(t, e.store)
	first, err := e.store.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	firsts, held := at(), exported(t, e.store)
	require.NoError(t, first.Release(ctx))
	require.NoError(t, e.store.Put(ctx, "value", 2))
	elsewhere := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	require.NoError(t, elsewhere.Put(ctx, "value", 1))
	_, err = elsewhere.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	_, err = elsewhere.Once(ctx, "$event", time.Hour)
	require.NoError(t, err)

	other := e.another(t)
	second, err := other.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	require.Equal(t, int64(2), second.Fence())
	mine, err := other.Once(ctx, "$event", time.Hour)
	require.NoError(t, err)
	require.True(t, mine)
	imports := func(file []byte, opts ...roomkv.ImportOption) func() error {
		return func() error {
			_, err := e.store.Import(ctx, bytes.NewReader(file), opts...)
			return err
		}
	}
	restores := func(snapshot *roomkv.Snapshot) func() error {
		return func() error {
			changed, err := e.store.Restore(ctx, snapshot)
			assert.Equal(t, 1, changed)
			return err
		}
	}
	for what, bring := range map[string]func() error{
		"Restore of before":        restores(earlier),
		"Restore of another's":     restores(firsts),
		"ImportReplace of before":  imports(empty, roomkv.ImportReplace()),
		"ImportReplace of another": imports(held, roomkv.ImportReplace()),
		"ImportOverwrite":          imports(held, roomkv.ImportOverwrite()),
		"CopyOverwrite": func() error {
			_, err := roomkv.Copy(ctx, e.store, elsewhere, roomkv.CopyOverwrite())
			return err
		},
	} {
		require.NoError(t, e.store.Put(ctx, "value", 2))
		require.NoError(t, bring(), what)
		e.reads(t, "value", "1")
		third := e.another(t)
		brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err = third.Lease(brief, "leader", leaseTTL)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, "%s: it is held", what)
		mine, err := third.Once(ctx, "$event", time.Hour)
		require.NoError(t, err)
		require.False(t, mine, what)
	}
	require.NoError(t, second.Release(ctx))
	third, err := e.store.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)
	assert.Equal(t, int64(3), third.Fence())

	fresh := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	_, err = roomkv.Copy(ctx, fresh, e.store)
	require.NoError(t, err)
	require.NoError(t, third.Release(ctx))
	keys, err := fresh.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"leader", "once/$event", "value"}, keys, "where none is the record is brought")
}

func leaseInAccountData(t *testing.T, e *env) {
	ctx := t.Context()
	powerless := e.member(t, 0)
	store := open(t, powerless, e.room, e.opts(roomkv.WithAccountDataFallback())...)
	_, err := store.Lease(ctx, "leader", leaseTTL)
	require.ErrorIs(t, err, roomkv.ErrForbidden)
	_, err = store.Once(ctx, "$event", time.Hour)
	require.ErrorIs(t, err, roomkv.ErrForbidden)
}

func onceOfSeveral(t *testing.T, e *env) {
	ctx := t.Context()
	others := []*roomkv.Store{e.store, e.another(t), e.another(t)}
	for _, event := range []id.EventID{"$one", "$two"} {
		var mine atomic.Int64
		var group sync.WaitGroup
		for _, store := range others {
			group.Go(func() {
				first, err := store.Once(ctx, event, time.Hour)
				assert.NoError(t, err)
				if first {
					mine.Add(1)
				}
			})
		}
		group.Wait()
		assert.Equal(t, int64(1), mine.Load())
	}
	again, err := e.store.Once(ctx, "$one", time.Hour)
	require.NoError(t, err)
	assert.False(t, again)
	entry, err := e.store.Entry(ctx, "once/$one")
	require.NoError(t, err)
	assert.InDelta(t, time.Hour, time.Until(entry.Expires), float64(5*time.Minute))
	first, err := e.store.Sub("handler/").Once(ctx, "$one", time.Hour)
	require.NoError(t, err)
	assert.True(t, first, "another handler's")
	_, err = e.store.Once(ctx, "$one", 0)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = e.another(t, roomkv.WithSingleWriter()).Once(ctx, "$one", time.Hour)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
}

// opsdroid reads the state event of a key, puts the key into its content, and sends all of that, with the fields that it does not know. What happens
// between its two requests it does not see.
func opsdroidBeside(t *testing.T, e *env) {
	ctx := t.Context()
	read := func(key string) map[string]any {
		content := map[string]any{}
		err := e.client.StateEvent(ctx, e.room, database, e.stateKey(key), &content)
		if !errors.Is(err, mautrix.MNotFound) {
			require.NoError(t, err)
		}
		return content
	}
	send := func(content map[string]any, key string, value any) {
		content[key] = value
		e.sendRaw(t, key, content)
	}
	sub := e.store.Sub("prefix/")
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"brief": 1, "over": 1}, roomkv.ExpireAfter(life)))
	assert.InDelta(t, 1, read("brief")["brief"], 0, "opsdroid finds a value that expires")
	content := read("over")
	assert.Contains(t, content, "roomkv.expires")
	send(content, "over", 2)
	require.NoError(t, sub.Put(ctx, "k", 1, roomkv.ExpireAfter(time.Hour)))
	assert.InDelta(t, 1, read("prefix/k")["prefix/k"], 0)
	send(read("prefix/own"), "prefix/own", 5)
	lease, err := e.store.Lease(ctx, "leader", leaseTTL)
	require.NoError(t, err)

	stale := read("theirs")
	require.NoError(t, roomkv.Update(ctx, sub, "own", increment))
	first, err := e.store.Once(ctx, "$event", time.Hour)
	require.NoError(t, err)
	assert.True(t, first)
	gone(t, e.store, "brief")
	require.NoError(t, e.store.Sweep(ctx))
	assert.NotContains(t, read("brief"), "brief", "opsdroid finds it no more")
	send(stale, "theirs", 3)
	if e.single() {
		assert.Equal(t, stale["brief"], read("brief")["brief"], "it has written what it had read, which on a slow machine had expired")
		assert.NotContains(t, read("once/$event"), "once/$event")
	}
	other := e.another(t)
	gone(t, other, "brief") // each process knows the time to within a second
	again, err := other.Once(ctx, "$event", time.Hour)
	require.NoError(t, err)
	assert.False(t, again)
	waits, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = other.Lease(waits, "leader", leaseTTL)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it is held")

	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		gone(t, store, "brief")
		memory := memoryOf(t, store)
		assert.Contains(t, memory, "leader")
		assert.Contains(t, memory, "once/$event")
		delete(memory, "leader")
		delete(memory, "once/$event")
		assert.Equal(t, map[string]string{"over": "2", "prefix/k": "1", "prefix/own": "6", "theirs": "3"}, memory)
		for key, expires := range map[string]bool{"over": false, "prefix/k": true, "prefix/own": false, "theirs": false, "once/$event": true} {
			entry, err := store.Entry(ctx, key)
			require.NoError(t, err)
			assert.Equal(t, expires, !entry.Expires.IsZero(), key)
		}
	}
	assert.NotContains(t, read("brief"), "brief")
	for key, value := range map[string]float64{"over": 2, "prefix/k": 1, "prefix/own": 6, "theirs": 3} {
		assert.InDelta(t, value, read(key)[key], 0, "opsdroid finds %s", key)
	}
	select {
	case <-lease.Done():
		assert.Fail(t, "it is held")
	default:
	}
	require.NoError(t, lease.Release(ctx))
}

func watchTellsExpiry(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "was", 0, roomkv.ExpireAfter(time.Millisecond)))
	gone(t, e.store, "was")
	require.NoError(t, e.store.Put(ctx, "soon", 1, roomkv.ExpireAfter(2*life)))
	e.synced(t)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var told []string
	expired := map[string]int{}
	for change, err := range e.store.Watch(ctx, roomkv.WatchInitial()) {
		require.NoError(t, err, "after %v", told)
		if change.EndOfInitial {
			require.NoError(t, e.store.Put(ctx, "later", 2, roomkv.ExpireAfter(life)))
			continue
		}
		told = append(told, fmt.Sprintf("%s: %s → %s", change.Key, change.Old, change.New))
		if change.Expired {
			assert.NotEmpty(t, change.Revision)
			if expired[change.Key]++; len(expired) == 2 { // which removes them, and that is not told again
				for _, key := range []string{"later", "soon"} {
					gone(t, e.store, key)
				}
				require.NoError(t, e.store.Sweep(ctx))
				require.NoError(t, e.store.Put(ctx, "later", 3))
			}
		}
		if string(change.New) == "3" {
			break
		}
	}
	of := func(key string) []string { // on a slow machine the one expires before the other is there
		return slices.DeleteFunc(slices.Clone(told), func(text string) bool { return !strings.HasPrefix(text, key) })
	}
	assert.Equal(t, []string{"soon:  → 1", "soon: 1 → "}, of("soon"))
	assert.Equal(t, []string{"later:  → 2", "later: 2 → ", "later:  → 3"}, of("later"))
	assert.Len(t, told, 5, "%v", told)
	assert.Equal(t, map[string]int{"soon": 1, "later": 1}, expired)
}
