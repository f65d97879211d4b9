package lru_test

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/lru"
)

func TestForgetsWhatWasUsedLeastRecently(t *testing.T) {
	c := lru.Cache[string, int]{Most: 2}
	_, ok := c.Get("a")
	assert.False(t, ok)
	c.Put("a", 1)
	c.Put("b", 2)
	_, _ = c.Get("a")
	c.Put("c", 3)
	assert.Equal(t, map[string]int{"a": 1, "c": 3}, maps.Collect(c.All))
	c.Put("a", 4)
	c.Forget("c")
	assert.Equal(t, map[string]int{"a": 4}, maps.Collect(c.All))
}

func TestSizes(t *testing.T) {
	c := lru.Cache[string, int]{Most: 10, Size: func(n int) int { return n }}
	for key, n := range map[string]int{"a": 3, "b": 3} {
		c.Put(key, n)
	}
	c.Put("c", 7)
	assert.Len(t, maps.Collect(c.All), 2)
	c.Put("c", 10)
	assert.Equal(t, map[string]int{"c": 10}, maps.Collect(c.All))
	c.Put("d", 11)
	assert.Empty(t, maps.Collect(c.All), "what is too large by itself is not kept")
}
