package memory

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestInside(t *testing.T) {
	values := map[string]json.RawMessage{
		"a": json.RawMessage(`1`), wire.Name(`b"`): json.RawMessage(`2`), `c"`: json.RawMessage(`3`), "roomkv.%61": json.RawMessage(`4`),
		wire.SealName: json.RawMessage(`5`),
	}
	opened := &seal.Opened{Values: values}
	plain, sealed := roomWith(t, Settings{}), roomWith(t, Settings{Secret: secret})
	for _, test := range []struct {
		about     string
		room      Room
		name      string
		key, want string
		found     bool
	}{
		{"a plain name", plain, "a", "a", `1`, true},
		{"an escaped name", plain, wire.Name(`b"`), `b"`, `2`, true},
		{"as opsdroid writes it", plain, wire.Name(`c"`), `c"`, `3`, true},
		{"a plain name that is not there", plain, "x", "x", ``, false},
		{"a sealed name", sealed, sealed.NameOf("a"), "a", `1`, true},
		{"a sealed and escaped name", sealed, sealed.NameOf(`b"`), `b"`, `2`, true},
		{"one that is not spelled as the store does", sealed, sealed.NameOf(`c"`), "", ``, false},
		{"of another room", sealed, sealed.Of("!other:example.org").NameOf("a"), "", ``, false},
		{"of another secret", sealed, roomWith(t, Settings{Secret: another}).NameOf("a"), "", ``, false},
		{"without the secret", plain, sealed.NameOf("a"), "", ``, false},
	} {
		key, inside, found := test.room.Inside(opened, test.name)
		assert.Equal(t, test.key, key, test.about)
		assert.Equal(t, test.want, string(inside), test.about)
		assert.Equal(t, test.found, found, test.about)
	}
}

func TestDescribe(t *testing.T) {
	assert.Equal(t, `"a"`, describe("a", sealedName))
	assert.Equal(t, "of "+sealedName, describe("", sealedName))
	assert.Equal(t, `""`, describe("", wire.Name("")))
}
