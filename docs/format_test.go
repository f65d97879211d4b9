// Package docs_test checks the documents against the code: examples, and the table of the API.
package docs_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// kinds are the checks of the JSON examples in format.md, by the word after "json" on the example's first line.
var kinds = map[string]func(t *testing.T, text string){
	"dict":        checkDict,
	"stale":       checkStale,
	"merge":       checkMerge,
	"per-key":     checkPerKey,
	"inside":      checkInside,
	"media":       checkMedia,
	"sealed":      checkSealed,
	"seal":        checkSeal,
	"account":     checkAccount,
	"predecessor": checkPredecessor,
	"export":      checkExport,

	"shard":        checkShard,
	"shards":       checkShards,
	"sealed-shard": checkSealedShard,
}

// tables are the checks of the tables' rows, by the name in the comment before the table.
var tables = map[string]func(t *testing.T, cells []string){
	"keys":   checkKey,
	"shards": checkTag,
	"values": checkValue,
	"old":    checkOld,
}

func page(t *testing.T) string {
	text, err := os.ReadFile("format.md")
	require.NoError(t, err)
	return string(text)
}

var example = regexp.MustCompile("(?ms)^```(.*?)$\n(.*?)^```$")

func TestExamplesOfTheFormat(t *testing.T) {
	seen := map[string]bool{}
	for i, match := range example.FindAllStringSubmatch(page(t), -1) {
		kind, isJSON := strings.CutPrefix(match[1], "json ")
		t.Run(fmt.Sprintf("%d %s", i+1, kind), func(t *testing.T) {
			require.True(t, isJSON, "the example says what it is")
			require.Contains(t, kinds, kind)
			seen[kind] = true
			kinds[kind](t, match[2])
		})
	}
	assert.Len(t, seen, len(kinds), "there is an example of each kind")
}

var (
	table = regexp.MustCompile(`(?m)^<!-- table: (.*) -->\n\|.*\n\| ---.*\n((?:\|.*\n)+)`)
	cell  = regexp.MustCompile("`([^`]*)`")
)

func TestTablesOfTheFormat(t *testing.T) {
	seen := map[string]bool{}
	for _, match := range table.FindAllStringSubmatch(page(t), -1) {
		name := match[1]
		require.Contains(t, tables, name)
		seen[name] = true
		for _, row := range strings.Split(strings.TrimSpace(match[2]), "\n") {
			t.Run(name+" "+row, func(t *testing.T) {
				var cells []string
				for _, text := range cell.FindAllStringSubmatch(row, -1) {
					cells = append(cells, text[1])
				}
				tables[name](t, cells)
			})
		}
	}
	assert.Len(t, seen, len(tables), "there is each table")
}

// read reads the content of one state event that roomkv would write as it is there.
func read(t *testing.T, content string) wire.Dict {
	dict, err := wire.ParseDict(json.RawMessage(content))
	require.NoError(t, err)
	written := dict
	written.Parents = parentsIn(t, content)
	assert.JSONEq(t, string(written.Content()), content, "what roomkv would write")
	require.NotNil(t, dict.Parents, "the digest is right")
	checkStored(t, dict)
	return dict
}

// parentsIn is the field as it is there, whatever its digest.
func parentsIn(t *testing.T, content string) *wire.Parents {
	var field struct {
		Parents wire.Parents `json:"roomkv.parents"`
	}
	require.NoError(t, json.Unmarshal([]byte(content), &field))
	return &field.Parents
}

func checkStored(t *testing.T, dict wire.Dict) {
	for key, stored := range dict.Names {
		_, err := wire.Decode(json.RawMessage(stored))
		assert.NoError(t, err, key)
	}
}

func checkDict(t *testing.T, text string) { assert.NotEmpty(t, read(t, text).Names) }

func checkStale(t *testing.T, text string) {
	dict, err := wire.ParseDict(json.RawMessage(text))
	require.NoError(t, err)
	assert.Nil(t, dict.Parents)
	assert.NotEmpty(t, dict.ParentsText)
}

