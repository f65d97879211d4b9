package commit

import (
	"encoding/json"
	"maps"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// base implements [Base].
type base struct {
	names   map[string]string
	expired []string        // names that are left out, and whose time is over
	changed map[string]bool // by edits before
	event   id.EventID
	dict    *replica.Dict
	fresh   map[string]Value // what is yet to be sealed of these
	size    int              // of the event as far as it is planned
	reads   *reads           // nil where nobody asks what is read
}

func (b base) Stored(name string) (json.RawMessage, bool) {
	b.reads.note(name)
	text, ok := b.names[name]
	return json.RawMessage(text), ok
}

func (b base) Fresh(name string) bool { return b.changed[name] }

func (b base) FreshKey(name string) (key string, ok bool) {
	value, ok := b.fresh[name]
	return value.Key, ok
}

func (b base) Event() id.EventID { return b.event }

func (b base) Names() map[string]string {
	b.reads.noteAll()
	return maps.Clone(b.names)
}

func (b base) Size() int { return b.size }

func (b base) Unchanged(name string, since id.EventID) bool {
	if _, ok := b.names[name]; !ok || b.changed[name] {
		return false
	}
	return replica.Read(b.dict, func(h *merge.History) bool { return h.Descends(since, h.Origin(h.Line(name), name)) })
}

func sizeOf(names map[string]string) int {
	size := len("{}")
	for name, stored := range names {
		size += wire.EntrySize(name, stored)
	}
	return size
}
