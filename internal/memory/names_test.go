package memory

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

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
