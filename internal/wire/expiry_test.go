package wire

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExpiry(t *testing.T) {
	for _, test := range []struct {
		stored, value string
		at            int64
	}{
		{`1`, `1`, 0}, {`"@1 2"`, `"@1 2"`, 0}, {`@17 {"a":1}`, `{"a":1}`, 17}, {`@17 `, ``, 17}, {`@x 1`, `@x 1`, 0}, {`@17`, `@17`, 0}, {``, ``, 0},
	} {
		at, value := Expiry(test.stored)
		assert.Equal(t, test.at, at, test.stored)
		assert.Equal(t, test.value, value, test.stored)
	}
	assert.Equal(t, `@2 1`, Expiring(`@1 1`, 2))
	assert.Equal(t, `1`, Expiring(`@1 1`, 0))
	read, err := Decode(json.RawMessage(`@5 {"encrypted_val":"$a"}`))
	require.NoError(t, err)
	assert.Equal(t, Value{Expires: 5, Event: "$a"}, read)
	assert.True(t, Refers(`@5 {"encrypted_val":"$a"}`))
}

// What a content says of expiry is read back in both layouts, and nothing of it where it is not of the value that is there.
func TestExpiryInContents(t *testing.T) {
	names := map[string]string{"a": `@1700000000000 1`, "b": `2`, Name("roomkv.x"): `@1700000000001 {"encrypted_val":"$e"}`}
	content := Dict{Names: names, Parents: &Parents{By: "me"}}.Content()
	read, err := ParseDict(content)
	require.NoError(t, err)
	assert.Equal(t, names, read.Names)
	require.NotNil(t, read.Parents)
	assert.Len(t, content, sizeOf(names)+len(`"roomkv.expires":{},"roomkv.parents":`)+len(read.ParentsText)+len(`{}`)-1, "EntrySize tells what an entry takes")

	one := map[string]string{"k": `@1700000000000 [1]`}
	read, err = ParsePerKey("k", Dict{Names: one, Parents: &Parents{By: "me"}}.Content())
	require.NoError(t, err)
	assert.Equal(t, one, read.Names)

	sealed := SealedName([32]byte{1})
	one = map[string]string{sealed: `@1700000000000 {"encrypted_val":"$e"}`}
	read, err = ParsePerKey(sealed, Dict{Names: one}.Content())
	require.NoError(t, err)
	assert.Equal(t, one, read.Names)

	of := expiryDigest(`1`)
	for field, want := range map[string]string{
		`{"a":{"at":5,"of":"` + of + `"}}`:                      `@5 1`,
		`{"a":{"at":5,"of":"AAAAAAAA"}}`:                        `1`,
		`{"a":{"at":0,"of":"` + of + `"}}`:                      `1`,
		`{"a":{"at":-5,"of":"` + of + `"}}`:                     `1`,
		`{"a":{"at":9007199254740991,"of":"` + of + `"}}`:       `1`,
		`{"a":{"at":"5","of":"` + of + `"}}`:                    `1`,
		`{"a":{"at":5,"of":"` + of + `"},"b":7,"c":{"at":1.5}}`: `@5 1`,
		`{"b":{"at":5,"of":"` + of + `"}}`:                      `1`,
		`7`:                                                     `1`,
		`null`:                                                  `1`,
		`[]`:                                                    `1`,
	} {
		read, err := ParseDict(json.RawMessage(`{"a":1,"roomkv.expires":` + field + `}`))
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"a": want}, read.Names, field)
	}
	read, err = ParseDict(json.RawMessage(`{"roomkv.shards":1,"roomkv.expires":{"roomkv.shards":{"at":5,"of":"` + of + `"}}}`))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"roomkv.shards": "1"}, read.Names, "what is no key does not expire")
}

func sizeOf(names map[string]string) (size int) {
	for name, stored := range names {
		size += EntrySize(name, stored)
	}
	return size
}
