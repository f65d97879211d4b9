package memory

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"
)

func eventIDs(from, n int) (events []id.EventID) {
	for i := range n {
		events = append(events, id.EventID(fmt.Sprint("$", from+i)))
	}
	return events
}

func TestDropsAreTakenInPortions(t *testing.T) {
	const room, other = id.RoomID("!a:example.org"), id.RoomID("!b:example.org")
	var d drops
	assert.Empty(t, d.take(room))
	all := eventIDs(0, 2*someDrops+1)
	d.keep(room, all[:2])
	d.keep(room, all[2:])
	d.keep(other, eventIDs(100, 1))
	assert.Equal(t, all[:someDrops], d.take(room))
	second := d.take(room)
	assert.Equal(t, all[someDrops:2*someDrops], second)
	d.keep(room, second[1:2])
	assert.Equal(t, []id.EventID{all[2*someDrops], second[1]}, d.take(room), "what failed again comes last")
	assert.Empty(t, d.take(room))
	assert.Equal(t, eventIDs(100, 1), d.take(other), "each room has its own")
	assert.Empty(t, d.events)
}

func TestDropsAreBounded(t *testing.T) {
	const room, other = id.RoomID("!a:example.org"), id.RoomID("!b:example.org")
	var d drops
	d.keep(room, eventIDs(0, maxDrops-1))
	d.keep(room, eventIDs(maxDrops, 2))
	assert.Len(t, d.events[room], maxDrops-1)
	d.keep(room, eventIDs(maxDrops, 1))
	d.keep(room, eventIDs(2*maxDrops, 1))
	assert.Len(t, d.events[room], maxDrops)
	d.keep(other, eventIDs(0, maxDrops))
	assert.Len(t, d.events[other], maxDrops, "each room has a bound of its own")
	d.take(room)
	d.keep(room, eventIDs(2*maxDrops, someDrops))
	assert.Len(t, d.events[room], maxDrops)
}

// Who has taken some may do with them what they like.
func TestDropsGiveCopies(t *testing.T) {
	const room = id.RoomID("!a:example.org")
	var d drops
	d.keep(room, eventIDs(0, someDrops+1))
	_ = append(d.take(room), "$x")
	assert.Equal(t, eventIDs(someDrops, 1), d.take(room))
}