// checkMerge: the events are merged to the content beside them.
func checkMerge(t *testing.T, text string) {
	var example struct {
		Events []struct {
			ID      id.EventID      `json:"event_id"`
			Time    int64           `json:"origin_server_ts"`
			Content json.RawMessage `json:"content"`
		} `json:"events"`
		Merge json.RawMessage `json:"merge"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &example))
	var history merge.History
	for i, e := range example.Events {
		dict := read(t, string(e.Content))
		history.Add(merge.Event{ID: e.ID, Time: e.Time, Dict: dict.Names, Mark: dict.ParentsText, Marked: true,
			Parents: dict.Parents.Events, Yields: dict.Parents.Yields, Conditional: dict.Parents.Conditional})
		history.Place(e.ID, int64(i), true)
	}
	read(t, string(example.Merge))
	merged := history.Merge()
	dict := wire.Dict{Names: merged.Dict, Parents: &wire.Parents{Events: merged.Parents, Yields: merged.Yields}}
	assert.JSONEq(t, string(example.Merge), string(dict.Content()))
}

// stateEvent is an example that shows a whole event.
type stateEvent struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

func event(t *testing.T, text string) stateEvent {
	var evt stateEvent
	require.NoError(t, json.Unmarshal([]byte(text), &evt))
	assert.Equal(t, roomkv.DefaultEventType, evt.Type)
	return evt
}

func checkPerKey(t *testing.T, text string) {
	evt := event(t, text)
	dict, err := wire.ParsePerKey(evt.StateKey, evt.Content)
	require.NoError(t, err)
	written := dict
	written.Parents = parentsIn(t, string(evt.Content))
	assert.JSONEq(t, string(written.Content()), string(evt.Content), "what roomkv would write")
	require.NotNil(t, dict.Parents, "the digest is right")
	assert.Nil(t, dict.Parents.Events)
	checkStored(t, dict)
	for key := range dict.Names {
		assert.Equal(t, evt.StateKey, wire.StateKey(key))
	}
}

func checkShard(t *testing.T, text string) {
	evt := event(t, text)
	for name := range read(t, string(evt.Content)).Names {
		key, ok := wire.KeyOf(name)
		require.True(t, ok)
		assert.Equal(t, evt.StateKey, wire.ShardKey(wire.Shard(key, 64), 64))
	}
}

func checkShards(t *testing.T, text string) {
	evt := event(t, text)
	assert.Equal(t, wire.ShardsName, evt.StateKey)
	assert.Equal(t, map[string]string{wire.ShardsName: "64"}, read(t, string(evt.Content)).Names)
}

// checkInside: each value is as roomkv would put it there.
func checkInside(t *testing.T, text string) {
	var content map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &content))
	for name, inside := range content {
		key, ok := wire.KeyOf(name)
		require.True(t, ok, name)
		found, ok := wire.Inside(content, key)
		require.True(t, ok, name)
		assert.Equal(t, inside, found)
		value, err := wire.Unseal(inside)
		require.NoError(t, err, name)
		stored, err := wire.Encode(value.JSON)
		require.NoError(t, err, name)
		again, err := wire.Seal(stored)
		require.NoError(t, err, name)
		assert.JSONEq(t, string(inside), string(again), name)
	}
}

func checkMedia(t *testing.T, text string) {
	value, err := wire.Decode(json.RawMessage(text))
	require.NoError(t, err)
	media, err := wire.ParseMedia(value.Media)
	require.NoError(t, err)
	assert.JSONEq(t, text, string(media.Stored()))
}

// What the page says of sealed keys.
const (
	sealedRoom   = "!vault:example.org"
	sealedSecret = "the secret of this page"
	sealedKey    = "greeting"
)

// keyed is the HMAC as the page describes it.
func keyed(secret, room, eventType, purpose, text string) []byte {
	hash := hmac.New(sha256.New, []byte(secret))
	for _, part := range []string{"roomkv", purpose, room, eventType, text} {
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		hash.Write([]byte(part))
	}
	return hash.Sum(nil)
}

func sealedName(secret, room, eventType, key string) string {
	return "roomkv.sealed." + base64.RawURLEncoding.EncodeToString(keyed(secret, room, eventType, "key", key))
}

func seal(secret, room, eventType string) string {
	return base64.RawURLEncoding.EncodeToString(keyed(secret, room, eventType, "seal", "")[:16])
}

func checkSealed(t *testing.T, text string) {
	names := read(t, text).Names
	assert.Equal(t, fmt.Sprintf("%q", seal(sealedSecret, sealedRoom, roomkv.DefaultEventType)), names["roomkv.seal"])
	name := sealedName(sealedSecret, sealedRoom, roomkv.DefaultEventType, sealedKey)
	assert.True(t, wire.IsSealed(name))
	require.Contains(t, names, name)
	assert.True(t, wire.Refers(names[name]))
}

func checkSeal(t *testing.T, text string) {
	evt := event(t, text)
	assert.Equal(t, wire.SealName, evt.StateKey)
	assert.JSONEq(t, fmt.Sprintf(`{"roomkv.seal":%q}`, seal(sealedSecret, sealedRoom, roomkv.DefaultEventType)), string(evt.Content))
}

func checkSealedShard(t *testing.T, text string) {
	evt := event(t, text)
	names := read(t, string(evt.Content)).Names
	shard := shardBy(keyed(sealedSecret, sealedRoom, roomkv.DefaultEventType, "tag", sealedKey), 64)
	assert.Equal(t, wire.ShardKey(shard, 64), evt.StateKey)
	require.Contains(t, names, sealedShardName(sealedSecret, sealedRoom, roomkv.DefaultEventType, sealedKey, shard))
}

// shardBy is the shard that a hash leads to, as the page describes it.
func shardBy(hash []byte, n int) int { return int(binary.BigEndian.Uint32(hash) % uint32(n)) }

func sealedShardName(secret, room, eventType, key string, shard int) string {
	hash := keyed(secret, room, eventType, "key", key)
	hash[0], hash[1] = byte(shard>>8), byte(shard)
	return "roomkv.sealed." + base64.RawURLEncoding.EncodeToString(hash)
}

// A store seals keys as the page says.
func TestSealedKeysOfTheFormat(t *testing.T) {
	client := fakehstest.Client(t, fakehstest.New(t, fakehs.Options{Seed: 1}))
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	name := sealedName(sealedSecret, room.String(), roomkv.DefaultEventType, sealedKey)
	sealed := seal(sealedSecret, room.String(), roomkv.DefaultEventType)
	for _, layout := range []roomkv.Option{roomkv.WithSingleStateKey(""), roomkv.WithPerKeyState(), roomkv.WithShards(64)} {
		store, err := roomkv.New(client, room.String(), layout, roomkv.WithSealedKeys([]byte(sealedSecret)))
		require.NoError(t, err)
		require.NoError(t, store.Put(t.Context(), sealedKey, "Hello!"))
	}
	state, err := client.State(t.Context(), room)
	require.NoError(t, err)
	held := map[string]map[string]any{}
	for eventType, events := range state {
		if eventType.Type == roomkv.DefaultEventType {
			for stateKey, evt := range events {
				held[stateKey] = evt.Content.Raw
			}
		}
	}
	require.Contains(t, held, "")
	assert.Contains(t, held[""], name)
	assert.Equal(t, sealed, held[""]["roomkv.seal"])
	require.Contains(t, held, name)
	assert.Contains(t, held[name], name)
	assert.Equal(t, map[string]any{"roomkv.seal": sealed}, held[wire.SealName])
	shard := shardBy(keyed(sealedSecret, room.String(), roomkv.DefaultEventType, "tag", sealedKey), 64)
	require.Contains(t, held, wire.ShardKey(shard, 64))
	assert.Contains(t, held[wire.ShardKey(shard, 64)], sealedShardName(sealedSecret, room.String(), roomkv.DefaultEventType, sealedKey, shard))
	require.Contains(t, held, wire.ShardsName)
	assert.Equal(t, sealed, held[wire.ShardsName]["roomkv.seal"])
	assert.InDelta(t, 64, held[wire.ShardsName][wire.ShardsName], 0)
}

func checkAccount(t *testing.T, text string) {
	content, err := wire.ParseAccount(json.RawMessage(text))
	require.NoError(t, err)
	assert.JSONEq(t, text, string(content.Content()))
	assert.Equal(t, map[string]string{"greeting": `"Hello!"`}, content.Names)
	assert.Equal(t, wire.Base(`"Hi."`, true, ""), content.Over["greeting"].Base)
	assert.Empty(t, wire.Base("", false, ""), "as under visits, where there was nothing")
	assert.Contains(t, content.Over, "visits")
}

// checkPredecessor takes a dict, or the event of the per-key layout.
func checkPredecessor(t *testing.T, text string) {
	content := text
	if strings.Contains(text, `"state_key"`) {
		evt := event(t, text)
		assert.Equal(t, wire.PredecessorName, evt.StateKey)
		content = string(evt.Content)
	} else {
		read(t, text)
	}
	dict, err := wire.ParseDict(json.RawMessage(content))
	require.NoError(t, err)
	moved, _ := wire.MovedFrom(json.RawMessage(dict.Names[wire.PredecessorName]), "!old:example.org")
	assert.True(t, moved)
}

// checkExport: a reader takes the file, and a writer makes the same of what the reader got.
func checkExport(t *testing.T, text string) {
	first, _, _ := strings.Cut(text, "\n")
	var header dump.Header
	require.NoError(t, json.Unmarshal([]byte(first), &header))
	var again strings.Builder
	writer, err := dump.NewWriter(&again, header)
	require.NoError(t, err)
	lines := 0
	for line, err := range dump.Read(strings.NewReader(text)) {
		if assert.NoError(t, err) {
			require.NoError(t, writer.Write(line))
			lines++
		}
	}
	require.NoError(t, writer.Close())
	assert.Equal(t, again.String(), text)
	assert.NotZero(t, lines)
}

// The limits of the format that package wire knows.
func TestLimitsOfTheFormat(t *testing.T) {
	nested := func(levels int) json.RawMessage {
		return json.RawMessage(strings.Repeat("[", levels) + strings.Repeat("]", levels))
	}
	for levels, wrapped := range map[int]bool{100: false, 101: true} {
		stored, err := wire.Encode(nested(levels))
		require.NoError(t, err)
		assert.Equal(t, wrapped, strings.HasPrefix(string(stored), `{"json_val":`), levels)
	}
	for events, believed := range map[int]bool{512: true, 513: false} {
		written := wire.Dict{Parents: &wire.Parents{Events: slices.Repeat([]id.EventID{"$kq8Pz9aWv0J1mRrQ"}, events)}}
		dict, err := wire.ParseDict(written.Content())
		require.NoError(t, err)
		assert.Equal(t, believed, dict.Parents != nil, events)
	}
	assert.Equal(t, 65_536, wire.MaxEvent)
	assert.Equal(t, 255, wire.MaxStateKey)
	assert.Equal(t, 255, wire.MaxType)
	assert.Equal(t, 500, wire.MaxShards)
	client := fakehstest.Client(t, fakehstest.New(t, fakehs.Options{Seed: 1}))
	for size, refused := range map[int]bool{15: true, 16: false} {
		_, err := roomkv.New(client, sealedRoom, roomkv.WithSealedKeys(make([]byte, size)))
		assert.Equal(t, refused, errors.Is(err, roomkv.ErrInvalidOption), size)
	}
}

func checkKey(t *testing.T, cells []string) {
	require.Len(t, cells, 3)
	var texts [3]string
	for i, text := range cells {
		require.NoError(t, json.Unmarshal([]byte(text), &texts[i]))
	}
	assert.Equal(t, texts[1], wire.Name(texts[0]))
	assert.Equal(t, texts[2], wire.StateKey(texts[0]))
	key, ok := wire.KeyOf(texts[1])
	assert.True(t, ok)
	assert.Equal(t, texts[0], key)
}

func checkTag(t *testing.T, cells []string) {
	require.Len(t, cells, 4)
	tag, _ := wire.Tag(cells[0])
	assert.Equal(t, cells[1], tag)
	for i, n := range []int{64, 500} {
		assert.Equal(t, cells[2+i], fmt.Sprint(wire.Shard(cells[0], n)))
		hash := sha256.Sum256([]byte(cells[1]))
		assert.Equal(t, cells[2+i], fmt.Sprint(shardBy(hash[:], n)))
	}
}

func checkValue(t *testing.T, cells []string) {
	require.Len(t, cells, 2)
	stored, err := wire.Encode(json.RawMessage(cells[0]))
	require.NoError(t, err)
	assert.Equal(t, cells[1], string(stored))
	value, err := wire.Decode(stored)
	require.NoError(t, err)
	assert.Equal(t, cells[0], string(value.JSON))
}

func checkOld(t *testing.T, cells []string) {
	require.Len(t, cells, 3)
	var stateKey string
	require.NoError(t, json.Unmarshal([]byte(cells[0]), &stateKey))
	dict, err := wire.ParsePerKey(stateKey, json.RawMessage(cells[1]))
	require.NoError(t, err)
	require.Len(t, dict.Names, 1)
	assert.JSONEq(t, cells[2], dict.Names[stateKey])
}
