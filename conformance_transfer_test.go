package roomkv_test

import (
	"bytes"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// transferRows are about memories that move: to other stores, into files, with a room's upgrade, and to account data.
var transferRows = []row{
	{name: "Import of what another program has written", in: inRooms, run: importPlain},
	{name: "ImportAccountData", in: inRooms, run: importAccountData},
	{name: "ImportAccountData of what is no map", in: each, run: importNoMap},
	{name: "ImportDryRun", in: each + " single/encrypted", run: importDryRun},
	{name: "Copy to another layout, event type and room", in: inRooms, run: copies},
	{name: "Copy keeps or overwrites what is there", in: each, run: copyKeeps},
	{name: "Copy redacts its source", in: each, run: copyRedacts},
	{name: "Copy of what cannot be read", in: each, run: copyOfUnreadable},
	{name: "Copy within one memory", in: each, run: copyWithin},
	{name: "Export and Import", in: inRooms, run: exportImports},
	{name: "Import merges or replaces", in: each + " single/encrypted", run: importReplaces},
	{name: "Export with history", in: each, run: exportsHistory},
	{name: "ErrDamaged", in: each, run: errDamaged},
	{name: "A room's upgrade is followed", in: inRooms, run: upgradeFollowed},
	{name: "ErrRoomUpgraded", in: each + " " + followed, run: errRoomUpgraded},
	{name: "ErrRoomUpgraded ends a watch", in: followed, run: errRoomUpgradedWatch},
	{name: "A memory in account data", in: inRooms, run: accountData},
	{name: "A memory in account data moves to the state", in: followed, run: accountDataMoves},
}

func copies(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, various(3)))
	want := memoryOf(t, e.store)
	layout := roomkv.WithPerKeyState()
	if !e.single() {
		layout = roomkv.WithSingleStateKey("")
	}
	for _, dst := range []*roomkv.Store{
		open(t, e.client, e.newRoom(t, e.client), layout),
		open(t, e.client, e.room, layout, roomkv.WithEventType("com.example.memory")),
		open(t, e.client, e.room, e.opts(roomkv.WithEventType("com.example.other"))...),
	} {
		require.NoError(t, dst.Put(ctx, "theirs", 1))
		calls := 0
		copied, err := roomkv.Copy(ctx, dst, e.store, roomkv.CopyProgress(func(roomkv.Copied) { calls++ }))
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: len(want), Written: len(want)}, copied)
		assert.Positive(t, calls)
		all := maps.Clone(want)
		all["theirs"] = "1"
		sameMemory(t, all, dst)
		copied, err = roomkv.Copy(ctx, dst, e.store)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: len(want), Equal: len(want)}, copied)
	}
	assert.Equal(t, want, memoryOf(t, e.store))
}

func copyKeeps(t *testing.T, e *env) {
	ctx := t.Context()
	dst := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"same": 1, "other": "new", "new": true}))
	require.NoError(t, dst.PutAll(ctx, map[string]any{"same": 1, "other": "old"}))
	copied, err := roomkv.Copy(ctx, dst, e.store)
	require.ErrorIs(t, err, roomkv.ErrExists)
	assert.ErrorContains(t, err, `"other"`)
	assert.Equal(t, roomkv.Copied{Total: 3, Written: 1, Equal: 1, Kept: 1}, copied)
	assert.Equal(t, `"old"`, memoryOf(t, dst)["other"])
	copied, err = roomkv.Copy(ctx, dst, e.store, roomkv.CopyOverwrite())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 3, Written: 1, Equal: 2}, copied)
	sameMemory(t, memoryOf(t, e.store), dst)
}

func copyRedacts(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": "the value", "b": 2}))
	want := memoryOf(t, e.store)
	dst := open(t, e.client, e.newRoom(t, e.client))
	copied, err := roomkv.Copy(ctx, dst, e.store, roomkv.CopyRedactSource())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 2, Redacted: len(e.stateKeys("a", "b"))}, copied)
	eventually(t, func() bool { return len(memoryOf(t, e.another(t))) == 0 }, "the redaction")
	assert.NotContains(t, allState(t, e.client, e.room), "the value")
	sameMemory(t, want, dst)

	powerless := e.member(t, 0)
	require.NoError(t, e.another(t).Put(ctx, "c", 3))
	_, err = roomkv.Copy(ctx, open(t, powerless, e.newRoom(t, powerless)), open(t, powerless, e.room, e.opts()...), roomkv.CopyRedactSource())
	require.ErrorIs(t, err, roomkv.ErrForbidden)
}

