package inbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/folder"
)

// Storage keeps files. Read of one that is not there fails with [fs.ErrNotExist]. Write replaces a file as a whole, or fails and leaves it as it was.
type Storage interface {
	Read(name string) ([]byte, error)
	Write(name string, data []byte) error
}

const (
	file = "inbox"

	// manyRecent is how many IDs of what was handled before the token are kept. They are not needed where homeservers do as the specification says.
	manyRecent = 256

	// saveAgain is how long to wait after the state could not be written.
	saveAgain = 10 * time.Second
)

// state is what is saved.
type state struct {
	User      id.UserID                  `json:"user_id"`
	NextBatch string                     `json:"next_batch"`
	Handled   []id.EventID               `json:"handled,omitempty"` // after next_batch
	Recent    []id.EventID               `json:"recent,omitempty"`  // before it
	Tasks     map[string]json.RawMessage `json:"tasks,omitempty"`
}

// load reads what was saved. What was saved of another user does not count.
func (i *Inbox) load() error {
	text, err := i.config.Storage.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading how far the bot has read: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var was state
	if err := json.Unmarshal(text, &was); err != nil {
		return fmt.Errorf("%w: %s does not have how far the bot has read: remove it, and the bot begins with what is new", folder.ErrDamaged, file)
	}
	if was.User != i.config.Self {
		return nil
	}
	i.token, i.again, i.recent = was.NextBatch, was.Handled, was.Recent
	if was.Tasks != nil {
		i.tasks = was.Tasks
	}
	for _, handled := range i.recent {
		i.known[handled] = nil
	}
	return nil
}

// batch is what one response of the sync has brought.
type batch struct {
	token   string // that comes after it
	open    int    // what was not handled, and one where End was not called
	handled []id.EventID
}

// settle notes what was handled as a whole. The caller has the lock.
func (i *Inbox) settle() {
	for len(i.batches) > 0 && i.batches[0].open == 0 {
		done := i.batches[0]
		i.batches = i.batches[1:]
		i.token = done.token
		i.kept -= len(done.handled)
		for _, handled := range done.handled {
			i.known[handled] = nil
		}
		i.recent = append(i.recent, done.handled...)
		for ; len(i.recent) > manyRecent; i.recent = i.recent[1:] {
			delete(i.known, i.recent[0])
		}
	}
	if i.kept < i.limits.Kept && i.space != nil {
		close(i.space)
		i.space = nil
	}
	i.change()
}

// change has the state saved soon.
func (i *Inbox) change() {
	select {
	case i.dirty <- struct{}{}:
	default: // it is to be saved already
	}
}

// keepSaved saves the state after each change. Changes that come meanwhile are saved together.
func (i *Inbox) keepSaved() {
	defer close(i.saved)
	for {
		select {
		case <-i.ctx.Done():
			return
		case <-i.dirty:
		}
		if err := i.save(); err == nil {
			continue
		}
		i.change()
		select {
		case <-i.ctx.Done():
			return
		case <-time.After(saveAgain):
		}
	}
}

func (i *Inbox) save() error {
	i.saving.Lock()
	defer i.saving.Unlock()
	text, err := json.Marshal(i.state())
	if err == nil {
		err = i.config.Storage.Write(file, text)
	}
	if err != nil {
		i.config.Log.Error().Err(err).Msg("How far the bot has read was not saved. After a restart handlers are told again of what they have handled since.")
		return fmt.Errorf("saving how far the bot has read: %w", err)
	}
	return nil
}

func (i *Inbox) state() state {
	i.mu.Lock()
	defer i.mu.Unlock()
	is := state{User: i.config.Self, NextBatch: i.token, Recent: append([]id.EventID(nil), i.recent...), Tasks: maps.Clone(i.tasks)}
	is.Handled = append(is.Handled, i.again...)
	for _, b := range i.batches {
		is.Handled = append(is.Handled, b.handled...)
	}
	return is
}

// SetTask keeps something that is to be done, beside what handlers do, until [Inbox.EndTask]. Where it is called between [Inbox.Begin] and [Inbox.End], or
// by a handler, it is saved no later than that what was brought then counts as handled.
func (i *Inbox) SetTask(name string, task json.RawMessage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tasks[name] = task
	i.change()
}

// EndTask forgets a task.
func (i *Inbox) EndTask(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, set := i.tasks[name]; set {
		delete(i.tasks, name)
		i.change()
	}
}

// Tasks are all that are to be done, by name.
func (i *Inbox) Tasks() map[string]json.RawMessage {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.tasks)
}
