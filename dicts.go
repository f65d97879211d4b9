package roomkv

import (
	"container/list"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/replica"
)

// maxDicts is how many dicts are kept in mind: in the single-state-key layout one for each room, in the per-key layout
// one for each key that was changed or, while following, read.
const maxDicts = 4096

// dict is what a process knows of one dict, and who writes it.
type dict struct {
	*replica.Dict
	writer *commit.Writer
	at     dictID
}

type dictID struct {
	room     id.RoomID
	stateKey string
}

// dicts are the dicts of all stores that come from one New. The one used least recently is forgotten first. Methods are
// safe for concurrent use.
type dicts struct {
	mu    sync.Mutex
	known map[dictID]*list.Element
	order list.List // of *dict, the most recently used last
}

// get finds the dict or makes it.
func (d *dicts) get(at dictID, make func() *dict) *dict {
	d.mu.Lock()
	defer d.mu.Unlock()
	if element := d.known[at]; element != nil {
		d.order.MoveToBack(element)
		return element.Value.(*dict)
	}
	if d.known == nil {
		d.known = map[dictID]*list.Element{}
	}
	made := make()
	made.at = at
	d.known[at] = d.order.PushBack(made)
	if d.order.Len() > maxDicts {
		oldest := d.order.Remove(d.order.Front()).(*dict)
		delete(d.known, oldest.at)
	}
	return made
}

// find is nil where nothing is known.
func (d *dicts) find(at dictID) *dict {
	d.mu.Lock()
	defer d.mu.Unlock()
	if element := d.known[at]; element != nil {
		return element.Value.(*dict)
	}
	return nil
}

// in gives the dicts of a room.
func (d *dicts) in(room id.RoomID) []*dict {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []*dict
	for element := d.order.Front(); element != nil; element = element.Next() {
		if known := element.Value.(*dict); known.at.room == room {
			found = append(found, known)
		}
	}
	return found
}