func copyOfUnreadable(t *testing.T, e *env) {
	ctx := t.Context()
	broken(t, e)
	dst := open(t, e.client, e.newRoom(t, e.client))
	copied, err := roomkv.Copy(ctx, dst, e.store)
	require.ErrorIs(t, err, roomkv.ErrCorrupt)
	assert.Equal(t, roomkv.Copied{Total: 3, Written: 2, Unreadable: 1}, copied)
	assert.Equal(t, map[string]string{"a": "1", "c": "3"}, memoryOf(t, dst))
}

func copyWithin(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	_, err := roomkv.Copy(ctx, e.another(t), e.store)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = roomkv.Copy(ctx, open(t, e.client, e.newRoom(t, e.client)), e.store, nil)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
}

func exportImports(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, various(2)))
	require.NoError(t, e.store.Put(ctx, "large", text(70_000, 0)))
	want := memoryOf(t, e.store)
	file := exported(t, e.store)
	for _, line := range linesOf(t, file) {
		entry, err := e.store.Entry(ctx, line.Key)
		require.NoError(t, err)
		assert.Equal(t, string(entry.Revision), line.Revision)
		assert.Equal(t, entry.Sender.String(), line.Sender)
		assert.Equal(t, e.encrypted, line.Encrypted)
		assert.JSONEq(t, string(entry.Value), string(line.Value))
	}
	dst := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	calls := 0
	imported, err := dst.Import(ctx, bytes.NewReader(file), roomkv.ImportProgress(func(roomkv.Imported) { calls++ }))
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: len(want), Written: len(want)}, imported)
	assert.Equal(t, len(want), imported.Done())
	assert.Positive(t, calls)
	sameMemory(t, want, dst)
	imported, err = dst.Import(ctx, bytes.NewBuffer(file))
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: len(want), Equal: len(want)}, imported)
}

func importReplaces(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"same": 1.5, "other": "new", "new": true}))
	file := exported(t, e.store)
	dst := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	require.NoError(t, dst.PutAll(ctx, map[string]any{"same": 1.5, "other": "old", "theirs": 1}))
	imported, err := dst.Import(ctx, bytes.NewReader(file))
	require.ErrorIs(t, err, roomkv.ErrExists)
	assert.Equal(t, roomkv.Imported{Total: 3, Written: 1, Equal: 1, Kept: 1}, imported)
	imported, err = dst.Import(ctx, bytes.NewReader(file), roomkv.ImportOverwrite())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 3, Written: 1, Equal: 2}, imported)
	imported, err = dst.Import(ctx, bytes.NewReader(file), roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 3, Equal: 3, Removed: 1}, imported)
	sameMemory(t, memoryOf(t, e.store), dst)
}

func exportsHistory(t *testing.T, e *env) {
	ctx := t.Context()
	for n := range 2 {
		require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": n, "gone": n}))
		require.NoError(t, e.store.Delete(ctx, "gone"))
	}
	cold := e.another(t)
	e.settle(t)
	var file bytes.Buffer
	written, err := cold.Export(ctx, &file, roomkv.ExportHistory())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Exported{Total: 1, Revisions: 2 + 4, Complete: true}, written)
	past := map[string]int{}
	for _, line := range linesOf(t, file.Bytes()) {
		if line.Past {
			past[line.Key]++
		}
	}
	assert.Equal(t, map[string]int{"a": 2, "gone": 4}, past)
	dst := open(t, e.client, e.newRoom(t, e.client))
	imported, err := dst.Import(ctx, bytes.NewReader(file.Bytes()))
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 1, Written: 1}, imported)
}

func errDamaged(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": "the secret", "b": 2}))
	file := exported(t, e.store)
	flipped := bytes.Replace(file, []byte("the secret"), []byte("the Secret"), 1)
	dst := open(t, e.client, e.newRoom(t, e.client), e.opts()...)
	e.requests.Reset()
	for what, damaged := range map[string][]byte{"empty": nil, "cut": file[:len(file)-5], "half": file[:len(file)/2], "flipped": flipped, "twice": append(bytes.Clone(file), file...),
		"another": []byte("{}\n")} {
		imported, err := dst.Import(ctx, bytes.NewReader(damaged), roomkv.ImportReplace())
		require.ErrorIs(t, err, roomkv.ErrDamaged, what)
		assert.NotContains(t, err.Error(), "secret")
		assert.Zero(t, imported.Written)
	}
	assert.Zero(t, e.requests.Count(), "nothing was even read")
}

