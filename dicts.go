package roomkv

import (
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// maxDicts is how many dicts are kept in mind: in the single-state-key layout one for each room, in the per-key layout
// one for each key that was changed or, while following, read.
const maxDicts = 4096

type dictID struct {
	room     id.RoomID
	stateKey string
}

// dicts are the dicts of all stores that come from one New. The one used least recently is forgotten first. Methods are
// safe for concurrent use.
type dicts struct {
	mu    sync.Mutex
	known lru[dictID, *commit.Replica]
}

// get finds the dict or makes it.
func (d *dicts) get(at dictID, make func() *commit.Replica) *commit.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.known.get(at); ok {
		return known
	}
	made := make()
	d.known.most = maxDicts
	d.known.put(at, made)
	return made
}

// find is nil where nothing is known.
func (d *dicts) find(at dictID) *commit.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, _ := d.known.get(at)
	return known
}

// forget is for a dict that nobody is going to ask for soon.
func (d *dicts) forget(at dictID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.forget(at)
}

// in gives the dicts of a room.
func (d *dicts) in(room id.RoomID) (found []*commit.Replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, known := range d.known.all {
		if at.room == room {
			found = append(found, known)
		}
	}
	return found
}
