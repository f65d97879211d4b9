package media_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestKeeper(t *testing.T) {
	ctx := t.Context()
	server := fakehstest.New(t, fakehs.Options{})
	room := matrix.Room{Client: matrix.Client{Client: fakehstest.Client(t, server)}, ID: "!room:example.org"}
	text := json.RawMessage(`"` + strings.Repeat("large", 20_000) + `"`)
	var keeper media.Keeper
	of := media.Of{Name: "name", Key: "key"}
	reference := func(stored json.RawMessage) json.RawMessage {
		read, err := wire.Decode(stored)
		require.NoError(t, err)
		require.NotNil(t, read.Media)
		return read.Media
	}

	stored, err := keeper.Put(ctx, room, of, text)
	require.NoError(t, err)
	assert.True(t, keeper.Holds(ctx, room, of, text, stored))
	again, err := keeper.Put(ctx, room, of, text)
	require.NoError(t, err)
	assert.JSONEq(t, string(stored), string(again), "it is there")
	other, err := keeper.Put(ctx, room, media.Of{Name: "other", Key: "other"}, text)
	require.NoError(t, err)
	assert.NotEqual(t, stored, other, "the one key's attachment is not the other's")

	var fresh media.Keeper
	assert.False(t, fresh.Holds(ctx, room, of, text, stored))
	got, err := fresh.Get(ctx, room, reference(stored), of)
	require.NoError(t, err)
	assert.Equal(t, text, got)
	assert.True(t, fresh.Holds(ctx, room, of, text, stored), "which it knows now")

	small := media.Keeper{MaxValue: 1000}
	_, err = small.Put(ctx, room, of, text)
	require.ErrorIs(t, err, fault.ErrTooLarge)
	_, err = small.Get(ctx, room, reference(stored), of)
	require.ErrorIs(t, err, fault.ErrTooLarge)
	assert.NotContains(t, err.Error(), "large"+"large", "the value")

	damaged := strings.Replace(string(reference(stored)), `"size":100002`, `"size":100003`, 1)
	require.NotEqual(t, string(reference(stored)), damaged)
	_, err = fresh.Get(ctx, room, json.RawMessage(damaged), of)
	require.ErrorIs(t, err, fault.ErrCorrupt)
	missing := strings.Replace(string(reference(stored)), `"url":"mxc://`, `"url":"mxc://elsewhere.`, 1)
	_, err = fresh.Get(ctx, room, json.RawMessage(missing), of)
	require.ErrorIs(t, err, fault.ErrMissingMedia)
}