// upgrade has the homeserver replace the room.
func (e *env) upgrade(t *testing.T) id.RoomID {
	t.Helper()
	var upgraded struct {
		Replacement id.RoomID `json:"replacement_room"`
	}
	url := e.client.BuildClientURL("v3", "rooms", e.room, "upgrade")
	ask(t, e.client, http.MethodPost, url, map[string]string{"new_version": "11"}).read(t, &upgraded)
	return upgraded.Replacement
}

func upgradeFollowed(t *testing.T, e *env) {
	ctx := t.Context()
	store := e.another(t, roomkv.WithRoomUpgrades())
	values := map[string]any{"a": 1, "float": 1.5, `quote"`: "ü", "gone": 0}
	require.NoError(t, store.PutAll(ctx, values))
	require.NoError(t, store.Delete(ctx, "gone"))
	want := memoryOf(t, store)
	successor := e.upgrade(t)
	fresh := e.another(t, roomkv.WithRoomUpgrades())
	require.NoError(t, fresh.Put(ctx, "a", 2))
	want["a"] = "2"
	for _, reader := range []*roomkv.Store{fresh, open(t, e.twin(t), successor, e.opts()...), open(t, e.twin(t), e.room, e.opts(roomkv.WithRoomUpgrades())...)} {
		eventually(t, func() bool { return len(memoryOf(t, reader)) == len(want) }, "the list")
		assert.Equal(t, want, memoryOf(t, reader))
	}
	if e.encrypted {
		assert.Empty(t, clearNames(t, e.client, successor))
	}
}

func errRoomUpgraded(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.another(t).Put(ctx, "k", 1))
	e.reads(t, "k", "1")
	successor := e.upgrade(t)
	store := e.store
	if e.following {
		eventually(t, func() bool { return store.Put(ctx, "k", 2) != nil }, "the sync")
	} else {
		store = e.another(t) // one that has not asked yet
	}
	err := store.Put(ctx, "k", 3)
	require.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
	assert.ErrorContains(t, err, successor.String())
	require.ErrorIs(t, store.Create(ctx, "new", 3), roomkv.ErrRoomUpgraded)
	require.ErrorIs(t, store.Delete(ctx, "k"), roomkv.ErrRoomUpgraded)
	require.NoError(t, store.Get(ctx, "k", new(int)), "reads go on")
}

func errRoomUpgradedWatch(t *testing.T, e *env) {
	ended := make(chan error, 1)
	go func() {
		for _, err := range e.store.Watch(t.Context()) {
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	require.NoError(t, e.store.Put(t.Context(), "k", 1))
	successor := e.upgrade(t)
	err := <-ended
	require.ErrorIs(t, err, roomkv.ErrRoomUpgraded)
	assert.ErrorContains(t, err, successor.String())
}

func accountData(t *testing.T, e *env) {
	ctx := t.Context()
	powerless := e.member(t, 0)
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"hidden": 1, "gone": 1, "state": 1}))
	opts := e.opts(roomkv.WithAccountDataFallback(), roomkv.WithKeyWait(0))
	store := open(t, powerless, e.room, opts...)
	require.NoError(t, store.PutAll(ctx, map[string]any{"hidden": 2.5, "new": "x"}))
	require.NoError(t, store.Create(ctx, "n", 1))
	require.ErrorIs(t, store.Create(ctx, "n", 2), roomkv.ErrExists)
	require.NoError(t, roomkv.Update(ctx, store, "n", increment))
	require.NoError(t, store.Delete(ctx, "gone"))
	require.ErrorIs(t, store.Get(ctx, "gone", new(int)), roomkv.ErrNotFound)
	want := map[string]string{"hidden": "2.5", "new": `"x"`, "n": "2", "state": "1"}
	for _, reader := range []*roomkv.Store{store, open(t, powerless, e.room, opts...)} {
		if e.encrypted {
			break // the values in the state are for whoever was there
		}
		assert.Equal(t, want, memoryOf(t, reader))
	}
	entry, err := store.Entry(ctx, "n")
	require.NoError(t, err)
	assert.Equal(t, roomkv.InAccountData, entry.Place)
	assert.Equal(t, "account data", entry.Place.String())
	assert.Equal(t, powerless.UserID, entry.Sender)
	assert.Equal(t, e.encrypted, entry.Encrypted)
	assert.Equal(t, map[string]string{"hidden": "1", "gone": "1", "state": "1"}, memoryOf(t, e.another(t)), "it is private")
	data := powerless.BuildClientURL("v3", "user", powerless.UserID, "rooms", e.room, "account_data", roomkv.AccountType(store))
	assert.Equal(t, e.encrypted, !strings.Contains(string(ask(t, powerless, http.MethodGet, data, nil).body), `"x"`))
}

