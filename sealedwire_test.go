package roomkv_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// spellings are the ways in which a text can cross the wire.
func spellings(t testing.TB, text string) (all [][]byte) {
	t.Helper()
	escaped, err := json.Marshal(text)
	require.NoError(t, err)
	var unicode strings.Builder
	for _, r := range text {
		fmt.Fprintf(&unicode, `\u%04x`, r)
	}
	path := url.PathEscape(text)
	all = append(all, []byte(text), escaped[1:len(escaped)-1], []byte(path), []byte(strings.ToLower(path)), []byte(url.QueryEscape(text)),
		[]byte(url.PathEscape(path)), []byte(unicode.String()))
	for shift := range 3 { // base64 of a text that begins anywhere in a group of three
		padded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		inner := padded[4:]
		if shift == 0 {
			inner = padded
		}
		inner = inner[:len(inner)-len(inner)%4-4]
		all = append(all, []byte(inner), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(inner)))
	}
	return all
}

// The parts of keys and values that no encoding of what is around them changes.
const (
	keyMarker   = "patientrecordkey"
	valueMarker = "confidentialdiagnosis"
)

// sealedRun is what an operation on a sealed memory is tried with.
type sealedRun struct {
	name      string // of the operation
	client    *mautrix.Client
	room      id.RoomID
	opts      []roomkv.Option
	following bool

	store *roomkv.Store // what the operation is tried on
	seed  *roomkv.Store // what the memory was filled with
	texts map[string]bool
}

// key and value are unique to the operation, and noted.
func (r *sealedRun) key(n int) string {
	return r.note(fmt.Sprintf(`%s %d of "%s" é/%%`, keyMarker, n, r.name))
}

func (r *sealedRun) value(n int) string {
	return r.note(fmt.Sprintf(`%s %d <of> "%s" \ ü`, valueMarker, n, r.name))
}

func (r *sealedRun) note(text string) string {
	r.texts[text] = true
	return text
}

// another is a store of an empty room with the same options.
func (r *sealedRun) another(t *testing.T) *roomkv.Store {
	t.Helper()
	other, err := r.store.WithRoom(t.Context(), hstest.EncryptedRoom(t, r.client))
	require.NoError(t, err)
	return other
}

