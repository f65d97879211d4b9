package keybackup

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/meter"
)

// Of those who share a call the first counts its requests, and the next one once the first has given up.
func TestSharedCallIsCountedOnce(t *testing.T) {
	var c calls[string]
	var first, second meter.Meter
	begun, goOn := make(chan struct{}), make(chan struct{})
	call := func(ctx context.Context) (bool, error) {
		meter.Count(ctx, meter.Counts{Requests: 1})
		close(begun)
		<-goOn
		meter.Count(ctx, meter.Counts{Requests: 2})
		return true, nil
	}
	ctx, cancel := context.WithCancel(first.In(t.Context()))
	gaveUp, done := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.do(ctx, "k", call); gaveUp <- err }()
	<-begun
	go func() { _, err := c.do(second.In(t.Context()), "k", call); done <- err }()
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.running["k"].waiting == 2
	}, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-gaveUp, context.Canceled)
	first.Close() // as the operation does when it ends
	close(goOn)
	require.NoError(t, <-done)
	assert.Equal(t, 1, first.Counts().Requests)
	assert.Equal(t, 2, second.Counts().Requests)
}
