package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"

	"github.com/roomkv/roomkv"
)

// operations are what a store does.
var operations = map[string]func(ctx context.Context, store *roomkv.Store) error{
	"Get":       func(ctx context.Context, store *roomkv.Store) error { return store.Get(ctx, "there", new(any)) },
	"Get large": func(ctx context.Context, store *roomkv.Store) error { return store.Get(ctx, "large", new(any)) },
	"Put":       func(ctx context.Context, store *roomkv.Store) error { return store.Put(ctx, "new", 1) },
	"Put large": func(ctx context.Context, store *roomkv.Store) error {
		return store.Put(ctx, "larger", strings.Repeat("another ", 10_000))
	},
	"Update": func(ctx context.Context, store *roomkv.Store) error {
		return roomkv.Update(ctx, store, "there", func(n int, _ bool) (int, error) { return n + 1, nil })
	},
	"Create": func(ctx context.Context, store *roomkv.Store) error { return store.Create(ctx, "created", 1) },
	"Delete": func(ctx context.Context, store *roomkv.Store) error { return store.Delete(ctx, "there", "large") },
	"Pop":    func(ctx context.Context, store *roomkv.Store) error { return store.Pop(ctx, "there", new(any)) },
	"Keys": func(ctx context.Context, store *roomkv.Store) error {
		keys, err := store.Keys(ctx)
		if err == nil && len(keys) != 2 {
			err = fmt.Errorf("keys: %q", keys)
		}
		return err
	},
	"All": func(ctx context.Context, store *roomkv.Store) error {
		for _, err := range store.All(ctx) {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"PutAll": func(ctx context.Context, store *roomkv.Store) error {
		return store.PutAll(ctx, map[string]any{"one": 1, "two": 2, "there": 3})
	},
	"CompareAndPut": func(ctx context.Context, store *roomkv.Store) error {
		entry, err := store.Entry(ctx, "there")
		if err != nil {
			return err
		}
		return store.CompareAndPut(ctx, "there", 2, entry.Revision)
	},
	"History": func(ctx context.Context, store *roomkv.Store) error {
		for _, err := range store.History(ctx, "there") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"At": func(ctx context.Context, store *roomkv.Store) error {
		snapshot, err := store.At(ctx, roomkv.AtTime(time.Now()))
		if err != nil {
			return err
		}
		_, err = store.Restore(ctx, snapshot)
		return err
	},
	"Export": func(ctx context.Context, store *roomkv.Store) error {
		_, err := store.Export(ctx, io.Discard)
		return err
	},
	"ImportAccountData": func(ctx context.Context, store *roomkv.Store) error {
		_, err := store.ImportAccountData(ctx, "", "com.example.bot")
		return err
	},
	"Copy": func(ctx context.Context, store *roomkv.Store) error {
		to, err := store.WithRoom(ctx, "#other:example.org")
		if err != nil {
			return err
		}
		_, err = roomkv.Copy(ctx, to, store)
		return err
	},
	"EncryptAll": func(ctx context.Context, store *roomkv.Store) error {
		_, err := store.EncryptAll(ctx)
		if errors.Is(err, roomkv.ErrNoCrypto) {
			err = nil
		}
		return err
	},
	"Purge": func(ctx context.Context, store *roomkv.Store) error {
		_, err := store.Purge(ctx, "there")
		return err
	},
}

// newMemories make rooms with a memory that has values, by how it is kept there.
var newMemories = map[string]func() *memory{
	"single":           func() *memory { return newMemory(false) },
	"perkey":           func() *memory { return newMemory(false, roomkv.WithPerKeyState()) },
	"encrypted single": func() *memory { return newMemory(true) },
	"encrypted perkey": func() *memory { return newMemory(true, roomkv.WithPerKeyState()) },
	"with all": func() *memory {
		return newMemory(true, roomkv.WithSealedKeys(make([]byte, 16)), roomkv.WithAccountDataFallback(), roomkv.WithRoomUpgrades(), roomkv.WithRedaction())
	},
	"powerless": func() *memory {
		m := newMemory(false, roomkv.WithAccountDataFallback(), roomkv.WithPerKeyState())
		m.homeserver.setState(m.homeserver.room, "m.room.power_levels", "", `{"users":{}}`)
		return m
	},
}

// memories give the same memory to each operation, where none spoils it for the next.
var memories = map[string]func() *memory{
	"single":           sync.OnceValue(newMemories["single"]),
	"perkey":           sync.OnceValue(newMemories["perkey"]),
	"encrypted single": sync.OnceValue(newMemories["encrypted single"]),
	"encrypted perkey": sync.OnceValue(newMemories["encrypted perkey"]),
	"with all":         newMemories["with all"],
	"powerless":        newMemories["powerless"],
}

// memory is a room's memory on a homeserver, and what it takes to read that.
type memory struct {
	homeserver *homeserver
	encrypted  bool
	keys       crypto.Store
	options    []roomkv.Option
}

func newMemory(encrypted bool, options ...roomkv.Option) *memory {
	m := &memory{newHomeserver(encrypted), encrypted, crypto.NewMemoryStore(nil), options}
	values := map[string]any{"there": 1, "large": strings.Repeat("large ", 10_000)}
	ctx := context.Background()
	client, err := m.client(ctx, m.homeserver)
	if err == nil {
		var store *roomkv.Store
		if store, err = roomkv.New(client, m.homeserver.room.String(), options...); err == nil {
			err = store.PutAll(ctx, values)
		}
	}
	if err != nil {
		panic(err)
	}
	return m
}

func (m *memory) client(ctx context.Context, h *homeserver) (*mautrix.Client, error) {
	if m.encrypted {
		return h.encryptingClient(ctx, m.keys)
	}
	return h.newClient()
}

// open is a store of a copy of the memory, in a process that knows nothing of it.
func (m *memory) open(t testing.TB) (*homeserver, *roomkv.Store) {
	t.Helper()
	h := m.homeserver.copy()
	client, err := m.client(t.Context(), h)
	require.NoError(t, err)
	t.Cleanup(h.heal)
	return h, open(t, client, m.options...)
}

// eachOperation runs a test for each operation on each memory, in virtual time: waits cost none.
func eachOperation(t *testing.T, test func(t *testing.T, kind string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error)) {
	for name, memory := range memories {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the operations of one memory share its room and its keys
			for operation, do := range operations {
				t.Run(operation, func(t *testing.T) {
					memory() // the first one, outside of the virtual time
					synctest.Test(t, func(t *testing.T) {
						t.Cleanup(func() { time.Sleep(time.Hour) }) // a write goes on for a while when its caller has left
						test(t, name, memory, do)
					})
				})
			}
		})
	}
}
