package commit_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// blindRoom acknowledges events and never shows them.
type blindRoom struct {
	commit.Room
	lists int
}

func (*blindRoom) Hold(context.Context) (func(), error)                { return func() {}, nil }
func (*blindRoom) Current(context.Context) (*merge.Event, error)       { return nil, nil }
func (*blindRoom) Latest(context.Context) ([]merge.Event, error)       { return nil, nil }
func (*blindRoom) Sealer(context.Context, bool) (commit.Sealer, error) { return nil, nil }
func (*blindRoom) RefusesContent(error) (refused, sure bool)           { return false, false }
func (*blindRoom) TooLarge(error) bool                                 { return false }
func (*blindRoom) Fits(int) error                                      { return nil }
func (*blindRoom) Synced(context.Context) bool                         { return false }
func (*blindRoom) Refused(context.Context, id.EventID) error           { return nil }
func (*blindRoom) Send(context.Context, json.RawMessage) (id.EventID, bool, error) {
	return "$sent", true, nil
}

func (r *blindRoom) Recent(context.Context, string, int) (commit.Page, error) {
	r.lists++
	return commit.Page{}, nil
}

// How often something is asked and how long is waited is the policy's, and so is the clock: a test with other ones takes no time.
func TestPolicy(t *testing.T) {
	policy := commit.DefaultPolicy()
	policy.Tries, policy.Lag, policy.SettleAfter = 4, time.Hour, 24*time.Hour
	var waited []time.Duration
	policy.After = func(wait time.Duration) <-chan time.Time {
		if wait == policy.SettleAfter {
			return nil // what goes on in the background waits for ever
		}
		waited = append(waited, wait)
		return time.After(0)
	}
	asked := 0
	policy.Now = func() time.Time {
		asked++
		return time.Unix(0, 0)
	}
	room := new(blindRoom)
	writer := commit.NewWriter(new(replica.Dict), room, commit.Mode{Policy: policy})
	err := writer.Do(t.Context(), commit.Edit{Apply: func(commit.Base) (map[string]json.RawMessage, error) {
		return map[string]json.RawMessage{"k": json.RawMessage("1")}, nil
	}})
	require.ErrorContains(t, err, "does not show it")
	assert.Equal(t, 4, room.lists)
	assert.Equal(t, []time.Duration{time.Hour, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour}, waited)
	assert.NotZero(t, asked)
	assert.NotEqual(t, policy.Tries, commit.DefaultPolicy().Tries, "others keep theirs")
}

// A write whose callers have given up still has the time to merge; see [commit.Policy.MaxWait].
func TestWaitsEndBeforeAWriteGivesUp(t *testing.T) {
	p := commit.DefaultPolicy()
	assert.Less(t, time.Duration(p.Patience)*p.MaxWait, p.GiveUp)
}
