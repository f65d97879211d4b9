package hostile_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

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

// denied is an encrypted room with a memory, whose homeserver says that the room is not encrypted.
type denied struct {
	server  *fakehs.Server
	writer  *mautrix.Client // whose process has written the memory
	room    id.RoomID
	options []roomkv.Option
	clear   *roomkv.Snapshot // of a moment when the room was not encrypted yet
	file    []byte           // an export with another value
	source  *roomkv.Store    // another memory, which is in clear
}

func newDenied(t *testing.T, server *fakehs.Server, options ...roomkv.Option) *denied {
	t.Helper()
	ctx := t.Context()
	d := &denied{server: server, writer: fakehstest.Client(t, server), options: options}
	hstest.Crypto(t, d.writer)
	d.room = hstest.Room(t, d.writer)
	d.source = openRoom(t, d.writer, hstest.Room(t, d.writer), roomkv.WithEncryption(false))
	require.NoError(t, d.source.Put(ctx, "copied", "secret"))
	var file bytes.Buffer
	_, err := d.source.Export(ctx, &file)
	require.NoError(t, err)
	d.file = file.Bytes()

	store := openRoom(t, d.writer, d.room, options[0])
	require.NoError(t, store.Put(ctx, "early", "secret of long ago"))
	entry, err := store.Entry(ctx, "early")
	require.NoError(t, err)
	d.clear, err = store.At(ctx, roomkv.AtRevision(entry.Revision))
	require.NoError(t, err)
	_, err = d.writer.SendStateEvent(ctx, d.room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
	require.NoError(t, err)
	require.NoError(t, store.PutAll(ctx, map[string]any{"early": "secret", "one": "secret", "two": "secret"}))
	server.Settle()
	server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, d.room.String()+"/state/m.room.encryption") {
			return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode":"M_NOT_FOUND","error":"no such state"}`))}, nil
		}
		return next(req)
	})
	return d
}

// openRoom is a store of the room.
func openRoom(t testing.TB, client *mautrix.Client, room id.RoomID, options ...roomkv.Option) *roomkv.Store {
	t.Helper()
	store, err := roomkv.New(client, room.String(), options...)
	require.NoError(t, err)
	return store
}

// writes are those of a process that knows nothing of the memory.
var writes = map[string]func(ctx context.Context, store *roomkv.Store, d *denied) error{
	"Put": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.Put(ctx, "new", "secret")
	},
	"Put over": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.Put(ctx, "one", "secret")
	},
	"Put large": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.Put(ctx, "large", strings.Repeat("secret ", 10_000))
	},
	"PutAll": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.PutAll(ctx, map[string]any{"a": "secret", "b": "secret", "one": "secret"})
	},
	"Update": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return roomkv.Update(ctx, store, "new", func(string, bool) (string, error) { return "secret", nil })
	},
	"Create": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.Create(ctx, "new", "secret")
	},
	"CompareAndPut": func(ctx context.Context, store *roomkv.Store, _ *denied) error {
		return store.CompareAndPut(ctx, "new", "secret", "")
	},
	"Restore": func(ctx context.Context, store *roomkv.Store, d *denied) error {
		_, err := store.Restore(ctx, d.clear)
		return err
	},
	"Import": func(ctx context.Context, store *roomkv.Store, d *denied) error {
		_, err := store.Import(ctx, bytes.NewReader(d.file))
		return err
	},
	"ImportAccountData": func(ctx context.Context, store *roomkv.Store, d *denied) error {
		if err := d.writer.SetAccountData(ctx, "com.example.bot", map[string]string{"new": "secret"}); err != nil {
			return err
		}
		_, err := store.ImportAccountData(ctx, "", "com.example.bot")
		return err
	},
	"Copy": func(ctx context.Context, store *roomkv.Store, d *denied) error {
		_, err := roomkv.Copy(ctx, store, d.source)
		return err
	},
}

// deniedLayouts are those in which the memory can be, first, and how it can be written.
var deniedLayouts = map[string][]roomkv.Option{
	"single":                 {roomkv.WithSingleStateKey("")},
	"custom":                 {roomkv.WithSingleStateKey("other")},
	"perkey":                 {roomkv.WithPerKeyState()},
	"single, single writer":  {roomkv.WithSingleWriter()},
	"perkey, single writer":  {roomkv.WithPerKeyState(), roomkv.WithSingleWriter()},
	"perkey, with redaction": {roomkv.WithPerKeyState(), roomkv.WithRedaction()},
}

