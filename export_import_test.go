package roomkv_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func exported(t testing.TB, store *roomkv.Store, opts ...roomkv.ExportOption) []byte {
	t.Helper()
	var file bytes.Buffer
	e, err := store.Export(t.Context(), &file, opts...)
	require.NoError(t, err)
	assert.True(t, e.Complete)
	assert.Zero(t, e.Unreadable)
	return file.Bytes()
}

func linesOf(t testing.TB, file []byte) (lines []dump.Line) {
	t.Helper()
	for line, err := range dump.Read(bytes.NewReader(file)) {
		require.NoError(t, err)
		lines = append(lines, line)
	}
	return lines
}

// changing are the requests that change anything on the homeserver.
func changing(recorder *hstest.Recorder) (n int) {
	for _, request := range recorder.Requests() {
		if request.Method == http.MethodPut || strings.HasSuffix(request.Path, "/upload") {
			n++
		}
	}
	return n
}

// eachSort tests stores of some kinds that differ in how they are written.
func eachSort(t *testing.T, test func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option)) {
	for _, sort := range [][2]string{{"perkey", "plain"}, {"perkey", "sealed"}, {"single", "plain"}, {"single", "sealed"}} {
		t.Run(sort[0]+"/"+sort[1], func(t *testing.T) {
			store, client, room, opts := kinds[sort[1]](t, layouts[sort[0]])
			test(t, store, client, room, opts)
		})
	}
}

// hard are values that are not easy to store, some in the media repository.
func hard() map[string]any {
	values := various(5)
	values["media"] = text(100_000, 1)
	values["floats"] = []float64{0.1, 1e-9, 1e300}
	values["large marker"] = map[string]string{"encrypted_val": text(70_000, 2)}
	values["deep"] = json.RawMessage(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))
	values["surrogate"] = json.RawMessage(`["\ud800", -0, 1.50, 123456789012345678901234567890]`)
	values["spaced"] = json.RawMessage("[ " + strings.Repeat("1 , ", 30_000) + "1 ]")
	values["line\nfeed \x00 \u2028"] = "<&>\n\u2028"
	return values
}

// From every kind of store into every kind: what is exported from each is imported into the next. Some only with -rounds=20.
func TestExportAndImport(t *testing.T) {
	hstest.Parallel(t)
	type kind struct{ layout, name string }
	all := []kind{{"perkey", "plain"}, {"single", "encrypted"}, {"perkey", "sealed"}, {"custom", "plain"}}
	if *rounds >= 20 {
		all = append(all, kind{"perkey", "encrypted"}, kind{"single", "plain"}, kind{"single", "sealed"})
	}
	for i, from := range all {
		to := all[(i+1)%len(all)]
		t.Run(fmt.Sprint(from, " to ", to), func(t *testing.T) {
			src, _, room, _ := kinds[from.name](t, layouts[from.layout])
			values := hard()
			require.NoError(t, src.PutAll(t.Context(), values))
			file := exported(t, src)
			assert.Contains(t, string(file[:100]), room)
			lines := linesOf(t, file)
			require.Len(t, lines, len(values))
			assert.True(t, slices.IsSortedFunc(lines, func(a, b dump.Line) int { return strings.Compare(a.Key, b.Key) }))
			for _, line := range lines {
				entry, err := src.Entry(t.Context(), line.Key)
				require.NoError(t, err)
				assert.JSONEq(t, string(entry.Value), string(line.Value))
				assert.Equal(t, string(entry.Revision), line.Revision)
				assert.Equal(t, entry.Sender.String(), line.Sender)
				assert.True(t, entry.Time.Equal(line.Time))
				assert.Equal(t, from.name != "plain", line.Encrypted)
				if line.Encrypted {
					assert.Equal(t, line.Sender, line.EncryptedBy)
					assert.Equal(t, "verified", line.Trust)
				}
			}

			imported, err := src.Import(t.Context(), bytes.NewReader(file))
			require.NoError(t, err)
			assert.Equal(t, roomkv.Imported{Total: len(values), Equal: len(values)}, imported)

			dst, client, _, _ := kinds[to.name](t, layouts[to.layout])
			var seen []roomkv.Imported
			imported, err = dst.Import(t.Context(), bytes.NewReader(file), roomkv.ImportProgress(func(i roomkv.Imported) { seen = append(seen, i) }))
			require.NoError(t, err)
			assert.Equal(t, roomkv.Imported{Total: len(values), Written: len(values)}, imported)
			assert.Equal(t, imported, seen[len(seen)-1])
			sameMemory(t, memoryOf(t, src), dst)

			recorder := hstest.Record(client)
			for _, opt := range []roomkv.ImportOption{roomkv.ImportProgress(nil), roomkv.ImportOverwrite(), roomkv.ImportReplace()} {
				imported, err = dst.Import(t.Context(), bytes.NewBuffer(file), opt)
				require.NoError(t, err)
				assert.Equal(t, roomkv.Imported{Total: len(values), Equal: len(values)}, imported)
			}
			assert.Zero(t, changing(recorder))
		})
	}
}