// operations are all that can be done with a store and a snapshot of it. Before each, the memory has key(0) and key(1) with value(0) and value(1).
var operations = map[string]func(t *testing.T, r *sealedRun){
	"FromContext": func(t *testing.T, r *sealedRun) {
		r.store.InEventRoom(func(ctx context.Context, _ *event.Event, _ *roomkv.Store) {
			scoped, ok := roomkv.FromContext(ctx)
			require.True(t, ok)
			require.NoError(t, scoped.Put(ctx, r.key(2), r.value(2)))
		})(t.Context(), &event.Event{RoomID: r.room})
	},
	"New": func(t *testing.T, r *sealedRun) {
		require.NoError(t, open(t, r.client, r.room, r.opts...).Put(t.Context(), r.key(2), r.value(2)))
	},
	"Get": func(t *testing.T, r *sealedRun) {
		got, err := roomkv.Get[string](t.Context(), r.store, r.key(0))
		require.NoError(t, err)
		assert.Equal(t, r.value(0), got)
	},
	"Update": func(t *testing.T, r *sealedRun) {
		for n := range 3 {
			require.NoError(t, roomkv.Update(t.Context(), r.store, r.key(n), func(old string, found bool) (string, error) {
				assert.Equal(t, n < 2, found)
				return old + r.value(10+n), nil
			}))
		}
	},
	"Store.Lease": func(t *testing.T, r *sealedRun) {
		lease, err := r.store.Lease(t.Context(), r.key(2), 30*time.Second)
		require.NoError(t, err)
		require.NoError(t, lease.Release(t.Context()))
	},
	"Store.Once": func(t *testing.T, r *sealedRun) {
		first, err := r.store.Sub(r.key(2)).Once(t.Context(), "$event", time.Hour)
		require.NoError(t, err)
		assert.True(t, first)
	},
	"Store.Sweep": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Put(t.Context(), r.key(2), r.value(2), roomkv.ExpireAfter(time.Millisecond)))
		eventually(t, func() bool {
			_, err := r.store.Entry(t.Context(), r.key(2))
			return errors.Is(err, roomkv.ErrNotFound)
		}, "it has expired")
		require.NoError(t, r.store.Sweep(t.Context()))
	},
	"MapOf": func(t *testing.T, r *sealedRun) {
		require.NoError(t, roomkv.MapOf[string](r.store).Put(t.Context(), r.key(2), r.value(2)))
	},
	"Store.Info": func(t *testing.T, r *sealedRun) {
		info, err := r.store.Info(t.Context())
		require.NoError(t, err)
		assert.True(t, info.Sealed)
	},
	"Store.Sub": func(t *testing.T, r *sealedRun) {
		sub := r.store.Sub(r.key(2))
		require.NoError(t, sub.Put(t.Context(), "", r.value(2)))
		keys, err := sub.Keys(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{""}, keys)
	},
	"Copy": func(t *testing.T, r *sealedRun) {
		ctx, source := t.Context(), r.another(t)
		require.NoError(t, source.PutAll(ctx, map[string]any{r.key(0): r.value(10), r.key(2): r.value(2)}))
		_, err := roomkv.Copy(ctx, r.store, source)
		require.ErrorIs(t, err, roomkv.ErrExists)
		_, err = roomkv.Copy(ctx, r.store, source, roomkv.CopyOverwrite(), roomkv.CopyRedactSource())
		require.NoError(t, err)
		_, err = roomkv.Copy(ctx, r.another(t), r.store)
		require.NoError(t, err)
	},
	"Store.Get": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Get(t.Context(), r.key(0), new(any)))
		require.ErrorIs(t, r.store.Get(t.Context(), r.key(2), new(any)), roomkv.ErrNotFound)
		require.ErrorIs(t, r.store.Get(t.Context(), r.key(0), new(int)), roomkv.ErrDecode)
	},
	"Store.Entry": func(t *testing.T, r *sealedRun) {
		_, err := r.store.Entry(t.Context(), r.key(0))
		require.NoError(t, err)
	},
	"Store.Put": func(t *testing.T, r *sealedRun) {
		for _, value := range []string{r.value(0), r.value(10), strings.Repeat(r.value(11), 4000)} {
			for _, n := range []int{0, 2} {
				require.NoError(t, r.store.Put(t.Context(), r.key(n), value))
			}
		}
		require.ErrorIs(t, r.store.Put(t.Context(), r.key(3), func() {}), roomkv.ErrInvalidValue)
	},
	"Store.PutAll": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.PutAll(t.Context(), map[string]any{r.key(1): r.value(10), r.key(2): r.value(2), r.key(3): r.value(3)}))
	},
	"Store.Create": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Create(t.Context(), r.key(2), r.value(2)))
		require.ErrorIs(t, r.store.Create(t.Context(), r.key(0), r.value(3)), roomkv.ErrExists)
	},
	"Store.CompareAndPut": func(t *testing.T, r *sealedRun) {
		entry, err := r.store.Entry(t.Context(), r.key(0))
		require.NoError(t, err)
		require.NoError(t, r.store.CompareAndPut(t.Context(), r.key(0), r.value(10), entry.Revision))
		require.ErrorIs(t, r.store.CompareAndPut(t.Context(), r.key(0), r.value(11), entry.Revision), roomkv.ErrConflict)
		require.NoError(t, r.store.CompareAndPut(t.Context(), r.key(2), r.value(2), ""))
	},
	"Store.CompareAndDelete": func(t *testing.T, r *sealedRun) {
		entry, err := r.store.Entry(t.Context(), r.key(0))
		require.NoError(t, err)
		require.NoError(t, r.store.CompareAndDelete(t.Context(), r.key(0), entry.Revision))
		require.ErrorIs(t, r.store.CompareAndDelete(t.Context(), r.key(0), entry.Revision), roomkv.ErrConflict)
	},
	"Store.GetAll": func(t *testing.T, r *sealedRun) {
		entries, err := r.store.GetAll(t.Context(), r.key(0), r.key(1), r.key(2))
		require.NoError(t, err)
		assert.Len(t, entries, 2)
	},
	"Store.Transact": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Transact(t.Context(), func(tx *roomkv.Tx) error {
			require.NoError(t, tx.Get(r.key(0), new(string)))
			return tx.Put(r.key(0), r.value(10))
		}))
		err := r.store.Transact(t.Context(), func(tx *roomkv.Tx) error {
			if err := tx.Put(r.key(2), r.value(2)); err != nil {
				return err
			}
			if err := tx.Delete(r.key(1)); err != nil {
				return err
			}
			keys, err := tx.Keys()
			if err == nil {
				assert.Subset(t, keys, []string{r.key(0), r.key(2)})
				assert.NotContains(t, keys, r.key(1))
			}
			return err
		})
		if !errors.Is(err, roomkv.ErrNotAtomic) { // in the per-key layout, and over several shards
			require.NoError(t, err)
		}
	},
	"Store.Pop": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Pop(t.Context(), r.key(0), new(any)))
		require.ErrorIs(t, r.store.Pop(t.Context(), r.key(0), new(any)), roomkv.ErrNotFound)
	},
	"Store.Delete": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.store.Delete(t.Context(), r.key(0)))
		require.NoError(t, r.store.Delete(t.Context(), r.key(1), r.key(2)))
	},
	"Store.Keys": func(t *testing.T, r *sealedRun) {
		eventually(t, func() bool { // another store has put it, and the sync can be behind
			keys, err := r.store.Keys(t.Context())
			require.NoError(t, err)
			return slices.Contains(keys, r.key(0))
		}, "the key")
	},
	"Store.Rooms": func(t *testing.T, r *sealedRun) {
		assert.Contains(t, roomsOf(t, r.store), r.room)
	},
	"Store.All": func(t *testing.T, r *sealedRun) {
		eventually(t, func() bool { return memoryOf(t, r.store)[r.key(0)] != "" }, "the key")
	},
	"Store.History": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.seed.Put(t.Context(), r.key(0), r.value(10)))
		values, _ := historyOf(t, r.store, r.key(0))
		assert.GreaterOrEqual(t, len(values), 2)
		values, _ = historyOf(t, r.store, r.key(2))
		assert.Empty(t, values)
	},
	"Store.Flush": func(t *testing.T, r *sealedRun) {
		store := open(t, r.client, r.room, append([]roomkv.Option{roomkv.WithFlushEvery(time.Hour)}, r.opts...)...)
		require.NoError(t, store.PutAll(t.Context(), map[string]any{r.key(0): r.value(10), r.key(2): r.value(2)}))
		require.NoError(t, roomkv.Update(t.Context(), store, r.key(1), func(old string, _ bool) (string, error) { return old + r.value(11), nil }))
		require.NoError(t, store.Flush(t.Context()))
		require.NoError(t, store.Delete(t.Context(), r.key(2)))
		require.NoError(t, store.Close(t.Context()))
	},
	"Store.Close": func(t *testing.T, r *sealedRun) {
		require.NoError(t, open(t, r.client, r.room, r.opts...).Close(t.Context()))
	},
	"Store.Watch": func(t *testing.T, r *sealedRun) {
		if !r.following {
			for _, err := range r.store.Watch(t.Context(), roomkv.WatchKey(r.key(0)), roomkv.WatchPrefix(keyMarker)) {
				require.ErrorIs(t, err, roomkv.ErrNotFollowing)
			}
			return
		}
		entry, err := r.store.Entry(t.Context(), r.key(0))
		require.NoError(t, err)
		for n := range 2 { // one after the other: what is overwritten can be redacted before the watch reads it
			told := resuming(t, r.store, 1, roomkv.WatchKey(r.key(0)), roomkv.WatchFrom(entry.Revision))
			require.NoError(t, r.seed.Put(t.Context(), r.key(0), r.value(10+n)))
			assert.Len(t, told(), 1)
			entry, err = r.seed.Entry(t.Context(), r.key(0))
			require.NoError(t, err)
		}
		assert.Len(t, resuming(t, r.store, 2, roomkv.WatchInitial(), roomkv.WatchKey(r.key(0)))(), 2)
	},
	"Store.FollowEvents": func(t *testing.T, r *sealedRun) {
		store := open(t, r.client, r.room, r.opts...)
		var handle func(context.Context, *event.Event)
		require.NoError(t, store.FollowEvents(func(eventType event.Type, h func(context.Context, *event.Event)) {
			if eventType == database {
				handle = h
			}
		}, time.Hour))
		for change, err := range store.Watch(t.Context(), roomkv.WatchInitial(), roomkv.WatchKey(r.key(0))) {
			if errors.Is(err, roomkv.ErrRedacted) { // by WithRedaction, as the next one overwrites it
				continue
			}
			require.NoError(t, err)
			if change.Old != nil {
				break
			}
			if change.EndOfInitial {
				require.NoError(t, r.seed.Put(t.Context(), r.key(0), r.value(10)))
				entry, err := r.seed.Entry(t.Context(), r.key(0))
				require.NoError(t, err)
				listed(t, r.client, r.room, id.EventID(entry.Revision))
				evt, err := r.client.GetEvent(t.Context(), r.room, id.EventID(entry.Revision))
				require.NoError(t, err)
				evt.RoomID = r.room
				handle(t.Context(), evt)
			}
		}
		require.NoError(t, store.Get(t.Context(), r.key(0), new(string)))
		require.NoError(t, store.Close(t.Context()))
	},
	"Store.Follow": func(t *testing.T, r *sealedRun) {
		require.NoError(t, open(t, r.client, r.room, r.opts...).Follow())
	},
	"Store.WithRoom": func(t *testing.T, r *sealedRun) {
		require.NoError(t, r.another(t).Put(t.Context(), r.key(2), r.value(2)))
	},
	"Store.InEventRoom": func(t *testing.T, r *sealedRun) {
		r.store.InEventRoom(func(ctx context.Context, _ *event.Event, scoped *roomkv.Store) {
			require.NoError(t, scoped.Put(ctx, r.key(2), r.value(2)))
		})(t.Context(), &event.Event{RoomID: r.room})
	},
	"Store.EncryptAll": func(t *testing.T, r *sealedRun) {
		_, err := r.store.EncryptAll(t.Context())
		require.NoError(t, err)
	},
	"Store.At": func(t *testing.T, r *sealedRun) {
		for _, moment := range []roomkv.Moment{roomkv.AtTime(time.Now()), roomkv.AtRevision(roomkv.Revision(revision(t, r.store, r.key(0))))} {
			snapshot, err := r.store.At(t.Context(), moment)
			require.NoError(t, err)
			assert.Contains(t, pastOf(t, snapshot), r.key(0))
		}
	},
	"Store.Restore": func(t *testing.T, r *sealedRun) {
		snapshot, err := r.store.At(t.Context(), roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		require.NoError(t, r.seed.PutAll(t.Context(), map[string]any{r.key(0): r.value(10), r.key(2): r.value(2)}))
		if _, err = r.store.Restore(t.Context(), snapshot); !errors.Is(err, roomkv.ErrRedacted) { // as WithRedaction has what was overwritten
			require.NoError(t, err)
		}
	},
	"Store.Export": func(t *testing.T, r *sealedRun) {
		assert.Contains(t, string(exported(t, r.store, roomkv.ExportHistory())), valueMarker)
	},
	"Store.Import": func(t *testing.T, r *sealedRun) {
		file := exported(t, r.store)
		_, err := r.another(t).Import(t.Context(), bytes.NewReader(file))
		require.NoError(t, err)
		require.NoError(t, r.seed.PutAll(t.Context(), map[string]any{r.key(0): r.value(10), r.key(2): r.value(2)}))
		_, err = r.store.Import(t.Context(), bytes.NewReader(file), roomkv.ImportReplace())
		require.NoError(t, err)
	},
	"Store.ImportAccountData": func(t *testing.T, r *sealedRun) { // which stands in the clear itself
		require.NoError(t, r.client.SetAccountData(t.Context(), botData, map[string]any{"from account data": "plain"}))
		_, err := r.store.ImportAccountData(t.Context(), "", botData)
		require.NoError(t, err)
		assert.Equal(t, `"plain"`, memoryOf(t, r.store)["from account data"])
		require.NoError(t, r.store.Delete(t.Context(), "from account data"))
	},
	"Store.Purge": func(t *testing.T, r *sealedRun) {
		done, err := r.store.Purge(t.Context(), r.key(0), r.key(2))
		require.NoError(t, err)
		assert.Positive(t, done.Encrypted)
	},
	"Snapshot.Get": onSnapshot(func(t *testing.T, r *sealedRun, s *roomkv.Snapshot) {
		require.NoError(t, s.Get(t.Context(), r.key(0), new(any)))
	}),
	"Snapshot.Keys": onSnapshot(func(t *testing.T, r *sealedRun, s *roomkv.Snapshot) {
		assert.Contains(t, must(s.Keys(t.Context()))(t), r.key(0))
	}),
	"Snapshot.All":   onSnapshot(func(t *testing.T, r *sealedRun, s *roomkv.Snapshot) { assert.Contains(t, pastOf(t, s), r.key(0)) }),
	"Snapshot.Entry": onSnapshot(func(t *testing.T, r *sealedRun, s *roomkv.Snapshot) { must(s.Entry(t.Context(), r.key(0)))(t) }),
}

