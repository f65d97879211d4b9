package roomkv_test

import (
	"bytes"
	"cmp"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// told is an operation that has ended.
type told struct {
	roomkv.Operation
	roomkv.Outcome
	began roomkv.Operation
}

// observed is an observer that notes what it is told, and which requests were made in the context of which operation.
type observed struct {
	t testing.TB

	mu     sync.Mutex
	began  []roomkv.Operation
	ended  []told
	wire   map[int]roomkv.Outcome // of requests, by the number of the operation; -1 for those that are of none
	others []string               // the requests that are of none
}

type operationKey struct{}

// Start implements [roomkv.Observer].
func (o *observed) Start(ctx context.Context, op roomkv.Operation) context.Context {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.began = append(o.began, op)
	return context.WithValue(ctx, operationKey{}, len(o.began)-1)
}

// End implements [roomkv.Observer].
func (o *observed) End(ctx context.Context, op roomkv.Operation, outcome roomkv.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := ctx.Value(operationKey{}).(int)
	if assert.True(o.t, ok, "the context is not that of Start") {
		o.ended = append(o.ended, told{op, outcome, o.began[n]})
	}
}

// observe has the requests of a client noted.
func observe(t testing.TB, client *mautrix.Client) *observed {
	o := &observed{t: t, wire: map[int]roomkv.Outcome{}}
	next := cmp.Or(client.Client.Transport, http.DefaultTransport)
	noted := *client.Client
	noted.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		n, ok := req.Context().Value(operationKey{}).(int)
		byCrypto := slices.ContainsFunc([]string{"/keys/", "/sendToDevice/"}, func(part string) bool { return strings.Contains(req.URL.Path, part) })
		if !ok || byCrypto {
			n = -1
		}
		size := max(0, req.ContentLength)
		resp, err := next.RoundTrip(req)
		var text []byte
		if err == nil {
			text, err = io.ReadAll(resp.Body)
			resp.Body = io.NopCloser(bytes.NewReader(text))
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		of := o.wire[n]
		of.Requests, of.Sent, of.Received = of.Requests+1, of.Sent+size, of.Received+int64(len(text))
		if o.wire[n] = of; !ok {
			o.others = append(o.others, req.URL.Path)
		}
		return resp, err
	})
	client.Client = &noted
	return o
}

// take gives the operations that have ended since it was called last, once all have.
func (o *observed) take() (ended []told) {
	o.t.Helper()
	eventually(o.t, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.ended) == len(o.began)
	}, "each operation ends")
	o.mu.Lock()
	defer o.mu.Unlock()
	ended = o.ended
	for _, op := range ended {
		same := op.began
		same.Room = op.Room // which was resolved meanwhile
		assert.Equal(o.t, same, op.Operation)
	}
	o.began, o.ended, o.others, o.wire = nil, nil, nil, map[int]roomkv.Outcome{}
	return ended
}

func kindsOf(ended []told) (names []string) {
	for _, op := range ended {
		names = append(names, op.Kind)
	}
	slices.Sort(names)
	return names
}

// one is the one operation that has ended.
func (o *observed) one() told {
	o.t.Helper()
	ended := o.take()
	require.Len(o.t, ended, 1, "%v", kindsOf(ended))
	return ended[0]
}

// sums are those of the requests that operations have made, as they say and as the wire shows, and those of the operations in whose context they were.
func (o *observed) sums() (said, shown roomkv.Outcome, others []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.ended {
		said.Requests, said.Sent, said.Received = said.Requests+op.Requests, said.Sent+op.Sent, said.Received+op.Received
	}
	for n, of := range o.wire {
		if n >= 0 {
			shown.Requests, shown.Sent, shown.Received = shown.Requests+of.Requests, shown.Sent+of.Sent, shown.Received+of.Received
		}
	}
	return said, shown, o.others
}

// textOf are the kinds of those that have ended.
func (o *observed) textOf() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(kindsOf(o.ended), " ")
}

func (o *observed) interrupted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.ended, func(op told) bool { return strings.HasPrefix(op.Error, "context.") })
}

// exact checks that each request was counted once.
func (o *observed) exact() {
	o.t.Helper()
	eventually(o.t, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.ended) == len(o.began)
	}, "each operation ends")
	said, shown, others := o.sums()
	if o.interrupted() { // what has come need not have been read
		said.Received, shown.Received = 0, 0
	}
	assert.Equal(o.t, shown, said)
	assert.Positive(o.t, said.Requests)
	assert.Empty(o.t, slices.DeleteFunc(others, func(path string) bool { // a client's own
		return slices.ContainsFunc([]string{"/sync", "/filter", "/keys/", "/createRoom", "/sendToDevice/"}, func(part string) bool { return strings.Contains(path, part) })
	}), "requests of no operation")
}

// seen is what a call is tried with.
type seen struct {
	*observed
	client   *mautrix.Client
	layout   roomkv.Option
	store    *roomkv.Store // that follows
	snapshot *roomkv.Snapshot
	old      *roomkv.Store // of another New, which nobody observes
	revision roomkv.Revision
	lease    *roomkv.Lease
}