func TestImportMergesOrReplaces(t *testing.T) {
	hstest.Parallel(t)
	eachSort(t, func(t *testing.T, dst *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		src, _, _ := newStore(t)
		require.NoError(t, src.PutAll(ctx, map[string]any{"same": 1.5, "other": "new", "new": true}))
		file := exported(t, src)
		require.NoError(t, dst.PutAll(ctx, map[string]any{"same": 1.5, "other": "old", "theirs": text(60_000, 1), "more": nil}))
		before := memoryOf(t, dst)

		imported, err := dst.Import(ctx, bytes.NewReader(file))
		assert.ErrorIs(t, err, roomkv.ErrExists)
		assert.ErrorContains(t, err, `"other"`)
		assert.NotContains(t, err.Error(), "old")
		assert.Equal(t, roomkv.Imported{Total: 3, Written: 1, Equal: 1, Kept: 1}, imported)
		want := maps.Clone(before)
		want["new"] = "true"
		sameMemory(t, want, dst)

		imported, err = dst.Import(ctx, bytes.NewReader(file), roomkv.ImportOverwrite())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: 3, Written: 1, Equal: 2}, imported)
		want["other"] = `"new"`
		sameMemory(t, want, dst)

		require.NoError(t, dst.Put(ctx, "other", "old"))
		recorder := hstest.Record(client)
		imported, err = dst.Import(ctx, bytes.NewReader(file), roomkv.ImportReplace())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: 3, Written: 1, Equal: 2, Removed: 2}, imported)
		sameMemory(t, memoryOf(t, src), dst)
		if _, single := dictStateKey(t, client, room); single {
			events := 0
			for _, request := range recorder.Requests() {
				if request.Method == http.MethodPut && strings.Contains(request.Path, "/state/") {
					events++
				}
			}
			assert.Equal(t, 1, events)
		}
		empty, _, _ := newStore(t)
		imported, err = dst.Import(ctx, bytes.NewReader(exported(t, empty)), roomkv.ImportReplace())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Removed: 3}, imported)
		assert.Empty(t, memoryOf(t, dst))
	})
}

// A full dict is replaced by another full one, which do not fit beside each other.
func TestImportReplacesAFullMemory(t *testing.T) {
	hstest.Parallel(t)
	src, client, _ := newStore(t)
	require.NoError(t, src.PutAll(t.Context(), small("new ", 60_000)))
	dst := open(t, client, hstest.Room(t, client))
	require.NoError(t, dst.PutAll(t.Context(), small("old ", 60_000)))
	file := exported(t, src)
	_, err := dst.Import(t.Context(), bytes.NewReader(file))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	_, err = dst.Import(t.Context(), bytes.NewReader(file), roomkv.ImportReplace())
	require.NoError(t, err)
	sameMemory(t, memoryOf(t, src), dst)
}

// closed is a file with these lines.
func closed(lines ...string) []byte {
	text := `{"format":"roomkv","version":1,"room":"!room:example.org","event_type":"test","time":"2026-11-21T16:00:00Z"}` + "\n"
	for _, line := range lines {
		text += line + "\n"
	}
	return fmt.Appendf(nil, "%s{\"lines\":%d,\"sha256\":\"%x\"}\n", text, len(lines), sha256.Sum256([]byte(text)))
}

// neverending is what somebody pipes in by mistake.
type neverending struct{}

func (neverending) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'y'
	}
	return len(p), nil
}

