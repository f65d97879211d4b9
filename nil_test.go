package roomkv_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// What is nil and must not be is an error, and nothing was done.
func TestNil(t *testing.T) {
	t.Parallel()
	server := fakehstest.New(t, fakehs.Options{})
	ctx := t.Context()
	client := fakehstest.Client(t, server)
	room := hstest.Room(t, client)
	store := open(t, client, room)
	require.NoError(t, store.Follow())
	require.NoError(t, store.Put(ctx, "k", 1))
	other := open(t, client, room, roomkv.WithPerKeyState())
	add := func(n int, _ bool) (int, error) { return n + 1, nil }

	for name, call := range map[string]func() error{
		"New's client": func() error { _, err := roomkv.New(nil, room.String()); return err },
		"New's client without a homeserver": func() error {
			_, err := roomkv.New(&mautrix.Client{UserID: client.UserID}, room.String())
			return err
		},
		"New's option":  func() error { _, err := roomkv.New(client, room.String(), nil); return err },
		"WithKeyBackup": func() error { _, err := roomkv.New(client, room.String(), roomkv.WithKeyBackup(nil)); return err },
		"WithObserver": func() error {
			_, err := roomkv.New(client, room.String(), roomkv.WithObserver((*observed)(nil)))
			return err
		},
		"Watch's option":             func() error { return firstError(store.Watch(ctx, nil)) },
		"Watch's options":            func() error { return firstError(store.Watch(ctx, roomkv.WatchKey("k"), nil)) },
		"WatchPrefix":                func() error { return firstError(store.Watch(ctx, roomkv.WatchPrefix())) },
		"Copy's option":              func() error { _, err := roomkv.Copy(ctx, other, store, nil); return err },
		"Copy's source":              func() error { _, err := roomkv.Copy(ctx, other, nil); return err },
		"Copy's target":              func() error { _, err := roomkv.Copy(ctx, nil, store); return err },
		"Import's option":            func() error { _, err := store.Import(ctx, &bytes.Buffer{}, nil); return err },
		"Import's reader":            func() error { _, err := store.Import(ctx, nil); return err },
		"ImportAccountData's option": func() error { _, err := store.ImportAccountData(ctx, "", botData, nil); return err },
		"Export's option":            func() error { _, err := store.Export(ctx, &bytes.Buffer{}, nil); return err },
		"Export's writer":            func() error { _, err := store.Export(ctx, nil); return err },
		"Update's fn":                func() error { return roomkv.Update[int](ctx, store, "k", nil) },
		"Update's store":             func() error { return roomkv.Update(ctx, nil, "k", add) },
		"Get's store":                func() error { _, err := roomkv.Get[int](ctx, nil, "k"); return err },
		"Restore's snapshot":         func() error { _, err := store.Restore(ctx, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			require.NotPanics(t, func() { assert.ErrorIs(t, call(), roomkv.ErrInvalidOption) })
		})
	}
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, store))
	assert.Empty(t, memoryOf(t, other))

	_, err := roomkv.Copy(ctx, other, store, roomkv.CopyProgress(nil))
	require.NoError(t, err, "who wants no progress can say so")
	assert.ErrorIs(t, store.Get(ctx, "k", nil), roomkv.ErrDecode)
	assert.ErrorIs(t, store.Pop(ctx, "k", nil), roomkv.ErrDecode)
	require.NotPanics(t, func() { store.InEventRoom(nil)(context.Background(), &event.Event{RoomID: room}) })
}

func firstError[T any](seq func(yield func(T, error) bool)) (err error) {
	for _, err := range seq {
		return err
	}
	return nil
}
