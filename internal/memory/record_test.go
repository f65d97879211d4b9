package memory

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestRecordOf(t *testing.T) {
	view := &replica.View{Names: map[string]string{"a": `1`}, Event: "$e", Sender: "@alice:example.org", Time: 1234}
	want := Record{Name: "a", Stored: json.RawMessage(`1`), Event: "$e", Sender: "@alice:example.org", Time: time.UnixMilli(1234), view: view}
	assert.Equal(t, &want, RecordOf(view, "a"))
	assert.Nil(t, RecordOf(view, "b"))
	assert.Nil(t, RecordOf(&replica.View{}, "a"))

	broken := &replica.View{Event: "$e", Err: fault.ErrCorrupt}
	found := RecordOf(broken, "a")
	require.NotNil(t, found, "it cannot be told that the name is not there")
	assert.Equal(t, "a", found.Name)
	assert.ErrorIs(t, found.Err, fault.ErrCorrupt)
}

func TestRecordsOf(t *testing.T) {
	names := map[string]string{
		"a": `1`, wire.Name(`b"`): `2`, wire.Name(""): `3`, sealedName: `4`,
		wire.SealName: `5`, wire.PredecessorName: `6`, wire.AccountName: `7`, "roomkv.later": `8`,
	}
	got := map[string]string{}
	for _, found := range RecordsOf(&replica.View{Names: names, Event: "$e"}) {
		got[found.Name] = string(found.Stored)
		assert.Equal(t, "$e", found.Event.String())
	}
	assert.Equal(t, map[string]string{"a": `1`, wire.Name(`b"`): `2`, "": `3`, sealedName: `4`}, got)
	assert.Empty(t, RecordsOf(&replica.View{}))

	broken := RecordsOf(&replica.View{Names: names, Event: "$e", Err: fault.ErrCorrupt})
	require.Len(t, broken, 1)
	assert.Empty(t, broken[0].Name)
	assert.Equal(t, "$e", broken[0].Event.String())
	assert.ErrorIs(t, broken[0].Err, fault.ErrCorrupt)
}
