package background

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		require.NoError(t, g.Close(t.Context()), "there is nothing")
		g = Group{}
		type key struct{}
		var ended atomic.Int32
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		for range 3 {
			g.Go(ctx, func(ctx context.Context) {
				assert.Equal(t, "value", ctx.Value(key{}))
				<-ctx.Done()
				time.Sleep(time.Second)
				ended.Add(1)
			})
		}
		cancel() // which ends none of them
		time.Sleep(time.Minute)
		assert.Zero(t, ended.Load())
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, g.Close(short), context.DeadlineExceeded)
		require.NoError(t, g.Close(t.Context()))
		assert.EqualValues(t, 3, ended.Load())
		g.Go(t.Context(), func(context.Context) { t.Error("the group was closed") })
		require.NoError(t, g.Close(t.Context()))
		synctest.Wait()
	})
}

func TestNobodyClosesNil(t *testing.T) {
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	(*Group)(nil).Go(ctx, func(ctx context.Context) { done <- ctx.Err() })
	require.NoError(t, <-done)
}