// counting counts what is read.
type counting struct {
	from io.Reader
	n    int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += n
	return n, err
}

// Files that were cut, or in which a bit has changed, are refused before anything is even read from the homeserver.
func TestImportRefusesDamagedFiles(t *testing.T) {
	hstest.Parallel(t)
	src, client, _ := newEncrypted(t)
	require.NoError(t, src.PutAll(t.Context(), hard()))
	require.NoError(t, src.Put(t.Context(), "float", "another"))
	file := exported(t, src, roomkv.ExportHistory())
	require.NotEmpty(t, linesOf(t, file))
	dst := open(t, client, hstest.EncryptedRoom(t, client))
	recorder := hstest.Record(client)
	refused := func(file []byte, what string, at int) {
		imported, err := dst.Import(t.Context(), bytes.NewReader(file), roomkv.ImportReplace())
		require.ErrorIs(t, err, roomkv.ErrDamaged, "%s at %d", what, at)
		require.NotContains(t, err.Error(), "secret")
		assert.Zero(t, imported.Written)
	}
	for range 50 {
		at := rand.IntN(len(file))
		refused(file[:at], "cut", at)
	}
	for range 10 {
		at := rand.IntN(8 * len(file))
		flipped := bytes.Clone(file)
		flipped[at/8] ^= 1 << (at % 8)
		refused(flipped, "bit", at)
	}
	refused(nil, "empty", 0)
	refused(file[:len(file)-1], "cut", len(file)-1)
	refused(append(bytes.Clone(file), file...), "doubled", len(file))
	refused([]byte("{}\n"), "another file", 0)
	refused(closed(`{"key":"a","value":1}`, `{"key":"a","value":2}`), "one key twice", 0)
	assert.Zero(t, recorder.Count())
	pipe := &counting{from: neverending{}}
	_, err := dst.Import(t.Context(), pipe)
	require.ErrorIs(t, err, roomkv.ErrDamaged)
	assert.Less(t, pipe.n, 1<<20)
	_, err = dst.Import(t.Context(), bytes.NewReader(file))
	require.NoError(t, err)
}

// An import that ends at any request is resumed by another, and nothing is there twice.
func TestImportIsResumed(t *testing.T) {
	hstest.Parallel(t)
	src, _, _ := newStore(t)
	require.NoError(t, src.PutAll(t.Context(), various(30)))
	file, want := exported(t, src), memoryOf(t, src)
	for i := range min(20, max(2, *rounds/3)) {
		layout, kind := []string{"perkey", "single"}[i%2], []string{"plain", "sealed", "encrypted"}[i%3]
		_, client, room, opts := kinds[kind](t, layouts[layout])
		ctx, cancel := context.WithCancel(mautrix.WithMaxRetries(t.Context(), 0))
		last := 0 // of the state events that it sends
		if layout == "perkey" {
			last = rand.IntN(len(want))
		}
		interrupt(client, func(n int) {
			if n == last {
				cancel()
			}
		}, nil)
		_, err := open(t, client, room, opts...).Import(ctx, bytes.NewReader(file))
		cancel()
		interrupt(client, nil, nil)
		if err != nil { // the last event may have been stored all the same
			assert.ErrorIs(t, err, context.Canceled)
		}
		dst := open(t, client, room, opts...)
		imported, err := dst.Import(t.Context(), bytes.NewReader(file))
		require.NoError(t, err)
		assert.Equal(t, len(want), imported.Written+imported.Equal)
		t.Logf("%s %s, ended at event %d: %+v", layout, kind, last, imported)
		sameMemory(t, want, dst)
	}
}

