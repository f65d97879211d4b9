package roomkv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// What Info says of a memory that is half full is what fits into it, to 2 %.
func TestInfoTellsWhatFits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		encrypted bool
		expires   bool
		opts      []roomkv.Option
	}{
		"clear": {}, "encrypted": {encrypted: true}, "sealed": {encrypted: true, opts: []roomkv.Option{roomkv.WithSealedKeys(secret)}},
		"expires": {expires: true}, "encrypted expires": {encrypted: true, expires: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			client, err := fakehs.New(fakehs.Options{Mode: fakehs.Modes[0], Name: "info"}).Register(ctx, "bot")
			require.NoError(t, err)
			room := hstest.Room(t, client)
			if test.encrypted {
				hstest.Crypto(t, client)
				room = hstest.EncryptedRoom(t, client)
			}
			var how []roomkv.PutOption
			if test.expires {
				how = append(how, roomkv.ExpireAfter(time.Hour))
			}
			store := open(t, client, room, test.opts...)
			fill := func(n int) error {
				values := map[string]any{}
				for i := range n {
					values[fmt.Sprintf("score/@member%04d:example.org", i)] = 1000 + i
				}
				return store.PutAll(ctx, values, how...)
			}
			require.NoError(t, fill(200))
			half, err := store.Info(ctx)
			require.NoError(t, err)
			most, over := half.Keys, 4000
			for most+1 < over {
				n := (most + over) / 2
				if err := fill(n); err == nil {
					most = n
				} else {
					require.ErrorIs(t, err, roomkv.ErrTooLarge)
					over = n
				}
			}
			full, err := store.Info(ctx)
			require.NoError(t, err)
			t.Logf("%d fit, Info of %d said %d (%d bytes); then %d bytes, content %d, %d more", most, half.Keys, half.Keys+half.More, half.Bytes, full.Bytes,
				len(rawState(t, client, room, database, "")), full.More)
			assert.Equal(t, most, full.Keys)
			assert.InEpsilon(t, most, half.Keys+half.More, 0.02)
			assert.LessOrEqual(t, full.More, most/50)
			assert.InEpsilon(t, len(rawState(t, client, room, database, "")), full.Bytes, 0.02)
		})
	}
}
