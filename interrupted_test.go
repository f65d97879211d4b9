package roomkv_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// refuseAfter makes the server refuse state once it has taken so many events, and counts these.
func refuseAfter(server *fakehs.Server, most int64) (taken *atomic.Int64, stop func()) {
	taken = new(atomic.Int64)
	var begun atomic.Int64
	return taken, server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/state/") {
			return next(req)
		}
		if begun.Add(1) > most {
			return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode":"M_FORBIDDEN","error":"no more"}`))}, nil
		}
		resp, err := next(req)
		taken.Add(1)
		return resp, err
	})
}

// What a copy and an import say that they have done is true, also where they were interrupted, and is told from the first key on.
func TestInterruptedTransferTellsWhatItHasDone(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx := t.Context()
		client := fakehstest.Client(t, server)
		src := open(t, client, hstest.Room(t, client))
		values := map[string]any{}
		for n := range 250 {
			values[fmt.Sprint("key", n)] = n
		}
		require.NoError(t, src.PutAll(ctx, values))
		var file bytes.Buffer
		_, err := src.Export(ctx, &file)
		require.NoError(t, err)

		t.Run("copy", func(t *testing.T) {
			dst := open(t, client, hstest.Room(t, client), roomkv.WithPerKeyState())
			for _, most := range []int64{89, 61} { // 150 in all
				taken, stop := refuseAfter(server, most)
				var seen []roomkv.Copied
				copied, err := roomkv.Copy(ctx, dst, src, roomkv.CopyProgress(func(c roomkv.Copied) { seen = append(seen, c) }))
				stop()
				require.ErrorIs(t, err, roomkv.ErrForbidden)
				assert.EqualValues(t, taken.Load(), copied.Written)
				assert.Equal(t, 250, copied.Total)
				require.NotEmpty(t, seen)
				assert.Equal(t, roomkv.Copied{Total: 250}, seen[0], "before the first key")
				for i := range seen[1:] {
					assert.LessOrEqual(t, seen[i+1].Written-seen[i].Written, 10)
				}
			}
			copied, err := roomkv.Copy(ctx, dst, src)
			require.NoError(t, err)
			assert.Equal(t, roomkv.Copied{Total: 250, Written: 100, Equal: 150}, copied)
		})
		t.Run("cancelled", func(t *testing.T) {
			ctx, cancel := context.WithCancel(ctx)
			dst := open(t, client, hstest.Room(t, client), roomkv.WithPerKeyState())
			copied, err := roomkv.Copy(ctx, dst, src, roomkv.CopyProgress(func(c roomkv.Copied) {
				if c.Written >= 50 {
					cancel()
				}
			}))
			require.ErrorIs(t, err, context.Canceled)
			keys, err := dst.Keys(t.Context())
			require.NoError(t, err)
			assert.GreaterOrEqual(t, copied.Written, 50)
			assert.InDelta(t, len(keys), copied.Written, 8, "those that were on their way")
		})
		t.Run("import", func(t *testing.T) {
			dst := open(t, client, hstest.Room(t, client), roomkv.WithPerKeyState())
			more := map[string]any{}
			for n := range 120 {
				more[fmt.Sprint("more", n)] = n
			}
			require.NoError(t, dst.PutAll(ctx, more))
			taken, stop := refuseAfter(server, 89)
			var seen []roomkv.Imported
			imported, err := dst.Import(ctx, bytes.NewReader(file.Bytes()), roomkv.ImportReplace(),
				roomkv.ImportProgress(func(i roomkv.Imported) { seen = append(seen, i) }))
			stop()
			require.ErrorIs(t, err, roomkv.ErrForbidden)
			assert.Equal(t, roomkv.Imported{Total: 250, Written: int(taken.Load())}, imported)
			require.NotEmpty(t, seen)
			assert.Equal(t, roomkv.Imported{Total: 250}, seen[0], "before the first key")

			_, err = dst.Import(ctx, bytes.NewReader(file.Bytes()))
			require.NoError(t, err)
			taken, stop = refuseAfter(server, 30)
			imported, err = dst.Import(ctx, bytes.NewReader(file.Bytes()), roomkv.ImportReplace())
			stop()
			require.ErrorIs(t, err, roomkv.ErrForbidden)
			assert.Equal(t, roomkv.Imported{Total: 250, Equal: 250, Removed: int(taken.Load())}, imported)
		})
	})
}