// The sync of a store that follows tells of the power, and the memory moves.
func accountDataMoves(t *testing.T, e *env) {
	ctx := t.Context()
	client := e.member(t, 0)
	store, _ := follow(t, client, e.room, e.opts(roomkv.WithAccountDataFallback())...)
	require.NoError(t, store.Put(ctx, "k", 1))
	assert.Empty(t, memoryOf(t, e.another(t)))
	e.setLevel(t, client.UserID, 50)
	eventually(t, func() bool { return len(memoryOf(t, e.another(t))) == 1 }, "the move")
	eventually(t, func() bool {
		entry, err := store.Entry(ctx, "k")
		return err == nil && entry.Place == roomkv.InState
	}, "the place")
	e.setLevel(t, client.UserID, 0)
	eventually(t, func() bool {
		require.NoError(t, store.Put(ctx, "k", 2))
		entry, err := store.Entry(ctx, "k")
		return err == nil && entry.Place == roomkv.InAccountData
	}, "back to account data")
	got, err := roomkv.Get[int](ctx, store, "k")
	require.NoError(t, err)
	assert.Equal(t, 2, got)
}

func importPlain(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": "old", "kept": 1}))
	imported, err := e.store.Import(ctx, strings.NewReader(`{"a": 1.5, "b/c": {"d": [true]}, "": null}`), roomkv.ImportJSON(), roomkv.ImportOverwrite())
	require.NoError(t, err)
	assert.Equal(t, 3, imported.Written)
	want := map[string]string{"": "null", "a": "1.5", "b/c": `{"d":[true]}`, "kept": "1"}
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	imported, err = e.store.Import(ctx, strings.NewReader(`{"key": "a", "value": 2, "ttl": 7}`+"\n"+`{"key": "new", "value": "<x>"}`), roomkv.ImportJSONLines(), roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, 3, imported.Removed)
	want = map[string]string{"a": "2", "new": `"<x>"`}
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	for _, bad := range []string{`{"a": 1`, `[1]`, `{"a": 3, "a": 4}`, "{\"a\": \"\xff\"}"} {
		_, err = e.store.Import(ctx, strings.NewReader(bad), roomkv.ImportJSON(), roomkv.ImportOverwrite())
		require.ErrorIs(t, err, roomkv.ErrDamaged, bad)
	}
	_, err = e.store.Import(ctx, strings.NewReader(`{"key": "a"}`), roomkv.ImportJSONLines(), roomkv.ImportOverwrite())
	require.ErrorIs(t, err, roomkv.ErrDamaged)
	assert.Equal(t, want, memoryOf(t, e.another(t)), "nothing of a damaged file is stored")
}

// botData is the type of account data in which a bot keeps a map.
const botData = "com.example.mybot"

func importAccountData(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.client.SetAccountData(ctx, botData, map[string]any{"a": 1.5, "b/c": map[string]any{"d": []any{true}}, "": nil, "roomkv.x": "<é>", "kept": "old"}))
	require.NoError(t, e.client.SetRoomAccountData(ctx, e.room, botData, map[string]any{"mine": 1}))
	require.NoError(t, e.store.Put(ctx, "kept", 1))

	imported, err := e.store.ImportAccountData(ctx, "", botData)
	require.ErrorIs(t, err, roomkv.ErrExists)
	assert.ErrorContains(t, err, `"kept"`)
	assert.Equal(t, roomkv.Imported{Total: 5, Written: 4, Kept: 1}, imported)
	want := map[string]string{"a": "1.5", "b/c": `{"d":[true]}`, "": "null", "roomkv.x": `"<é>"`, "kept": "1"}
	assert.Equal(t, want, memoryOf(t, e.another(t)))

	imported, err = e.store.ImportAccountData(ctx, "", botData, roomkv.ImportOverwrite())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 5, Written: 1, Equal: 4}, imported)
	want["kept"] = `"old"`
	assert.Equal(t, want, memoryOf(t, e.another(t)))

	other := open(t, e.client, "", e.opts(roomkv.WithRooms(map[string]string{"main": e.room.String()}))...)
	other, err = other.WithRoom(ctx, "main")
	require.NoError(t, err)
	imported, err = other.Sub("sub/").ImportAccountData(ctx, "main", botData)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 1, Written: 1}, imported)
	want["sub/mine"] = "1"
	assert.Equal(t, want, memoryOf(t, e.another(t)))

	imported, err = e.store.ImportAccountData(ctx, e.room, botData, roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 1, Written: 1, Removed: 6}, imported)
	assert.Equal(t, map[string]string{"mine": "1"}, memoryOf(t, e.another(t)))

	var left map[string]any
	require.NoError(t, e.client.GetRoomAccountData(ctx, e.room, botData, &left), "account data stays as it is")
	assert.Equal(t, map[string]any{"mine": 1.0}, left)
	require.NoError(t, e.client.GetAccountData(ctx, botData, &left))
	assert.Equal(t, "old", left["kept"])
}

