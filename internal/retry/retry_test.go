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

func always(error) retry.Verdict { return retry.Verdict{Again: true, Why: "HTTP 503"} }

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

func TestWaitsAsLongAsItIsAsked(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		0: 0, 500 * time.Millisecond: 500 * time.Millisecond, 35 * time.Second: 35 * time.Second, time.Hour: time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			policy := retry.Policy{Attempts: 2, Pause: 4 * time.Second, Longest: time.Minute}
			began := time.Now()
			asks := func(error) retry.Verdict { return retry.Verdict{Again: true, Asked: true, After: asked} }
			require.ErrorIs(t, policy.Do(t.Context(), func() error { return errFailed }, asks), errFailed)
			assert.Equal(t, want, time.Since(began))
		})
	}
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
		require.ErrorIs(t, policy.Do(t.Context(), second, func(error) retry.Verdict { return retry.Verdict{} }), errFailed)
		assert.Equal(t, 1, calls, "another attempt cannot succeed")

		calls = 0
		ctx, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, policy.Do(ctx, func() error { cancel(); return second() }, always), errFailed)
		assert.Equal(t, 1, calls, "nobody waits for another")
	})
}

// Who waits in vain is told for what.
func TestInterrupted(t *testing.T) {
	for verdict, want := range map[retry.Verdict]string{
		{Again: true, Asked: true, After: 35 * time.Second, Why: "HTTP 429"}: "context deadline exceeded: the homeserver asked to wait 35s (HTTP 429)",
		{Again: true, Why: "HTTP 503"}:                                       "context deadline exceeded: another attempt was to follow after 4s (HTTP 503)",
	} {
		synctest.Test(t, func(t *testing.T) {
			policy := retry.Policy{Attempts: 4, Pause: 4 * time.Second, Longest: time.Minute}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			err := policy.Do(ctx, func() error { return errFailed }, func(error) retry.Verdict { return verdict })
			assert.Equal(t, time.Second, time.Since(began))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, errFailed)
			assert.EqualError(t, err, want)
		})
	}
}

// So is who leaves the work to somebody else.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits retry.Waits
		assert.Equal(t, context.Canceled, waits.Explain(context.Canceled))
		policy := retry.Policy{Attempts: 2, Pause: 4 * time.Second, Longest: time.Minute}
		done := make(chan error)
		go func() { done <- policy.Do(waits.In(context.Background()), func() error { return errFailed }, always) }()
		synctest.Wait()
		err := waits.Explain(context.DeadlineExceeded)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errFailed)
		assert.EqualError(t, err, "context deadline exceeded: another attempt was to follow after 4s (HTTP 503)")
		require.ErrorIs(t, <-done, errFailed)
		assert.Equal(t, context.Canceled, waits.Explain(context.Canceled), "nothing is waited for any more")
	})
}