// calls are all that an observer is told of, one call each. The memory has "a" and "b". Each gives the kind that is told where that is another.
var observedCalls = map[string]func(ctx context.Context, s *seen) error{
	"Get":    func(ctx context.Context, s *seen) error { _, err := roomkv.Get[int](ctx, s.store, "a"); return err },
	"Update": func(ctx context.Context, s *seen) error { return roomkv.Update(ctx, s.store, "a", increment) },
	"Copy":   func(ctx context.Context, s *seen) error { _, err := roomkv.Copy(ctx, s.store, s.old); return err },

	"Store.Get":    func(ctx context.Context, s *seen) error { return s.store.Get(ctx, "a", new(int)) },
	"Store.Entry":  func(ctx context.Context, s *seen) error { _, err := s.store.Entry(ctx, "a"); return err },
	"Store.Keys":   func(ctx context.Context, s *seen) error { _, err := s.store.Keys(ctx); return err },
	"Store.All":    func(ctx context.Context, s *seen) error { return firstError(s.store.All(ctx)) },
	"Store.GetAll": func(ctx context.Context, s *seen) error { _, err := s.store.GetAll(ctx, "a", "b"); return err },
	"Store.Put":    func(ctx context.Context, s *seen) error { return s.store.Put(ctx, "a", 2) },
	"Store.PutAll": func(ctx context.Context, s *seen) error { return s.store.PutAll(ctx, map[string]any{"a": 3, "b": 3}) },
	"Store.Create": func(ctx context.Context, s *seen) error { return s.store.Create(ctx, "new", 1) },
	"Store.Delete": func(ctx context.Context, s *seen) error { return s.store.Delete(ctx, "new", "a") },
	"Store.Pop":    func(ctx context.Context, s *seen) error { return s.store.Pop(ctx, "a", new(int)) },
	"Store.CompareAndPut": func(ctx context.Context, s *seen) error {
		return s.store.CompareAndPut(ctx, "a", 4, s.revision)
	},
	"Store.CompareAndDelete": func(ctx context.Context, s *seen) error { return s.store.CompareAndDelete(ctx, "a", s.revision) },
	"Store.Transact": func(ctx context.Context, s *seen) error {
		return s.store.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Put("a", 5) })
	},
	"Store.History": func(ctx context.Context, s *seen) error { return firstError(s.store.History(ctx, "a")) },
	"Store.At": func(ctx context.Context, s *seen) error {
		_, err := s.store.At(ctx, roomkv.AtTime(time.Now()))
		return err
	},
	"Store.Restore":    func(ctx context.Context, s *seen) error { _, err := s.store.Restore(ctx, s.snapshot); return err },
	"Store.Export":     func(ctx context.Context, s *seen) error { _, err := s.store.Export(ctx, io.Discard); return err },
	"Store.Import":     importOne,
	"Store.Purge":      func(ctx context.Context, s *seen) error { _, err := s.store.Purge(ctx, "a"); return err },
	"Store.EncryptAll": func(ctx context.Context, s *seen) error { _, err := s.store.EncryptAll(ctx); return err },
	"Store.Info":       func(ctx context.Context, s *seen) error { _, err := s.store.Info(ctx); return err },
	"Store.Rooms":      func(ctx context.Context, s *seen) error { return firstError(s.store.Rooms(ctx)) },
	"Store.WithRoom": func(ctx context.Context, s *seen) error {
		_, err := s.store.WithRoom(ctx, "!other:example.org")
		return err
	},
	"Store.Flush": func(ctx context.Context, s *seen) error { return s.store.Flush(ctx) },
	"Store.Close": closeAnother,
	"Store.Watch": func(ctx context.Context, s *seen) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		return firstError(s.store.Watch(ctx))
	},

	"Snapshot.Get":   func(ctx context.Context, s *seen) error { return s.snapshot.Get(ctx, "a", new(int)) },
	"Snapshot.Entry": func(ctx context.Context, s *seen) error { _, err := s.snapshot.Entry(ctx, "a"); return err },
	"Snapshot.Keys":  func(ctx context.Context, s *seen) error { _, err := s.snapshot.Keys(ctx); return err },
	"Snapshot.All":   func(ctx context.Context, s *seen) error { return firstError(s.snapshot.All(ctx)) },

	"Store.ImportAccountData": func(ctx context.Context, s *seen) error {
		_, err := s.store.ImportAccountData(ctx, "", "com.example.bot")
		return err
	},
	"Store.Sweep": func(ctx context.Context, s *seen) error { return s.store.Sweep(ctx) },
	"Store.Once":  func(ctx context.Context, s *seen) error { _, err := s.store.Once(ctx, "$event", time.Hour); return err },
	"Store.Lease": func(ctx context.Context, s *seen) error {
		_, err := s.store.Lease(ctx, "leader", time.Hour)
		return err
	},
	"Lease.Release": func(ctx context.Context, s *seen) error { return s.lease.Release(ctx) },

	"Map.Get": func(ctx context.Context, s *seen) error {
		_, err := roomkv.MapOf[int](s.store).Get(ctx, "a")
		return err
	},
	"Map.Put": func(ctx context.Context, s *seen) error { return roomkv.MapOf[int](s.store).Put(ctx, "a", 6) },
	"Map.Update": func(ctx context.Context, s *seen) error {
		return roomkv.MapOf[int](s.store).Update(ctx, "a", increment)
	},
	"Map.Delete": func(ctx context.Context, s *seen) error { return roomkv.MapOf[int](s.store).Delete(ctx, "a") },
	"Map.Keys": func(ctx context.Context, s *seen) error {
		_, err := roomkv.MapOf[int](s.store).Keys(ctx)
		return err
	},
	"Map.All": func(ctx context.Context, s *seen) error { return firstError(roomkv.MapOf[int](s.store).All(ctx)) },
	"Map.Watch": func(ctx context.Context, s *seen) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		return firstError(roomkv.MapOf[int](s.store).Watch(ctx))
	},
}

