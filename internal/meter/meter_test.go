package meter

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMeter(t *testing.T) {
	var m Meter
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				m.Add(Counts{Requests: 1, Retries: 2, Sent: 3, Received: 4, Merges: 5})
			}
		})
	}
	all.Wait()
	want := Counts{Requests: 800, Retries: 1600, Sent: 2400, Received: 3200, Merges: 4000}
	assert.Equal(t, want, m.Counts())
	assert.Equal(t, want, m.Close())
	assert.False(t, m.Add(Counts{Requests: 1}))
	assert.Equal(t, want, m.Counts(), "it is closed")
	assert.False(t, (*Meter)(nil).Add(Counts{Requests: 1}))
}

func TestContext(t *testing.T) {
	plain := t.Context()
	Count(plain, Counts{Requests: 1})
	assert.False(t, Counted(plain))
	var outer, inner Meter
	ctx := outer.In(plain)
	Count(inner.In(ctx), Counts{Requests: 2})
	Count(context.WithoutCancel(ctx), Counts{Requests: 3})
	assert.True(t, Counted(ctx))
	assert.Equal(t, 3, outer.Counts().Requests)
	assert.Equal(t, 2, inner.Counts().Requests, "an operation within another one has its own requests")
}

func TestShared(t *testing.T) {
	ctx, none := Share(t.Context())
	assert.Equal(t, t.Context(), ctx)
	none.Join(t.Context())

	var first, second Meter
	ctx, shared := Share(first.In(t.Context()))
	shared.Join(t.Context()) // of which nothing is counted
	shared.Join(second.In(t.Context()))
	Count(ctx, Counts{Requests: 1})
	first.Close()
	Count(ctx, Counts{Requests: 2})
	second.Close()
	Count(ctx, Counts{Requests: 4})
	assert.Equal(t, 1, first.Counts().Requests)
	assert.Equal(t, 2, second.Counts().Requests, "the first has ended")
	assert.False(t, shared.Add(Counts{Requests: 1}))
}
