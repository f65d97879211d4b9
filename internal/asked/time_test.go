package asked_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/asked"
)

func TestAnswersCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		assert.False(t, asked.Time{}.Counts(true, time.Hour), "it was never asked")
		followed, alone := asked.Now(true), asked.Now(false)
		assert.False(t, alone.Counts(false, 0))
		time.Sleep(time.Minute)
		assert.True(t, alone.Counts(false, time.Minute+1))
		assert.False(t, alone.Counts(false, time.Minute))
		assert.False(t, alone.Counts(true, time.Minute), "something can have changed before the sync went on")
		assert.True(t, followed.Counts(true, 0))
		assert.False(t, followed.Counts(false, time.Minute), "the sync has ended since")
	})
}

func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown := asked.Shown(time.Second)
		assert.False(t, shown.Counts(true, time.Minute))
		time.Sleep(time.Second)
		assert.True(t, shown.Counts(true, 0))
		assert.True(t, shown.Counts(false, time.Minute))
		assert.False(t, shown.Counts(false, 0))
	})
}
