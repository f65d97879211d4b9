package commit_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/commit"
)

// An event can have rivals that are as much older as what it was made from. Where nobody knows how old that was, they can be of any age.
func TestRivalsSince(t *testing.T) {
	now := time.Now()
	policy := commit.DefaultPolicy()
	policy.Now, policy.Skew = func() time.Time { return now }, time.Second
	sent := now.UnixMilli()
	assert.Equal(t, sent-1000, commit.RivalsSince(policy, sent, now))
	assert.Equal(t, sent-61_000, commit.RivalsSince(policy, sent, now.Add(-time.Minute)))
	assert.Negative(t, commit.RivalsSince(policy, sent, time.Time{}))
}