func onSnapshot(test func(t *testing.T, r *sealedRun, snapshot *roomkv.Snapshot)) func(t *testing.T, r *sealedRun) {
	return func(t *testing.T, r *sealedRun) {
		snapshot, err := r.store.At(t.Context(), roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		test(t, r, snapshot)
	}
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		require.NoError(t, err)
		return value
	}
}

// exportedOperations are the methods of Store and Snapshot and the functions of the package that take or give one of them, as the source has them.
func exportedOperations(t *testing.T) (names []string) {
	t.Helper()
	isOne := func(fields *ast.FieldList) bool {
		return fields != nil && slices.ContainsFunc(fields.List, func(field *ast.Field) bool {
			pointer, ok := field.Type.(*ast.StarExpr)
			if !ok {
				return false
			}
			of, ok := pointer.X.(*ast.Ident)
			return ok && (of.Name == "Store" || of.Name == "Snapshot")
		})
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declared := range parsed.Decls {
			function, ok := declared.(*ast.FuncDecl)
			switch {
			case !ok || !function.Name.IsExported():
			case isOne(function.Recv):
				names = append(names, function.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name+"."+function.Name.Name)
			case function.Recv == nil && (isOne(function.Type.Params) || isOne(function.Type.Results)):
				names = append(names, function.Name.Name)
			}
		}
	}
	return names
}

