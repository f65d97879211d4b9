package fallback

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// accountPrefix begins what stands for an event, where there is none because it is in account data.
const accountPrefix = "account_data:"

func eventOf(content wire.Account) id.EventID { return id.EventID(accountPrefix + content.ID) }

func revisionOf(over wire.Over) id.EventID { return id.EventID(fmt.Sprint(accountPrefix, over.Time)) }

func isAccount(event id.EventID) bool { return strings.HasPrefix(event.String(), accountPrefix) }

// destination is where a memory is written.
type destination int

const (
	unknown destination = iota
	toState
	toAccount
)

// maxOwn is how many contents are remembered that were saved.
const maxOwn = 64

// account is what this process knows of a room's memory in a user's account data, and of the user's power there. All stores
// share it: each write replaces the whole. Its methods are safe for concurrent use.
type account struct {
	dict commit.Address // the lock of who asks for account data or replaces it
	gate *gate          // shared by who writes the state; alone is who writes account data, or changes where the memory is written

	mu       sync.Mutex
	writes   destination
	asked    time.Time // when the power was last asked for
	changes  int       // how often it may have changed
	known    bool      // whether content is what the homeserver has
	content  wire.Account
	number   int      // of the content
	moved    int      // the last content that is empty because the memory has moved into the state
	own      []string // the IDs of the last contents that were saved
	last     int64    // the latest time in any content
	watchers map[*func(Version)]bool
}

// destination is where a write goes. It is not known where the homeserver must be asked first: where it said more than within ago that
// there is no power.
func (a *account) destination(within time.Duration) (to destination, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes, a.writes == toState || a.writes == toAccount && time.Since(a.asked) < within
}

// write notes where the memory is written from now on.
func (a *account) write(to destination) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes, a.asked = to, time.Now()
}

// question is for who asks the homeserver for the power now; see [account.answer].
func (a *account) question() (changes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changes
}

// answer notes where the memory is written by what the homeserver has said since the question. It does not count, and is not noted, where the power
// may have changed since then.
func (a *account) answer(to destination, changes int) (counts bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes != changes {
		return false
	}
	a.writes, a.asked = to, time.Now()
	return true
}

// powerChanged makes the homeserver be asked for the power again, and tells whether that matters.
func (a *account) powerChanged() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes++
	a.asked = time.Time{}
	return a.writes == toAccount
}

// current is the content, where it is known.
func (a *account) current() (content wire.Account, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.content, a.known
}

// set notes what the homeserver has.
func (a *account) set(content wire.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.content, a.known = content, true
	a.number++
	a.own = append(a.own[max(0, len(a.own)-maxOwn):], content.ID)
	for _, over := range content.Over {
		a.last = max(a.last, over.Time)
	}
}

// setMoved notes that the state has all that there was, and account data is empty.
func (a *account) setMoved() {
	a.set(wire.Account{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moved = a.number
}

// forget makes the content unknown.
func (a *account) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = false
}

// heard is for a content that the sync brought. One that was not known before makes the homeserver be asked: what the sync brings can
// be older than what was saved since.
func (a *account) heard(content wire.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = a.known && slices.Contains(a.own, content.ID)
}

// stamp gives times to what is new in the content.
func (a *account) stamp(content wire.Account) wire.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := max(time.Now().UnixMilli(), a.last+1)
	for name, over := range content.Over {
		old, known := a.content.Over[name]
		stored, there := content.Names[name]
		before, was := a.content.Names[name]
		if over.Time = old.Time; !known || old.Base != over.Base || stored != before || there != was {
			over.Time = now
		}
		content.Over[name] = over
	}
	return wire.AccountOf(content.Names, content.Over)
}

// Version is a content and its place among others.
type Version struct {
	wire.Account
	number int
	Moved  bool // whether it is empty because the memory has moved into the state
}

// Later tells whether a version came after another.
func (v Version) Later(than Version) bool { return v.number > than.number }

func (a *account) version() Version {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.versionLocked()
}

func (a *account) versionLocked() Version { return Version{a.content, a.number, a.moved == a.number} }

// tell gives the watchers news of the content.
func (a *account) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.versionLocked()
	for tell := range a.watchers {
		(*tell)(now)
	}
}

// watch has tell called with what comes after the version that is returned, until stop is called.
func (a *account) watch(tell func(Version)) (now Version, stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watchers == nil {
		a.watchers = map[*func(Version)]bool{}
	}
	a.watchers[&tell] = true
	return a.versionLocked(), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, &tell)
	}
}
