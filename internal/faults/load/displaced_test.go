package load

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func TestOutOfOrder(t *testing.T) {
	evt := func(name, stateKey string, sent int64) *event.Event {
		return &event.Event{ID: id.EventID("$" + name), StateKey: &stateKey, Timestamp: sent}
	}
	kills := []time.Time{time.UnixMilli(1000), time.UnixMilli(2000)}
	assert.Equal(t, map[string]id.EventID{"b": "$late"}, outOfOrder([]*event.Event{
		evt("first", "a", 500), evt("second", "b", 1100), evt("late", "b", 999), evt("third", "a", 1200), evt("message", "a", 2100),
	}, kills))
	assert.Empty(t, outOfOrder([]*event.Event{evt("first", "a", 1200), evt("second", "a", 1100)}, kills), "no kill was between them")
	assert.Empty(t, outOfOrder([]*event.Event{evt("first", "a", 500), evt("second", "a", 1500), evt("third", "a", 2500)}, kills))
	assert.Empty(t, outOfOrder([]*event.Event{evt("first", "a", 1500), evt("late", "a", 500)}, nil))
}

// What a displaced event explains is put aside, and nothing else.
func TestExcuse(t *testing.T) {
	displaced := map[string]id.EventID{"list/0": "$late"}
	violations := []Violation{{Kind: Lost, Key: "list/0"}, {Kind: Lost, Key: "list/1"}, {Kind: Doubled, Key: "list/0"}, {Kind: Unreadable, Key: "list/0"}}
	r := &Run{Config: Config{PerKey: true}, Violations: violations}
	r.excuse(displaced)
	assert.Len(t, r.Excused, 1)
	assert.Equal(t, violations[1:], r.Violations)

	r = &Run{Violations: []Violation{{Kind: Lost, Key: "list/0"}}}
	r.excuse(map[string]id.EventID{"": "$late"})
	assert.Len(t, r.Excused, 1, "one event has all keys")
	assert.Empty(t, r.Violations)
}
