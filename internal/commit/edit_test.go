package commit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// aloneRoom is a room in which nobody else writes. Its first request waits until open is closed.
type aloneRoom struct {
	blindRoom
	open chan struct{}

	mu   sync.Mutex
	sent []json.RawMessage
}

func (r *aloneRoom) Current(context.Context) (*merge.Event, error) {
	<-r.open
	return nil, nil
}

func (r *aloneRoom) Send(_ context.Context, content json.RawMessage) (id.EventID, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, content)
	return id.EventID(fmt.Sprint("$", len(r.sent))), true, nil
}

// A call that goes on after its caller's context has ended holds up nobody, and what it has been given stays as it was.
func TestACallThatGoesOnMeetsNoOtherEdit(t *testing.T) { synctest.Test(t, aCallThatGoesOn) }

func aCallThatGoesOn(t *testing.T) {
	room := &aloneRoom{open: make(chan struct{})}
	writer := commit.NewWriter(new(replica.Dict), room, commit.Mode{Single: true})
	edit := func(name string, before func(base commit.Base)) commit.Edit {
		return commit.Edit{Conditional: true, Calls: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			before(base)
			return map[string]json.RawMessage{name: json.RawMessage("1")}, nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { assert.NoError(t, writer.Do(t.Context(), edit("first", func(commit.Base) {}))) })
	group.Go(func() {
		time.Sleep(10 * time.Millisecond)
		err := writer.Do(ctx, edit("slow", func(base commit.Base) {
			cancel()
			<-done
			assert.Equal(t, map[string]string{"first": "1"}, base.Names())
			assert.False(t, base.Fresh("other0"))
		}))
		assert.Error(t, err)
	})
	for i := range 10 {
		group.Go(func() {
			time.Sleep(20 * time.Millisecond) // behind the slow one, in the same event
			assert.NoError(t, writer.Do(t.Context(), edit(fmt.Sprint("other", i), func(commit.Base) {})))
		})
	}
	group.Go(func() {
		time.Sleep(30 * time.Millisecond)
		close(room.open)
		time.Sleep(100 * time.Millisecond)
		close(done)
	})
	group.Wait()
	room.mu.Lock()
	defer room.mu.Unlock()
	require.Len(t, room.sent, 2)
	assert.Contains(t, string(room.sent[1]), "other9")
	assert.NotContains(t, string(room.sent[1]), "slow")
}