// A process that knows nothing of the room is told that it is not encrypted. The memory's references say that it is.
func TestDeniedEncryption(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		for layout, options := range deniedLayouts {
			d := newDenied(t, server, options...)
			for name, write := range writes {
				for _, crypto := range []bool{false, true} {
					if !crypto && strings.HasPrefix(layout, "perkey") { // which has read nothing, and lists nothing
						continue
					}
					client := fakehstest.Device(t, server, d.writer)
					if crypto {
						hstest.Crypto(t, client)
					}
					client.StateStore = mautrix.NewMemoryStateStore()
					recorder := hstest.Record(client)
					store := openRoom(t, client, d.room, options...)
					require.ErrorIs(t, write(t.Context(), store, d), roomkv.ErrNoCrypto, "%s, %s, Crypto: %v", layout, name, crypto)
					assertNothingInClear(t, recorder, layout+", "+name)

					// Nor does it believe so later, whatever a write reads.
					require.ErrorIs(t, store.Put(t.Context(), "another", "secret"), roomkv.ErrNoCrypto, "%s, after %s", layout, name)
					assertNothingInClear(t, recorder, layout+", after "+name)
				}
			}
		}
	})
}

func assertNothingInClear(t *testing.T, recorder *hstest.Recorder, what string) {
	t.Helper()
	for _, request := range recorder.Requests() {
		assert.False(t, request.Method == http.MethodPut && strings.Contains(request.Path, "/state/"), "%s: %s %s", what, request.Method, request.Path)
		assert.NotContains(t, string(request.Body), "secret", "%s: %s %s", what, request.Method, request.Path)
	}
}

// A purge stores values of other keys anew that it has decrypted.
func TestPurgeOfDeniedEncryption(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		for layout, options := range deniedLayouts {
			d := newDenied(t, server, options...)
			d.writer.StateStore = mautrix.NewMemoryStateStore() // of its own, the Crypto has another
			recorder := hstest.Record(d.writer)
			store := openRoom(t, d.writer, d.room, options...)
			_, err := store.Purge(t.Context(), "one")
			require.ErrorIs(t, err, roomkv.ErrNoCrypto, layout)
			for _, request := range recorder.Requests() {
				assert.NotContains(t, string(request.Body), "secret", "%s: %s %s", layout, request.Method, request.Path)
			}
			two, err := roomkv.Get[string](t.Context(), store, "two")
			require.NoError(t, err, layout)
			assert.Equal(t, "secret", two)
		}
	})
}

// A client whose state store knows better goes on encrypting.
func TestDeniedEncryptionThatIsKnown(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		for layout, options := range deniedLayouts {
			d := newDenied(t, server, options...)
			recorder := hstest.Record(d.writer)
			store := openRoom(t, d.writer, d.room, options...)
			require.NoError(t, store.Put(t.Context(), "new", "secret"), layout)
			for _, request := range recorder.Requests() {
				assert.NotContains(t, string(request.Body), "secret", "%s: %s %s", layout, request.Method, request.Path)
			}
		}
	})
}

// In a room that is not encrypted a value that looks like a reference is none.
func TestValuesThatLookLikeReferences(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		for layout, options := range deniedLayouts {
			client := fakehstest.Client(t, server)
			room := hstest.Room(t, client)
			values := map[string]any{
				"marker": map[string]string{"encrypted_val": "$event"}, "encrypted_val": "$event",
				"nested": map[string]any{"inner": map[string]string{"encrypted_val": "$event"}},
			}
			require.NoError(t, openRoom(t, client, room, options[0]).PutAll(t.Context(), values), layout)
			store := openRoom(t, client, room, options...)
			require.NoError(t, store.Put(t.Context(), "new", 1), layout)
			keys, err := store.Keys(t.Context())
			require.NoError(t, err)
			slices.Sort(keys)
			assert.Equal(t, []string{"encrypted_val", "marker", "nested", "new"}, keys)
		}
	})
}

// References that lead nowhere stop no write in a room that is not encrypted, and a writer asks for few of them.
func TestFalseReferences(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx := t.Context()
		client := fakehstest.Client(t, server)
		room := hstest.Room(t, client)
		content := map[string]any{}
		for i := range 500 {
			content[fmt.Sprint("key ", i)] = map[string]any{"encrypted_val": fmt.Sprint("$false", i)}
		}
		content["long"] = map[string]any{"encrypted_val": "$" + strings.Repeat("a", 20_000)}
		_, err := client.SendStateEvent(ctx, room, event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "", content)
		require.NoError(t, err)
		server.Settle()
		recorder := hstest.Record(client)
		require.NoError(t, openRoom(t, client, room).Put(ctx, "new", 1))
		assert.LessOrEqual(t, recorder.Count(), 25)
	})
}
