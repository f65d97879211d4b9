package fallback

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		enter := func(ctx context.Context, how func(context.Context) (func(), error)) (entered chan func(), failed chan error) {
			entered, failed = make(chan func(), 1), make(chan error, 1)
			go func() {
				if leave, err := how(ctx); err != nil {
					failed <- err
				} else {
					entered <- leave
				}
			}()
			synctest.Wait()
			return entered, failed
		}
		first, _ := enter(t.Context(), g.share)
		second, _ := enter(t.Context(), g.share)
		require.Len(t, first, 1)
		require.Len(t, second, 1, "any number share it")

		ctx, cancel := context.WithCancel(t.Context())
		_, failed := enter(ctx, g.alone)
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		alone, _ := enter(t.Context(), g.alone)
		third, _ := enter(t.Context(), g.share)
		ctx, cancel = context.WithCancel(t.Context())
		_, failed = enter(ctx, g.share)
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		(<-first)()
		synctest.Wait()
		assert.Empty(t, alone, "one is inside still")
		(<-second)()
		synctest.Wait()
		require.Len(t, alone, 1)
		assert.Empty(t, third, "it came after who is alone")
		other, _ := enter(t.Context(), g.alone)
		(<-alone)()
		synctest.Wait()
		assert.Equal(t, 1, len(third)+len(other))
		for range 2 {
			select {
			case leave := <-third:
				leave()
			case leave := <-other:
				leave()
			}
		}
	})
}
