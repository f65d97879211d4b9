package commit

import (
	"runtime"
	"sync"
	"weak"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/lru"
)

// Replicas has one replica of each dict, for all stores that come from one New. It forgets the replica that was used least recently, but none
// that somebody still holds: two replicas of one dict would have two writers, and these would not know of each other. The zero value is
// ready. Methods are safe for concurrent use.
type Replicas struct {
	mu   sync.Mutex
	kept lru.Cache[Address, *Replica]      // those that stay
	all  map[Address]weak.Pointer[Replica] // and those that somebody still has
}

// Get finds the replica of the dict or makes it.
func (d *Replicas) Get(at Address, make func() *Replica) *Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	known := d.all[at].Value()
	if known == nil {
		known = make()
		if d.all == nil {
			d.all = map[Address]weak.Pointer[Replica]{}
		}
		d.all[at] = weak.Make(known)
		registry := weak.Make(d) // for the store must not stay because of its dicts
		runtime.AddCleanup(known, func(at Address) {
			if d := registry.Value(); d != nil {
				d.clean(at)
			}
		}, at)
	}
	d.kept.Most = MaxReplicas
	d.kept.Put(at, known)
	return known
}

// clean is for a replica that nobody holds any more.
func (d *Replicas) clean(at Address) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[at].Value() == nil { // else it is another one by now
		delete(d.all, at)
	}
}

// Find is nil where there is no replica of the dict.
func (d *Replicas) Find(at Address) *Replica {
	if kept, ok := d.kept.Get(at); ok {
		return kept
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[at].Value()
}

// Forget is for a replica that nobody is going to ask for soon.
func (d *Replicas) Forget(at Address) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.Forget(at)
}

// In gives the replicas of a room.
func (d *Replicas) In(room id.RoomID) []*Replica {
	return d.those(func(at Address) bool { return at.Room == room })
}

// All gives the replicas of all rooms.
func (d *Replicas) All() []*Replica { return d.those(func(Address) bool { return true }) }

func (d *Replicas) those(wanted func(Address) bool) (found []*Replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, known := range d.all {
		if known := known.Value(); known != nil && wanted(at) {
			found = append(found, known)
		}
	}
	return found
}
