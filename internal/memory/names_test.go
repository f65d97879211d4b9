package memory

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

var (
	secret  = []byte("sixteen bytes or more")
	another = []byte("SIXTEEN BYTES OR MORE")
)

func TestNamesAndSealsDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, at := range []struct {
		secret    []byte
		room      id.RoomID
		eventType string
	}{
		{secret, "!a", "bc"}, {secret, "!ab", "c"}, {secret, "!a", "c"}, {another, "!a", "bc"}, {secret, "!a:example.org", "bc"},
		{[]byte{}, "!a", "bc"}, // no secret at all, but one of a store with sealed keys
	} {
		r := roomWith(t, Settings{Secret: at.secret, EventType: at.eventType}).Of(at.room)
		about := fmt.Sprint(at)
		for _, key := range []string{"", "a", "b", "!a", "seal", `a"b`} {
			name := r.NameOf(key)
			assert.True(t, wire.IsSealed(name), name)
			assert.NotContains(t, seen, name, "%s, key %q; %s", about, key, seen[name])
			seen[name] = about
			assert.Equal(t, name, r.NameOf(key))
		}
		var seal string
		require.NoError(t, json.Unmarshal(r.Seal(), &seal))
		assert.Len(t, seal, 22, "128 bits")
		assert.NotContains(t, seen, seal, "%s; %s", about, seen[seal])
		seen[seal] = about
		assert.NotContains(t, r.NameOf(""), seal[:21], "the last character has bits of what follows")
	}
}

func TestNamesWithoutSecret(t *testing.T) {
	r := roomWith(t, Settings{})
	for _, key := range []string{"", "a", `a"b`, "@a", "roomkv.x"} {
		assert.Equal(t, wire.Name(key), r.NameOf(key))
	}
}

func TestNamesOf(t *testing.T) {
	for _, secret := range [][]byte{nil, secret} {
		r := roomWith(t, Settings{Secret: secret})
		names, keyOf := r.NamesOf([]string{"b", `a"`, "b"})
		assert.Equal(t, []string{r.NameOf("b"), r.NameOf(`a"`)}, names, "each once")
		assert.Equal(t, map[string]string{r.NameOf("b"): "b", r.NameOf(`a"`): `a"`}, keyOf)
	}
}

func TestCheckSeal(t *testing.T) {
	own := string(roomWith(t, Settings{Secret: secret}).Seal())
	for _, test := range []struct {
		secret []byte
		seal   string
		sealed bool
		wrong  string
	}{
		{secret: nil, sealed: false},
		{secret: secret, sealed: false},
		{secret: secret, seal: own, sealed: true},
		{secret: nil, seal: own, sealed: true, wrong: "takes WithSealedKeys"},
		{secret: another, seal: own, sealed: true, wrong: "another secret"},
		{secret: nil, seal: string(roomWith(t, Settings{Secret: []byte{}}).Seal()), sealed: true, wrong: "takes WithSealedKeys"},
		{secret: secret, seal: `null`, sealed: true, wrong: "another secret"},
		{secret: secret, seal: ``, sealed: true, wrong: "another secret"},
		{secret: secret, seal: `{"hostile":"` + own[1:], sealed: true, wrong: "another secret"},
	} {
		r := roomWith(t, Settings{Secret: test.secret})
		names, content := map[string]string{"a": `1`}, map[string]json.RawMessage{"a": json.RawMessage(`1`)}
		if test.sealed {
			names[wire.SealName], content[wire.SealName] = test.seal, json.RawMessage(test.seal)
		}
		errs := []error{r.CheckSeal(test.seal, test.sealed), r.CheckNames(names)}
		if text, err := json.Marshal(content); err == nil {
			sealed, err := r.CheckSealEvent(&matrix.Event{ID: "$e", StateKey: new(string), Content: text})
			assert.Equal(t, test.sealed, sealed)
			errs = append(errs, err)
		}
		for _, err := range errs {
			if test.wrong == "" {
				assert.NoError(t, err)
				continue
			}
			if assert.ErrorIs(t, err, fault.ErrWrongSecret, "%q", test.seal) {
				assert.Contains(t, err.Error(), test.wrong)
				assert.NotContains(t, err.Error(), string(secret))
				assert.NotContains(t, err.Error(), own)
			}
		}
	}
	for _, content := range []string{``, `null`, `[]`, `"x"`} {
		sealed, err := roomWith(t, Settings{Secret: secret}).CheckSealEvent(&matrix.Event{ID: "$e", StateKey: new(string), Content: json.RawMessage(content)})
		assert.ErrorIs(t, err, fault.ErrCorrupt, content)
		assert.False(t, sealed)
	}
}

func TestSealing(t *testing.T) {
	sealed := roomWith(t, Settings{Secret: secret})
	own := string(sealed.Seal())
	type changes = map[string]json.RawMessage
	failed := errors.New("no")
	for _, test := range []struct {
		about  string
		secret []byte
		base   map[string]string
		apply  changes
		err    error
		want   changes
		calls  int
	}{
		{about: "the first value seals", secret: secret, apply: changes{"a": textOf(3), "b": nil}, calls: 1, want: changes{"a": textOf(3), "b": nil, wire.SealName: sealed.Seal()}},
		{about: "to remove does not", secret: secret, apply: changes{"a": nil}, calls: 1, want: changes{"a": nil}},
		{about: "sealed already", secret: secret, base: map[string]string{wire.SealName: own}, apply: changes{"a": textOf(3)}, calls: 1, want: changes{"a": textOf(3)}},
		{about: "without secret", apply: changes{"a": textOf(3)}, calls: 1, want: changes{"a": textOf(3)}},
		{about: "without secret in a sealed dict", base: map[string]string{wire.SealName: own}, apply: changes{"a": textOf(3)}, err: fault.ErrWrongSecret},
		{about: "with another secret", secret: another, base: map[string]string{wire.SealName: own}, apply: changes{"a": textOf(3)}, err: fault.ErrWrongSecret},
		{about: "an error of the edit", secret: secret, err: failed, calls: 1},
	} {
		calls := 0
		edit := roomWith(t, Settings{Secret: test.secret}).Sealing(commit.Edit{Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			calls++
			if errors.Is(test.err, failed) {
				return nil, failed
			}
			return test.apply, nil
		}})
		got, err := edit.Apply(testBase{names: test.base})
		require.ErrorIs(t, err, test.err, test.about)
		assert.Equal(t, test.want, got, test.about)
		assert.Equal(t, test.calls, calls, test.about)
		assert.NotContains(t, test.apply, wire.SealName, "what the edit gave is the caller's")
	}
}
