package memory

import (
	"context"
	"encoding/json"
	"errors"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

// Update is a change of one key that depends on what is there.
type Update struct {
	Key   string
	Calls bool       // Apply calls code that is not ours; see [commit.Edit]
	Puts  bool       // Apply can store a value
	Since id.EventID // see [commit.Edit]

	// Apply gives what is to be stored under the name, and nil for it to be removed.
	Apply func(base commit.Base, name string) (json.RawMessage, error)
}

// Update makes the change.
func (h Handle) Update(ctx context.Context, u Update) error {
	name := h.NameOf(u.Key)
	edit := commit.Edit{Conditional: true, Calls: u.Calls, Since: u.Since}
	if u.Puts {
		edit.Values = map[string]string{name: u.Key}
	}
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		stored, err := u.Apply(base, name)
		if err == nil && stored != nil {
			if err = h.CheckLarge(ctx, name, u.Key, stored); err == nil {
				stored, err = h.Keep(ctx, name, u.Key, stored)
			}
		}
		if err != nil {
			return nil, err
		}
		return map[string]json.RawMessage{name: stored}, nil
	}
	change := Change{Names: []string{name}, Edit: func([]string) commit.Edit { return edit }}
	return h.commitAgain(ctx, change, &edit, func() (string, string) { return name, u.Key })
}

// commitAgain makes a change that reads values, and makes it once more where one could not be read and perhaps can be now. Unread tells which.
func (h Handle) commitAgain(ctx context.Context, change Change, edit *commit.Edit, unread func() (name, key string)) error {
	err := h.Commit(ctx, change)
	switch {
	case errors.Is(err, fault.ErrRedacted): // what was known may be what somebody has overwritten since
		edit.Afresh = true
	case errors.Is(err, fault.ErrUndecryptable): // the key can come, but not while others wait to write
		name, key := unread()
		if _, missing := h.Entry(ctx, name, key); missing != nil {
			return err
		}
	default:
		return err
	}
	return h.Commit(ctx, change)
}

// Old is what is there for a key before an edit.
type Old struct {
	Value   json.RawMessage
	Found   bool
	Expires int64 // until when it counts, in Unix milliseconds, 0 where that is for ever
}

// OldIn is what is there under the name in what an edit begins from.
func (r Room) OldIn(ctx context.Context, base commit.Base, name string) (Old, error) {
	stored, found := base.Stored(name)
	if !found {
		return Old{}, nil
	}
	if base.Fresh(name) { // set by an earlier edit of this commit, and so not encrypted yet
		read, err := wire.Decode(stored)
		if err == nil {
			read.JSON, err = r.Reader().text(ctx, read, media.Of{Name: name, Event: base.Event()})
		}
		return Old{read.JSON, true, read.Expires}, err
	}
	read, err := r.Reader().NotWaiting().Value(ctx, name, stored, base.Event())
	return Old{read.JSON, true, read.Expires}, err
}
