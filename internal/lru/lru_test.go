package lru_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/lru"
)

func assertHolds(t *testing.T, c *lru.Cache[string, int], want map[string]int) {
	t.Helper()
	got := map[string]int{}
	for _, key := range []string{"a", "b", "c", "d"} {
		if value, ok := c.Get(key); ok {
			got[key] = value
		}
	}
	assert.Equal(t, want, got)
}

func TestForgetsWhatWasUsedLeastRecently(t *testing.T) {
	c := lru.Cache[string, int]{Most: 2}
	_, ok := c.Get("a")
	assert.False(t, ok)
	c.Put("a", 1)
	c.Put("b", 2)
	_, _ = c.Get("a")
	c.Put("c", 3)
	assertHolds(t, &c, map[string]int{"a": 1, "c": 3})
	c.Put("a", 4)
	c.Forget("c")
	assertHolds(t, &c, map[string]int{"a": 4})
	c.Put("b", 5)
	c.ForgetThose(func(n int) bool { return n == 4 })
	c.Put("d", 6)
	assertHolds(t, &c, map[string]int{"b": 5, "d": 6})
}

func TestSizes(t *testing.T) {
	var c lru.Cache[string, int]
	c.Keep("a", 1, 3, 10)
	c.Keep("b", 2, 3, 10)
	c.Keep("c", 3, 7, 10)
	assertHolds(t, &c, map[string]int{"b": 2, "c": 3})
	c.Keep("c", 4, 10, 10)
	assertHolds(t, &c, map[string]int{"c": 4})
	c.Keep("d", 5, 11, 10)
	assertHolds(t, &c, map[string]int{})
}
