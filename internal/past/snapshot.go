package past

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// Moment is a point in a memory's past: that at which the event of a revision was current, or a time by the clocks of the homeservers that sent
// the events, where there is no revision.
type Moment struct {
	Revision id.EventID
	Time     time.Time
}

func (m Moment) timed() bool { return m.Revision == "" }

// Snapshot is what a memory had at a moment. Methods are safe for concurrent use.
type Snapshot struct {
	memory.Room
	Records map[string]memory.Record // by name
	Broken  map[string]memory.Record // by state key: events that cannot be read, whose names cannot be told
}

// Find is what was there for the key, or nil.
func (s *Snapshot) Find(key string) *memory.Record {
	name := s.NameOf(key)
	if found, ok := s.Records[name]; ok {
		return &found
	}
	if found, ok := s.Broken[s.Layout.StateKey(name)]; ok {
		return &found
	}
	return nil
}

// Keys gives the keys of a listing that there were, beside the error of the first that cannot be read.
func (s *Snapshot) Keys(ctx context.Context, list memory.Listing) (keys []string, failed error) {
	reader := s.Reader().Together().KeysOnly()
	for name, found := range s.Records {
		key, plain := wire.KeyOf(name)
		if !plain {
			entry, err := reader.Entry(ctx, &found)
			if key = entry.Key; key == "" && err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
		}
		keys = append(keys, key)
	}
	return list.Of(keys), failed
}

// All gives the records of a listing, and before them those of which nobody can tell which keys they have.
func (s *Snapshot) All(ctx context.Context, list memory.Listing) []memory.Record {
	return s.Listed(ctx, slices.AppendSeq(slices.Collect(maps.Values(s.Records)), maps.Values(s.Broken)), list)
}

// Of tells whether the snapshot is of the room's memory.
func (s *Snapshot) Of(r memory.Room) bool {
	return s.ID == r.ID && s.Type == r.Type && s.Layout == r.Layout && string(s.Secret) == string(r.Secret)
}
