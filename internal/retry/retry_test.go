package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/retry"
)

var errFailed = errors.New("failed by the test")

func always(error) bool { return true }

func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		fails := func() error {
			at = append(at, time.Since(began))
			return errFailed
		}
		policy := retry.Policy{Attempts: 5, Pause: 4 * time.Second, Longest: 20 * time.Second}
		require.ErrorIs(t, policy.Do(t.Context(), fails, always), errFailed)
		assert.Equal(t, []time.Duration{0, 4 * time.Second, 12 * time.Second, 28 * time.Second, 48 * time.Second}, at)

		for attempts, want := range map[int]int{-1: 1, 0: 1, 1: 1, 2: 2} {
			at = nil
			require.ErrorIs(t, retry.Policy{Attempts: attempts}.Do(t.Context(), fails, always), errFailed)
			assert.Len(t, at, want)
		}
	})
}

func TestEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := retry.Policy{Attempts: 5, Pause: time.Second, Longest: time.Second}
		calls := 0
		second := func() error {
			if calls++; calls == 2 {
				return nil
			}
			return errFailed
		}
		require.NoError(t, policy.Do(t.Context(), second, always))
		assert.Equal(t, 2, calls)

		calls = 0
		require.ErrorIs(t, policy.Do(t.Context(), second, func(error) bool { return false }), errFailed)
		assert.Equal(t, 1, calls, "another attempt cannot succeed")

		calls = 0
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, policy.Do(ctx, second, always), context.DeadlineExceeded)
		assert.Equal(t, 1, calls)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
	})
}
