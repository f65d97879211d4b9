package roomkv

import (
	"runtime"
	"sync"
	"weak"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/lru"
)

// maxDicts is how many dicts are kept in mind: in the single-state-key layout one for each room, in the per-key layout
// one for each key that was changed or, while following, read.
const maxDicts = 4096

type dictID struct {
	room     id.RoomID
	stateKey string
}

// dicts are the dicts of all stores that come from one New. The one used least recently is forgotten first, but not while anybody has
// it: two writers of one dict would not know of each other. Methods are safe for concurrent use.
type dicts struct {
	mu   sync.Mutex
	kept lru.Cache[dictID, *commit.Replica]      // those that stay
	all  map[dictID]weak.Pointer[commit.Replica] // and those that somebody still has
}

// get finds the dict or makes it.
func (d *dicts) get(at dictID, make func() *commit.Replica) *commit.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	known := d.all[at].Value()
	if known == nil {
		known = make()
		if d.all == nil {
			d.all = map[dictID]weak.Pointer[commit.Replica]{}
		}
		d.all[at] = weak.Make(known)
		registry := weak.Make(d) // for the store must not stay because of its dicts
		runtime.AddCleanup(known, func(at dictID) {
			if d := registry.Value(); d != nil {
				d.clean(at)
			}
		}, at)
	}
	d.kept.Most = maxDicts
	d.kept.Put(at, known)
	return known
}

// clean is for a dict that nobody has any more.
func (d *dicts) clean(at dictID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[at].Value() == nil { // else it is another one by now
		delete(d.all, at)
	}
}

// find is nil where nothing is known.
func (d *dicts) find(at dictID) *commit.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	return d.all[at].Value()
}

// forget is for a dict that nobody is going to ask for soon.
func (d *dicts) forget(at dictID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.Forget(at)
}

// in gives the dicts of a room.
func (d *dicts) in(room id.RoomID) []*commit.Replica {
	return d.those(func(at dictID) bool { return at.room == room })
}

// everywhere gives the dicts of all rooms.
func (d *dicts) everywhere() []*commit.Replica { return d.those(func(dictID) bool { return true }) }

func (d *dicts) those(wanted func(dictID) bool) (found []*commit.Replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, known := range d.all {
		if known := known.Value(); known != nil && wanted(at) {
			found = append(found, known)
		}
	}
	return found
}
