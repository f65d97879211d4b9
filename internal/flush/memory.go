// Package flush keeps edits of memories back for a while and sends them together: a decorator around the memory of each room that a store writes.
package flush

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/roomkv/roomkv/internal/memory"
)

// Function makes what is to be stored of what is there, nil for the key to be removed. It is the caller's code.
type Function func(old memory.Old) (stored json.RawMessage, err error)

// Keyed is the memory of a room by key. Values are read as JSON, and written in their stored form.
type Keyed interface {
	Entry(ctx context.Context, key string) (memory.Entry, error)
	GetAll(ctx context.Context, keys []string) (map[string]memory.Entry, error)
	Keys(ctx context.Context, list memory.Listing) ([]string, error)
	Entries(ctx context.Context, list memory.Listing) iter.Seq2[memory.Entry, error]
	PutAll(ctx context.Context, stored map[string]json.RawMessage) error
	Delete(ctx context.Context, keys []string) error
	Update(ctx context.Context, key string, fn Function) error
}

// Memory is the memory of a room as the homeserver has it.
type Memory interface {
	Keyed

	// Now is the homeserver's time, in Unix milliseconds.
	Now(ctx context.Context) (int64, error)

	// Check fails where a key or a value cannot be stored, by what can be told without the homeserver.
	Check(ctx context.Context, key string, stored json.RawMessage) error

	// Ahead waits until the homeserver takes a write; see [retry.Queues.Ahead].
	Ahead(ctx context.Context) (with context.Context, leave func(), err error)

	// Write does what changes the keys, and does it again where the memory has moved meanwhile.
	Write(ctx context.Context, keys []string, do func(memory.Handle) error) error
}