func TestExportOfWhatCannotBeRead(t *testing.T) {
	hstest.Parallel(t)
	src, client, room := newStore(t, roomkv.WithEncryption(false)) // what cannot be read would say that the room is encrypted
	_, err := client.SendStateEvent(t.Context(), room, event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "",
		json.RawMessage(`{"good": 1, "bad": {"encrypted_val": "$nothing"}}`))
	require.NoError(t, err)
	var file bytes.Buffer
	e, err := src.Export(t.Context(), &file)
	assert.ErrorContains(t, err, "$nothing")
	assert.Equal(t, roomkv.Exported{Total: 2, Unreadable: 1, Complete: true}, e)
	assert.Contains(t, file.String(), `{"key":"bad","absent":"unreadable"`)

	dst := open(t, client, hstest.Room(t, client))
	require.NoError(t, dst.Put(t.Context(), "bad", "was good"))
	imported, err := dst.Import(t.Context(), bytes.NewReader(file.Bytes()))
	require.NoError(t, err)
	assert.Equal(t, roomkv.Imported{Total: 2, Written: 1, Unreadable: 1}, imported)
	want := map[string]string{"good": "1", "bad": `"was good"`}
	assert.Equal(t, want, memoryOf(t, dst))
	_, err = dst.Import(t.Context(), bytes.NewReader(file.Bytes()), roomkv.ImportReplace())
	assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	assert.Equal(t, want, memoryOf(t, dst))

	// The other way round, what cannot be read is kept like any other value, and can be replaced.
	good, _, _ := newStore(t)
	require.NoError(t, good.PutAll(t.Context(), map[string]any{"bad": 2, "good": 1}))
	imported, err = src.Import(t.Context(), bytes.NewReader(exported(t, good)))
	assert.ErrorIs(t, err, roomkv.ErrExists)
	assert.Equal(t, roomkv.Imported{Total: 2, Equal: 1, Kept: 1}, imported)
	_, err = src.Import(t.Context(), bytes.NewReader(exported(t, good)), roomkv.ImportReplace())
	require.NoError(t, err)
	assert.Equal(t, memoryOf(t, good), memoryOf(t, src))
}

// Every revision of every key is in the file, also of those that have been deleted, and an import stores what is there now.
func TestExportHistory(t *testing.T) {
	hstest.Parallel(t)
	eachSort(t, func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		long := strings.Repeat("long ", 60)
		for n := range 3 {
			require.NoError(t, store.PutAll(ctx, map[string]any{"": n, "a": fmt.Sprint(n), long: n + 10, "gone": 0.5 + float64(n), "@gone": []int{n}}))
			require.NoError(t, store.Delete(ctx, "gone", "@gone"))
		}
		require.NoError(t, store.Put(ctx, "gone too", text(60_000, 1)))
		require.NoError(t, store.Delete(ctx, "gone too"))

		cold := open(t, client, room, opts...)
		var file bytes.Buffer
		e, err := cold.Export(ctx, &file, roomkv.ExportHistory())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Exported{Total: 3, Revisions: 3*3 + 2*6 + 2, Complete: true}, e)
		past, now := map[string][]string{}, map[string]string{}
		for _, line := range linesOf(t, file.Bytes()) {
			if !line.Past {
				now[line.Key] = string(line.Value)
				continue
			}
			value := string(line.Value)
			if line.Absent != "" {
				value = string(line.Absent)
			}
			past[line.Key] = append(past[line.Key], value)
		}
		assert.Equal(t, memoryOf(t, store), now)
		assert.Len(t, past, 6)
		for key, values := range past {
			want, _ := historyOf(t, cold, key)
			assert.Equal(t, want, values, key)
		}
		dst := open(t, client, hstest.Room(t, client))
		imported, err := dst.Import(ctx, &file)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: 3, Written: 3}, imported)
		sameMemory(t, now, dst)
	})
}

// Writers at the same time, and more than a page of events.
func TestExportHistoryOfRivals(t *testing.T) {
	hstest.Parallel(t)
	for _, layout := range []string{"perkey", "single"} {
		t.Run(layout, func(t *testing.T) {
			store, client, room := newStore(t, layouts[layout])
			var group sync.WaitGroup
			for i, writer := range []*roomkv.Store{store, open(t, twin(t, client), room, layouts[layout])} {
				group.Go(func() {
					for n := range 3 * *rounds {
						assert.NoError(t, writer.Put(t.Context(), fmt.Sprint(n%2), fmt.Sprint(i, " ", n)))
					}
				})
			}
			group.Wait()
			past := map[string][]string{}
			for _, line := range linesOf(t, exported(t, open(t, client, room, layouts[layout]), roomkv.ExportHistory())) {
				if line.Past {
					past[line.Key] = append(past[line.Key], string(line.Value))
				}
			}
			assert.Len(t, past, 2)
			for key, values := range past {
				want, _ := historyOf(t, store, key)
				assert.Equal(t, want, values)
			}
		})
	}
}