func importNoMap(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	require.NoError(t, e.client.SetAccountData(ctx, botData+".deleted", struct{}{}))
	fallback := open(t, e.client, e.room, e.opts(roomkv.WithAccountDataFallback())...)
	require.NoError(t, e.client.SetRoomAccountData(ctx, e.room, roomkv.AccountType(fallback), map[string]any{"k": 2, "roomkv.account": map[string]any{}}))
	for _, test := range []struct {
		of   id.RoomID
		data string
		opts []roomkv.ImportOption
		want error
	}{
		{"", botData, nil, roomkv.ErrNotFound},
		{e.room, botData, nil, roomkv.ErrNotFound},
		{"", botData + ".deleted", nil, roomkv.ErrNotFound},
		{"nowhere", botData, nil, roomkv.ErrUnknownRoom},
		{"", "", nil, roomkv.ErrInvalidOption},
		{e.room, roomkv.AccountType(fallback), nil, roomkv.ErrInvalidOption},
		{"", botData, []roomkv.ImportOption{roomkv.ImportJSON()}, roomkv.ErrInvalidOption},
		{"", botData, []roomkv.ImportOption{roomkv.ImportJSONLines()}, roomkv.ErrInvalidOption},
		{"", botData, []roomkv.ImportOption{nil}, roomkv.ErrInvalidOption},
	} {
		imported, err := e.store.ImportAccountData(ctx, test.of, test.data, append(test.opts, roomkv.ImportReplace())...)
		require.ErrorIs(t, err, test.want, "%s of %q", test.data, test.of)
		assert.Zero(t, imported)
	}
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, e.another(t)), "nothing was changed")
}

func importDryRun(t *testing.T, e *env) {
	ctx := t.Context()
	was := map[string]string{"same": "1", "other": "2", "gone": "3"}
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"same": 1, "other": 2, "gone": 3}))
	file := `{"same": 1, "other": "two", "new": [], "newer": {}}`
	for _, test := range []struct {
		opts []roomkv.ImportOption
		want roomkv.Imported
		err  error
	}{
		{nil, roomkv.Imported{Total: 4, Written: 2, Equal: 1, Kept: 1}, roomkv.ErrExists},
		{[]roomkv.ImportOption{roomkv.ImportOverwrite()}, roomkv.Imported{Total: 4, Written: 3, Equal: 1}, nil},
		{[]roomkv.ImportOption{roomkv.ImportReplace()}, roomkv.Imported{Total: 4, Written: 3, Equal: 1, Removed: 1}, nil},
	} {
		told := roomkv.Imported{}
		progress := roomkv.ImportProgress(func(i roomkv.Imported) { told = i })
		dry, err := e.store.Import(ctx, strings.NewReader(file), append(test.opts, roomkv.ImportJSON(), roomkv.ImportDryRun(), progress)...)
		require.ErrorIs(t, err, test.err)
		assert.Equal(t, test.want, dry)
		assert.Equal(t, test.want, told)
		assert.Equal(t, was, memoryOf(t, e.another(t)), "nothing was changed")
	}
	dry, err := e.store.Import(ctx, strings.NewReader(file), roomkv.ImportJSON(), roomkv.ImportDryRun(), roomkv.ImportReplace())
	require.NoError(t, err)
	imported, err := e.store.Import(ctx, strings.NewReader(file), roomkv.ImportJSON(), roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, imported, dry, "it does what it said")
	_, err = e.store.Import(ctx, strings.NewReader(`{"a": 1`), roomkv.ImportJSON(), roomkv.ImportDryRun())
	require.ErrorIs(t, err, roomkv.ErrDamaged)
}
