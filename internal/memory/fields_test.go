package memory

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

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
		errs := []error{r.CheckSeal(test.seal, test.sealed), r.CheckFields(names)}
		if text, err := json.Marshal(content); err == nil {
			errs = append(errs, r.CheckFieldsOf(&matrix.Event{ID: "$e", StateKey: new(string), Content: text}))
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
		err := roomWith(t, Settings{Secret: secret}).CheckFieldsOf(&matrix.Event{ID: "$e", StateKey: new(string), Content: json.RawMessage(content)})
		assert.ErrorIs(t, err, fault.ErrCorrupt, content)
	}
	assert.NoError(t, roomWith(t, Settings{Secret: secret}).CheckFieldsOf(nil))
}

// A memory whose keys are spread over another number of state events is another memory.
func TestCheckMark(t *testing.T) {
	r := roomWith(t, Settings{Layout: Shards{64}})
	assert.NoError(t, r.CheckFields(nil))
	assert.NoError(t, r.CheckFields(map[string]string{wire.ShardsName: "64"}))
	for _, mark := range []string{"65", "640", `"64"`, "null", strings.Repeat("9", 1000)} {
		err := r.CheckFields(map[string]string{wire.ShardsName: mark})
		require.ErrorIs(t, err, fault.ErrInvalidOption, mark)
		assert.Less(t, len(err.Error()), 300)
	}
	assert.NoError(t, roomWith(t, Settings{}).CheckFields(map[string]string{wire.ShardsName: "64"}), "a field of another layout means nothing")
}

func TestWithFields(t *testing.T) {
	sealed := roomWith(t, Settings{Secret: secret})
	own := string(sealed.Seal())
	type changes = map[string]json.RawMessage
	failed := errors.New("no")
	for _, test := range []struct {
		about  string
		secret []byte
		layout Layout
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
		{about: "the first value says over how many events keys are spread", layout: Shards{8}, apply: changes{"a": textOf(3)}, calls: 1,
			want: changes{"a": textOf(3), wire.ShardsName: json.RawMessage("8")}},
		{about: "over another number", layout: Shards{8}, base: map[string]string{wire.ShardsName: "9"}, apply: changes{"a": textOf(3)}, err: fault.ErrInvalidOption},
		{about: "an error of the edit", secret: secret, err: failed, calls: 1},
	} {
		calls := 0
		edit := roomWith(t, Settings{Secret: test.secret, Layout: test.layout}).WithFields(commit.Edit{Apply: func(commit.Base) (map[string]json.RawMessage, error) {
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