// What was redacted is nowhere any more, and no reason for an error.
func TestExportHistoryOfRedactedValues(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newEncrypted(t, roomkv.WithRedaction())
	require.NoError(t, store.Put(ctx, "key", "was"))
	require.NoError(t, store.Put(ctx, "key", "is"))
	file := exported(t, open(t, client, room), roomkv.ExportHistory())
	var absent []dump.Reason
	for _, line := range linesOf(t, file) {
		absent = append(absent, line.Absent)
	}
	assert.Equal(t, []dump.Reason{"", "", dump.Redacted}, absent)
	assert.NotContains(t, string(file), `"was"`)
}

func TestImportFrom(t *testing.T) {
	hstest.Parallel(t)
	src, client, _ := newStore(t)
	require.NoError(t, src.PutAll(t.Context(), map[string]any{"a": 1, "b": 2}))
	file := exported(t, src)
	imports := func(name string, from io.Reader) {
		dst := open(t, client, hstest.Room(t, client))
		imported, err := dst.Import(t.Context(), from)
		require.NoError(t, err, name)
		assert.Equal(t, 2, imported.Written, name)
	}
	later := bytes.NewReader(slices.Concat([]byte("before"), file))
	_, err := later.Seek(6, io.SeekStart)
	require.NoError(t, err)
	imports("the middle of a file", later)
	imports("a reader that cannot go back", iotest.HalfReader(bytes.NewReader(file)))
	from, to, err := os.Pipe() // which has a Seek
	require.NoError(t, err)
	go func() {
		_, _ = to.Write(file)
		_ = to.Close()
	}()
	imports("a pipe", from)

	broken := errors.New("broken")
	dst := open(t, client, hstest.Room(t, client))
	for _, from := range []io.Reader{iotest.ErrReader(broken), io.MultiReader(bytes.NewReader(file), iotest.ErrReader(broken))} {
		_, err = dst.Import(t.Context(), from)
		assert.ErrorIs(t, err, broken)
	}
	_, err = dst.Import(t.Context(), bytes.NewReader(file), nil)
	assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = dst.Import(ctx, bytes.NewReader(file))
	assert.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, memoryOf(t, dst))
}

// limited is a disk that is full after so many bytes.
type limited int

var errFull = errors.New("full")

func (l *limited) Write(text []byte) (int, error) {
	if *l -= limited(len(text)); *l < 0 {
		return 0, errFull
	}
	return len(text), nil
}

func TestExportThatFails(t *testing.T) {
	hstest.Parallel(t)
	store, _, _ := newStore(t)
	require.NoError(t, store.PutAll(t.Context(), various(2)))
	size := len(exported(t, store))
	for _, full := range []limited{0, 100, limited(size / 2), limited(size - 40)} { // the time in the header takes a few bytes more or less
		e, err := store.Export(t.Context(), &full)
		assert.ErrorIs(t, err, errFull)
		assert.False(t, e.Complete)
	}
	_, err := store.Export(t.Context(), io.Discard, nil)
	assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := store.Export(ctx, io.Discard)
	assert.ErrorIs(t, err, context.Canceled)
	assert.False(t, e.Complete)
}

// Neither an export nor an import of many large values has all of them in memory. What is garbage by then does not count: how
// much of it waits for the collector depends on the machine.
func TestMemoryOfExportAndImport(t *testing.T) {
	hstest.Real(t)
	const size, n = 1_000_000, 20
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	store, client, _ := newStore(t)
	for i := range n {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint(i), text(size, byte(i))))
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	exporting := peak(func() {
		_, err := store.Export(t.Context(), file)
		require.NoError(t, err)
	})
	_, err = file.Seek(0, io.SeekStart)
	require.NoError(t, err)
	dst := open(t, client, hstest.Room(t, client))
	importing := peak(func() {
		imported, err := dst.Import(t.Context(), file)
		require.NoError(t, err)
		assert.Equal(t, n, imported.Written)
	})
	require.NoError(t, file.Close())
	t.Logf("times a value: Export %.1f, Import %.1f, of %d values", float64(exporting)/size, float64(importing)/size, n)
	assert.Less(t, max(exporting, importing), uint64(n*size/2))
}
