package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"

	"maunium.net/go/mautrix/id"
)

// AccountName is the field of a dict in account data that tells what each of its names lies over; see [Account].
const AccountName = prefix + "account"

// Account is what a user's account data holds of a room's memory: a dict that lies over that in the room's state.
type Account struct {
	Names map[string]string // as [Dict.Names]
	Over  map[string]Over   // by name; one that is not in Names is deleted
	ID    string            // another one for each content, empty where there is nothing
}

// Over is what is known of a name in account data.
type Over struct {
	Time int64 `json:"ts"` // when it was written, in Unix milliseconds; no two writes of an account have the same

	// Base tells what the state had under the name then; see [Base].
	Base string `json:"base,omitempty"`
}

// ParseAccount reads a content. The error is ErrFormat.
func ParseAccount(content json.RawMessage) (Account, error) {
	dict, err := ParseDict(content)
	if err != nil {
		return Account{}, err
	}
	names := dict.Names()
	over := Overs(json.RawMessage(names[AccountName]))
	delete(names, AccountName)
	for name := range names {
		if _, ok := over[name]; !ok && !IsOwn(name) { // somebody else's doing; it lies over nothing
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

// All are the names with the field that tells what they lie over.
func (a Account) All() map[string]string {
	all := maps.Clone(a.Names)
	if all == nil {
		all = map[string]string{}
	}
	if len(a.Over) > 0 {
		all[AccountName] = Canonical(Field(a.Over))
	}
	return all
}

// Content is the inverse of [ParseAccount].
func (a Account) Content() json.RawMessage { return OfNames(a.All()).Content() }

// Overs reads the field of that name. What is no such field has nothing in it.
func Overs(field json.RawMessage) map[string]Over {
	over := map[string]Over{}
	if json.Unmarshal(field, &over) != nil || over == nil {
		return map[string]Over{}
	}
	return over
}

// Field is the inverse of Overs.
func Field(over map[string]Over) json.RawMessage { return marshal(over) }

// Base stands for what the state has under a name: what is stored there, and the event where that has nothing else.
func Base(stored string, found bool, event id.EventID) string {
	switch {
	case !found && event == "":
		return ""
	case !found:
		return digestText(event.String())
	}
	return digestText(event.String() + "\n" + stored)
}

func digestText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
