package roomkv

import (
	"context"
	"errors"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/replica"
)

// maxDicts is how many dicts are kept in mind: in the single-state-key layout one for each room, in the per-key layout
// one for each key that was changed or, while following, read.
const maxDicts = 4096

// powerTries is how often a read is made that shares the requests of writes which are refused.
const powerTries = 5

// dict is what a process knows of one dict, and who writes it.
type dict struct {
	*replica.Dict
	writer *commit.Writer
}

// read asks the homeserver for what is there, afresh also where that is known. It shares the requests of writes, and theirs can
// fail for a lack of power.
func (d *dict) read(ctx context.Context, afresh bool) error {
	for try := 1; ; try++ {
		err := d.writer.Do(ctx, commit.Edit{ReadOnly: true, Conditional: true, Afresh: afresh})
		if !errors.Is(err, errAgain) && (!errors.Is(err, errRefused) || try >= powerTries) {
			return err
		}
	}
}

type dictID struct {
	room     id.RoomID
	stateKey string
}

// dicts are the dicts of all stores that come from one New. The one used least recently is forgotten first. Methods are
// safe for concurrent use.
type dicts struct {
	mu    sync.Mutex
	known lru[dictID, *dict]
}

// get finds the dict or makes it.
func (d *dicts) get(at dictID, make func() *dict) *dict {
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
func (d *dicts) find(at dictID) *dict {
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
func (d *dicts) in(room id.RoomID) (found []*dict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, known := range d.known.all {
		if at.room == room {
			found = append(found, known)
		}
	}
	return found
}
