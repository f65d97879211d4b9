package commit

import (
	"runtime"
	"sync"
	"weak"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/lru"
)

// MaxReplicas is how many dicts are kept in mind: in the single-state-key layout one for each room, in the per-key layout
// one for each key that was changed or, while following, read.
const MaxReplicas = 4096

// Replicas are the replicas of all dicts of all stores that come from one New. The one used least recently is forgotten first, but not while anybody has
// it: two writers of one dict would not know of each other. Methods are safe for concurrent use.
type Replicas struct {
	mu   sync.Mutex
	kept lru.Cache[Dict, *Replica]      // those that stay
	all  map[Dict]weak.Pointer[Replica] // and those that somebody still has
}

// Get finds the dict or makes it.
func (d *Replicas) Get(at Dict, make func() *Replica) *Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	known := d.all[at].Value()
	if known == nil {
		known = make()
		if d.all == nil {
			d.all = map[Dict]weak.Pointer[Replica]{}
		}
		d.all[at] = weak.Make(known)
		registry := weak.Make(d) // for the store must not stay because of its dicts
		runtime.AddCleanup(known, func(at Dict) {
			if d := registry.Value(); d != nil {
				d.clean(at)
			}
		}, at)
	}
	d.kept.Most = MaxReplicas
	d.kept.Put(at, known)
	return known
}

// clean is for a dict that nobody has any more.
func (d *Replicas) clean(at Dict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[at].Value() == nil { // else it is another one by now
		delete(d.all, at)
	}
}

// Find is nil where nothing is known.
func (d *Replicas) Find(at Dict) *Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	return d.all[at].Value()
}

// Forget is for a dict that nobody is going to ask for soon.
func (d *Replicas) Forget(at Dict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.Forget(at)
}

// In gives the replicas of a room.
func (d *Replicas) In(room id.RoomID) []*Replica {
	return d.those(func(at Dict) bool { return at.Room == room })
}

// All gives the replicas of all rooms.
func (d *Replicas) All() []*Replica { return d.those(func(Dict) bool { return true }) }

func (d *Replicas) those(wanted func(Dict) bool) (found []*Replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, known := range d.all {
		if known := known.Value(); known != nil && wanted(at) {
			found = append(found, known)
		}
	}
	return found
}
