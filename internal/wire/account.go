package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"

	"maunium.net/go/mautrix/id"
)

// AccountName is the field of a dict in account data that tells of each of its names what it replaces; see [Over].
const AccountName = prefix + "account"

// Account is what a user's account data holds of a room's memory: a dict whose names replace those in the room's state.
type Account struct {
	Names map[string]string // as in [Dict]
	Over  map[string]Over   // by name; a name that is not in Names is deleted
	ID    string            // another one for each content, empty where there is nothing
}

// Over tells when a name was written to account data, and what it replaces.
type Over struct {
	Time int64  `json:"ts"`             // Unix milliseconds; no two writes of an account have the same
	Base string `json:"base,omitempty"` // what the state had under the name then; see [Base]

	// Until is when that expires, in Unix milliseconds, 0 where it does not.
	Until int64 `json:"until,omitempty"`
}

// ParseAccount reads a content. The error is ErrFormat.
func ParseAccount(content json.RawMessage) (Account, error) {
	dict, err := ParseDict(content)
	if err != nil {
		return Account{}, err
	}
	names := dict.Names
	over := Overs(json.RawMessage(names[AccountName]))
	delete(names, AccountName)
	for name := range names {
		if _, ok := over[name]; !ok && !IsOwn(name) { // another program wrote it
			over[name] = Over{}
		}
	}
	return AccountOf(names, over), nil
}

// AccountOf is the account data with those names.
func AccountOf(names map[string]string, over map[string]Over) Account {
	a := Account{Names: names, Over: over}
	if len(names) > 0 || len(over) > 0 {
		a.ID = digestText(Canonical(a.Content()))
	}
	return a
}

// All are the names, with the field [AccountName].
func (a Account) All() map[string]string {
	all := map[string]string{}
	maps.Copy(all, a.Names)
	if len(a.Over) > 0 {
		all[AccountName] = Canonical(Field(a.Over))
	}
	return all
}

// Content is the inverse of [ParseAccount].
func (a Account) Content() json.RawMessage { return Dict{Names: a.All()}.Content() }

// MaxTime is the last millisecond, in Unix time, that a date of RFC 3339 can name.
const MaxTime = 253402300799999

// Overs reads the value of the field [AccountName]. There is nothing in another value.
func Overs(field json.RawMessage) map[string]Over {
	var over map[string]Over
	if json.Unmarshal(field, &over) != nil || over == nil {
		return map[string]Over{}
	}
	for name, o := range over {
		if o.Time < 0 || o.Time > MaxTime {
			o.Time = 0
			over[name] = o
		}
	}
	return over
}

// Field is the inverse of Overs.
func Field(over map[string]Over) json.RawMessage { return marshal(over) }

// Base stands for what the state has under a name: a digest of the event, and of what is stored there where something is found.
func Base(stored string, found bool, event id.EventID) string {
	switch {
	case found:
		return digestText(event.String() + "\n" + stored)
	case event != "":
		return digestText(event.String())
	}
	return ""
}

func digestText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
