package graph

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Whoever may write can have each of many events name many others.
func TestManyEdges(t *testing.T) {
	const n = 400
	var events []Event
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint("old", i))
	}
	for i := range n {
		events = append(events, Event{ID: fmt.Sprint("new", i), Parents: all})
	}
	for _, id := range all {
		events = append(events, Event{ID: id})
	}
	before := time.Now()
	parts := layOut(events)
	took := time.Since(before)
	assert.Equal(t, n*n, parts[0].lanes)
	assert.Less(t, took, 8*time.Second)
	t.Log(took)
}