// Everything that crosses the wire is looked at, in both directions, for every operation.
func TestSealedKeysAndValuesNeverCrossTheWire(t *testing.T) {
	hstest.Parallel(t)
	require.ElementsMatch(t, exportedOperations(t), slices.Collect(maps.Keys(operations)), "an operation is not tried")
	more := []roomkv.Option{roomkv.WithRedaction(), roomkv.WithAccountDataFallback(), roomkv.WithRoomUpgrades(), roomkv.WithMinTrust(id.TrustStateVerified)}
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		if strings.HasSuffix(t.Name(), "custom") { // which makes no difference to encryption
			return
		}
		for _, following := range []bool{false, true} {
			for name, opts := range map[string][]roomkv.Option{"default": nil, "options": more} {
				if following != (opts != nil) && !thorough() {
					continue
				}
				t.Run(fmt.Sprintf("following=%t/%s", following, name), func(t *testing.T) {
					sealedWire(t, following, append([]roomkv.Option{layout, roomkv.WithSealedKeys(secret)}, opts...)...)
				})
			}
		}
	})
}

func sealedWire(t *testing.T, following bool, opts ...roomkv.Option) {
	client := hstest.Client(t)
	recorder := hstest.Record(client)
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	store := open(t, client, room, opts...)
	if following {
		require.NoError(t, store.Follow())
		defer syncing(t, client)()
	}
	found := false // whether the search finds what is there
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		r := &sealedRun{name: name, client: client, room: room, opts: opts, following: following, store: store,
			seed: open(t, client, room, opts...), texts: map[string]bool{}}
		if !following { // one that knows nothing yet
			r.store = open(t, client, room, opts...)
		}
		require.NoError(t, r.seed.PutAll(t.Context(), map[string]any{r.key(0): r.value(0), r.key(1): r.value(1)}))
		require.Eventually(t, func() bool { // what another store writes is seen when the sync brings it
			return r.store.Get(t.Context(), r.key(0), new(any)) == nil && r.store.Get(t.Context(), r.key(1), new(any)) == nil
		}, 10*time.Second, 10*time.Millisecond)
		operations[name](t, r)
		var wire bytes.Buffer
		for _, request := range recorder.Requests() {
			fmt.Fprintf(&wire, "%s %s?%s\n%s\n%s\n", request.Method, request.Path, request.Query, request.Body, request.Response)
		}
		recorder.Reset()
		for _, text := range append(slices.Collect(maps.Keys(r.texts)), keyMarker, valueMarker, string(secret)) {
			for _, spelling := range spellings(t, text) {
				at := bytes.Index(wire.Bytes(), spelling)
				if !assert.Negative(t, at, "%s: %q crossed the wire as %q, beside %q", name, text, spelling, wire.Bytes()[max(0, at-200):min(wire.Len(), max(0, at)+200)]) {
					break
				}
			}
		}
		found = found || slices.ContainsFunc(spellings(t, room.String()), func(spelling []byte) bool { return bytes.Contains(wire.Bytes(), spelling) })
	}
	assert.True(t, found, "not even the room's ID was found")
}