func closeAnother(ctx context.Context, s *seen) error {
	store, err := roomkv.New(s.client, "", roomkv.WithObserver(s.observed), s.layout)
	if err != nil {
		return err
	}
	return store.Close(ctx)
}

func importOne(ctx context.Context, s *seen) error {
	_, err := s.store.Import(ctx, strings.NewReader(`{"imported": 1}`), roomkv.ImportJSON())
	return err
}

// withContext are the functions and methods that take a context, as the source has them.
func withContext(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declared := range parsed.Decls {
			function, ok := declared.(*ast.FuncDecl)
			if !ok || !function.Name.IsExported() || len(function.Type.Params.List) == 0 {
				continue
			}
			first, ok := function.Type.Params.List[0].Type.(*ast.SelectorExpr)
			if !ok || first.Sel.Name != "Context" {
				continue
			}
			name := function.Name.Name
			if function.Recv != nil {
				of := function.Recv.List[0].Type
				if pointer, ok := of.(*ast.StarExpr); ok {
					of = pointer.X
				}
				if generic, ok := of.(*ast.IndexExpr); ok {
					of = generic.X
				}
				if !of.(*ast.Ident).IsExported() {
					continue
				}
				name = of.(*ast.Ident).Name + "." + name
			}
			names = append(names, name)
		}
	}
	return names
}

// An observer is told of each call once, whatever else the call makes. A new method has to be among the calls.
func TestObserverIsToldOfEachCall(t *testing.T) {
	hstest.Parallel(t)
	all := slices.DeleteFunc(withContext(t), func(name string) bool { return name == "FromContext" })
	require.ElementsMatch(t, all, slices.Collect(maps.Keys(observedCalls)), "a call is not tried")
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		hstest.Crypto(t, client)
		room := hstest.EncryptedRoom(t, client)
		s := &seen{observed: observe(t, client), client: client, layout: layout, old: open(t, client, room, layout, roomkv.WithEventType("com.example.old"))}
		s.store = open(t, client, room, layout, roomkv.WithObserver(s.observed))
		require.NoError(t, s.store.Follow())
		syncing(t, client)
		require.NoError(t, s.old.Put(ctx, "other", 1))
		require.NoError(t, client.SetAccountData(ctx, "com.example.bot", map[string]int{"imported": 1}))
		info, err := s.store.Info(ctx)
		require.NoError(t, err)
		for name, call := range observedCalls {
			require.NoError(t, s.store.PutAll(ctx, map[string]any{"a": 1, "b": 1}))
			require.NoError(t, s.store.Delete(ctx, "new", "leader", "once/$event"))
			s.snapshot, err = s.store.At(ctx, roomkv.AtRevision(roomkv.Revision(revision(t, s.store, "a"))))
			require.NoError(t, err)
			s.revision = roomkv.Revision(revision(t, s.store, "a"))
			if name == "Lease.Release" {
				s.lease, err = s.store.Lease(ctx, "leader", time.Hour)
				require.NoError(t, err)
			}
			s.take()

			began := time.Now()
			err = call(ctx, s)
			want := ""
			if strings.HasSuffix(name, ".Watch") {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				want = "context.DeadlineExceeded"
			} else {
				require.NoError(t, err, name)
			}
			if said, shown, _ := s.sums(); said.Requests+shown.Requests > 0 {
				s.exact()
			}
			op := s.one()
			assert.Equal(t, strings.TrimPrefix(strings.TrimPrefix(name, "Store."), "Map."), op.Kind)
			assert.Equal(t, want, op.Error, name)
			assert.Nil(t, op.Keys, name)
			assert.Positive(t, op.Duration, name)
			assert.LessOrEqual(t, op.Duration, time.Since(began), name)
			assert.Equal(t, map[bool]string{true: "per-key", false: "single"}[info.PerKey], op.Layout)
			switch op.Kind {
			case "Rooms", "Flush", "Close":
				assert.Empty(t, op.Room, name)
			case "WithRoom":
				assert.EqualValues(t, "!other:example.org", op.Room)
			default:
				assert.Equal(t, room, op.Room, name)
			}
		}
	})
}
