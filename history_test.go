package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// historyOf gives the revisions of a key, the newest first. One that cannot be read is "error", a removal "deleted".
func historyOf(t testing.TB, store *roomkv.Store, key string) (values []string, entries []roomkv.Entry) {
	t.Helper()
	for entry, err := range store.History(t.Context(), key) {
		value := string(entry.Value)
		if entry.Deleted {
			value = "deleted"
		}
		if err != nil {
			require.NotEmpty(t, entry.Revision, err)
			value = "error"
		}
		assert.Equal(t, key, entry.Key)
		values, entries = append(values, value), append(entries, entry)
	}
	return values, entries
}

func pastOf(t testing.TB, snapshot *roomkv.Snapshot) map[string]string {
	t.Helper()
	memory := map[string]string{}
	for entry, err := range snapshot.All(t.Context()) {
		require.NoError(t, err)
		memory[entry.Key] = string(entry.Value)
	}
	keys, err := snapshot.Keys(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(memory)), keys)
	return memory
}

// kinds are stores of every kind, in a fresh room each.
var kinds = map[string]func(t testing.TB, layout roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID, []roomkv.Option){
	"plain": func(t testing.TB, layout roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID, []roomkv.Option) {
		store, client, room := newStore(t, layout)
		return store, client, room, []roomkv.Option{layout}
	},
	"encrypted": func(t testing.TB, layout roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID, []roomkv.Option) {
		store, client, room := newEncrypted(t, layout)
		return store, client, room, []roomkv.Option{layout}
	},
	"sealed": func(t testing.TB, layout roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID, []roomkv.Option) {
		store, client, room := newEncrypted(t, layout, roomkv.WithSealedKeys(secret))
		return store, client, room, []roomkv.Option{layout, roomkv.WithSealedKeys(secret)}
	},
}

// bothLayouts is eachLayout for what a custom state key makes no difference to.
func bothLayouts(t *testing.T, test func(t *testing.T, layout roomkv.Option)) {
	for _, name := range []string{"perkey", "single"} {
		t.Run("layout="+name, func(t *testing.T) { test(t, layouts[name]) })
	}
}

// eachKind tests the kinds in the two layouts, by default some of them. A custom state key makes no difference to encryption.
func eachKind(t *testing.T, test func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option)) {
	some := []string{"perkey/sealed", "single/encrypted", "single/plain"}
	if thorough() {
		some = append(some, "perkey/plain", "perkey/encrypted", "single/sealed", "custom/plain")
	}
	for _, name := range some {
		t.Run(name, func(t *testing.T) {
			layout, kind, _ := strings.Cut(name, "/")
			store, client, room, opts := kinds[kind](t, layouts[layout])
			test(t, store, client, room, opts)
		})
	}
}

// thorough tells whether more was asked for than the default.
func thorough() bool { return *rounds > defaultRounds }

func TestHistoryAndRestore(t *testing.T) {
	hstest.Parallel(t)
	eachKind(t, func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		values, _ := historyOf(t, store, "key")
		assert.Empty(t, values)
		require.NoError(t, store.Put(ctx, "key", 1))
		require.NoError(t, store.Put(ctx, "other", "x"))
		_, err := client.SendText(ctx, room, "what people say")
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "key", 2))
		require.NoError(t, store.PutAll(ctx, map[string]any{"key": 2.5, "more": true}))
		two := time.Now()
		time.Sleep(20 * time.Millisecond)
		require.NoError(t, store.Delete(ctx, "key", "other"))
		require.NoError(t, roomkv.Update(ctx, store, "key", func(string, bool) (string, error) { return "back", nil }))
		require.NoError(t, store.Put(ctx, "last", 1))

		cold := open(t, client, room, opts...)
		values, _ = historyOf(t, store, "last")
		assert.Equal(t, []string{"1"}, values)
		want := []string{`"back"`, "deleted", "2.5", "2", "1"}
		values, _ = historyOf(t, store, "key")
		require.Equal(t, want, values)
		values, entries := historyOf(t, cold, "key")
		require.Equal(t, want, values)
		for i, entry := range entries {
			assert.Equal(t, client.UserID, entry.Sender)
			snapshot, err := cold.At(ctx, roomkv.AtRevision(entry.Revision))
			require.NoError(t, err)
			got, err := snapshot.Entry(ctx, "key")
			if entry.Deleted {
				require.ErrorIs(t, err, roomkv.ErrNotFound)
				continue
			}
			require.NoError(t, err)
			assert.Equal(t, values[i], string(got.Value))
			assert.Equal(t, entry.Revision, got.Revision)
		}

		now := memoryOf(t, cold)
		snapshot, err := cold.At(ctx, roomkv.AtTime(two))
		require.NoError(t, err)
		was := map[string]string{"key": "2.5", "other": `"x"`, "more": "true"}
		assert.Equal(t, was, pastOf(t, snapshot))
		latest, err := cold.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
		require.NoError(t, err)
		assert.Equal(t, now, pastOf(t, latest))
		never, err := cold.At(ctx, roomkv.AtTime(time.UnixMilli(1)))
		require.NoError(t, err)
		assert.Empty(t, pastOf(t, never))

		recorder := hstest.Record(client)
		changed, err := cold.Restore(ctx, snapshot)
		require.NoError(t, err)
		assert.Equal(t, 3, changed)
		if _, single := dictStateKey(t, client, room); single {
			assert.Equal(t, 1, writes(recorder), "one event")
		} else {
			assert.Equal(t, 3, writes(recorder), "one event for each key")
		}
		assert.Equal(t, was, memoryOf(t, store))
		changed, err = cold.Restore(ctx, snapshot)
		require.NoError(t, err)
		assert.Zero(t, changed)
		changed, err = cold.Restore(ctx, latest)
		require.NoError(t, err)
		assert.Equal(t, 3, changed)
		assert.Equal(t, now, memoryOf(t, open(t, client, room, opts...)))
	})
}

func TestAtWhatIsNotThere(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		require.NoError(t, store.Put(ctx, "key", 1))
		said, err := client.SendText(ctx, room, "no state")
		require.NoError(t, err)
		for _, revision := range []roomkv.Revision{"", "$nothing", roomkv.Revision(said.EventID)} {
			_, err := store.At(ctx, roomkv.AtRevision(revision))
			assert.ErrorIs(t, err, roomkv.ErrNotFound, revision)
		}
		other, _, _ := newStore(t, layout)
		snapshot, err := other.At(ctx, roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		_, err = store.Restore(ctx, snapshot)
		assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
		_, err = store.Restore(ctx, nil)
		assert.ErrorIs(t, err, roomkv.ErrInvalidOption)
	})
}

// What was stored before a member may see the room's history is out of that one's sight. In the per-key layout Dendrite leaves no
// sign of it, and the key seems to have been made later.
func TestHistoryOutOfSight(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		_, err := client.SendStateEvent(ctx, room, event.StateHistoryVisibility, "", map[string]any{"history_visibility": "joined"})
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "key", 1))
		old := revision(t, store, "key")
		require.NoError(t, store.Put(ctx, "key", 2))
		before := time.Now()
		time.Sleep(20 * time.Millisecond)
		late := hstest.Client(t)
		_, err = client.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: late.UserID})
		require.NoError(t, err)
		_, err = late.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "key", 3))

		theirs := open(t, late, room, layout)
		values, _ := historyOf(t, theirs, "key")
		assert.Equal(t, []string{"3"}, values)
		_, oldErr := theirs.At(ctx, roomkv.AtRevision(roomkv.Revision(old)))
		snapshot, timeErr := theirs.At(ctx, roomkv.AtTime(before))
		if _, single := dictStateKey(t, client, room); !single && !*forking && os.Getenv(homeserver.EnvURL) == "" {
			require.ErrorIs(t, oldErr, roomkv.ErrNotFound)
			require.NoError(t, timeErr)
			assert.Empty(t, pastOf(t, snapshot))
		} else {
			require.ErrorIs(t, oldErr, roomkv.ErrTooOld)
			require.ErrorIs(t, timeErr, roomkv.ErrTooOld)
		}
		snapshot, err = theirs.At(ctx, roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"key": "3"}, pastOf(t, snapshot))
	})
}

// Two writers who write five keys at once, often the same ones: every write is a revision of its key, by who wrote it and in
// the order in which that one did, the newest is what counts, and any of the moments can be restored. With -rounds=30 there are
// as many revisions and ten moments, by default fewer.
func TestHistoryOfRivals(t *testing.T) {
	hstest.Parallel(t)
	eachKind(t, func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		revisions, keys := 4, 3
		if thorough() {
			revisions, keys = 2*(*rounds/2), 5
		}
		second := open(t, twin(t, client), room, opts...)
		type write struct {
			writer *roomkv.Store
			wrote  map[string][]string // by key, the oldest first
		}
		writers := []*write{{store, map[string][]string{}}, {second, map[string][]string{}}}
		var group sync.WaitGroup
		for w, writer := range writers {
			group.Go(func() {
				for n := range revisions / 2 {
					for k := range keys {
						key, value := fmt.Sprint("key ", k), fmt.Sprintf("%d.%d", w, n)
						assert.NoError(t, writer.writer.Put(ctx, key, value))
						writer.wrote[key] = append(writer.wrote[key], value)
					}
				}
			})
		}
		group.Wait()
		reading := open(t, client, room, opts...)
		var moments []roomkv.Entry
		for k := range keys {
			key := fmt.Sprint("key ", k)
			values, entries := historyOf(t, reading, key)
			require.Len(t, values, revisions)
			now, err := roomkv.Get[json.RawMessage](ctx, reading, key) // a listing can be behind
			require.NoError(t, err)
			assert.Equal(t, string(now), values[0], "the newest is what counts")
			by := [2][]string{}
			for i, value := range slices.Backward(values) {
				var text string
				require.NoError(t, json.Unmarshal([]byte(value), &text))
				w := int(text[0] - '0')
				by[w] = append(by[w], text)
				assert.Equal(t, client.UserID, entries[i].Sender)
			}
			for w, writer := range writers {
				assert.Equal(t, writer.wrote[key], by[w])
			}
			moments = append(moments, entries[revisions-1-k])
			if thorough() {
				moments = append(moments, entries[revisions/3])
			}
		}
		for _, moment := range moments {
			snapshot, err := reading.At(ctx, roomkv.AtRevision(moment.Revision))
			require.NoError(t, err)
			was := pastOf(t, snapshot)
			assert.Equal(t, string(moment.Value), was[moment.Key])
			_, err = store.Restore(ctx, snapshot)
			require.NoError(t, err)
			assert.Equal(t, was, memoryOf(t, open(t, client, room, opts...)))
		}
	})
}

// What a member puts there who may send state must not end the process, and takes nothing away but what it stands for.
func TestHostilePast(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		require.NoError(t, store.PutAll(ctx, map[string]any{"key": 1, "other": 2}))
		first := revision(t, store, "key")
		stateKey, single := dictStateKey(t, client, room)
		if !single {
			stateKey = "key"
		}
		parents := func(events ...any) map[string]any {
			return map[string]any{"key": 3, "roomkv.parents": map[string]any{"events": events, "by": "me", "yields": map[string]any{string(first): []any{"key", "none"}}}}
		}
		many := make([]any, 200)
		for i := range many {
			many[i] = fmt.Sprint("$nowhere", i)
		}
		for _, content := range []map[string]any{
			{"key": map[string]any{"encrypted_val": 7}}, {"key": map[string]any{"encrypted_val": first}}, {"key": map[string]any{"encrypted_val": "$nowhere"}},
			{"key": map[string]any{"media_val": map[string]any{}}}, {"key": map[string]any{"json_val": "{"}}, {"key": nil},
			{"key": 2, "roomkv.parents": []any{}}, {"roomkv.parents": map[string]any{"events": []any{7}}},
			parents(), parents("", first, first), parents(many...), {"a": 1, "b": strings.Repeat("x", 1000)}, {},
		} {
			_, err := client.SendStateEvent(ctx, room, database, stateKey, content)
			require.NoError(t, err)
		}
		cold := open(t, client, room, layout, roomkv.WithEncryption(false)) // the references would say that the room is encrypted
		values, entries := historyOf(t, cold, "key")
		require.Greater(t, len(values), 5)
		assert.Equal(t, "1", values[len(values)-1])
		for i, entry := range entries {
			snapshot, err := cold.At(ctx, roomkv.AtRevision(entry.Revision))
			if err != nil {
				require.ErrorIs(t, err, roomkv.ErrCorrupt)
				continue
			}
			for entry, err := range snapshot.All(ctx) {
				require.True(t, err == nil || entry.Revision != "", err)
			}
			if i%3 != 0 {
				continue
			}
			if _, err = cold.Restore(ctx, snapshot); err != nil {
				require.ErrorIs(t, err, roomkv.ErrCorrupt)
			}
		}
		snapshot, err := cold.At(ctx, roomkv.AtRevision(entries[len(entries)-1].Revision))
		require.NoError(t, err)
		_, err = cold.Restore(ctx, snapshot)
		require.NoError(t, err)
		want := map[string]string{"key": "1", "other": "2"}
		if !single { // keys are written one by one
			want = pastOf(t, snapshot)
			require.Equal(t, "1", want["key"])
		}
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout)))
	})
}

// A homeserver whose list of events goes round in circles does not hold anybody for ever.
func TestHistoryInCircles(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		store, client, _ := newStore(t, layout)
		require.NoError(t, store.Put(ctx, "key", 1))
		pages := 0
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/messages") {
				pages++
				body := fmt.Sprintf(`{"chunk":[],"end":"page %d"}`, pages%3)
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: readCloser(body), Request: req}, nil
			}
			return http.DefaultTransport.RoundTrip(req)
		})
		for _, err := range store.History(ctx, "key") {
			require.NoError(t, err)
		}
		_, err := store.At(ctx, roomkv.AtTime(time.UnixMilli(1)))
		require.ErrorIs(t, err, roomkv.ErrTooOld)
		assert.Less(t, pages, 100)
	})
}

// A key that was written on a homeserver whose clock is ahead, before others on one whose clock is not.
func TestHistoryByClocksApart(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "key", "old"))
	time.Sleep(5 * time.Millisecond) // so that no other event has the time that is changed
	require.NoError(t, store.Put(ctx, "key", "new"))
	entry, err := store.Entry(ctx, "key")
	require.NoError(t, err)
	time.Sleep(5 * time.Millisecond)
	want := map[string]string{"key": `"new"`}
	for i := range 26 {
		key := fmt.Sprint("other ", i)
		require.NoError(t, store.Put(ctx, key, i))
		want[key] = fmt.Sprint(i)
	}
	moment := revision(t, store, "other 25")
	for i := range 4 {
		require.NoError(t, store.Put(ctx, fmt.Sprint("later ", i), i))
	}
	eventually(t, func() bool {
		last, _ := historyOf(t, store, "later 3")
		return len(last) == 1
	}, "the events are not listed")

	recorder := hstest.Record(client)
	use, next := through(client)
	use(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		const field = `"origin_server_ts":%d`
		from, to := fmt.Sprintf(field, entry.Time.UnixMilli()), fmt.Sprintf(field, entry.Time.Add(5*time.Minute).UnixMilli())
		body = bytes.ReplaceAll(body, []byte(from), []byte(to))
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		return resp, err
	})
	cold := open(t, client, room, roomkv.WithPerKeyState())
	snapshot, err := cold.At(ctx, roomkv.AtRevision(roomkv.Revision(moment)))
	require.NoError(t, err)
	assert.Equal(t, want, pastOf(t, snapshot))
	pages := 0
	for _, request := range recorder.Requests() {
		if strings.HasSuffix(request.Path, "/messages") {
			pages++
		}
	}
	assert.Equal(t, 3, pages, "the first one twice, for it could have been late")

	snapshot, err = cold.At(ctx, roomkv.AtRevision(entry.Revision))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"key": `"new"`}, pastOf(t, snapshot))
	values, _ := historyOf(t, cold, "key")
	assert.Equal(t, []string{`"new"`, `"old"`}, values)
}

// Between two revisions people have talked for longer than any page is, and the homeserver does not say that there is more.
func TestHistoryBeforeMuchTalk(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newStore(t, layout)
		for i := range 3 {
			require.NoError(t, store.Put(t.Context(), "k", i))
		}
		for range 10 {
			_, err := client.SendText(t.Context(), room, "talk")
			require.NoError(t, err)
		}
		require.NoError(t, store.Put(t.Context(), "k", 3))
		use, next := through(client)
		cut := 0
		use(func(req *http.Request) (*http.Response, error) {
			query := req.URL.Query()
			switch {
			case !strings.HasSuffix(req.URL.Path, "/messages"):
			case !query.Has("from"):
				query.Set("limit", "1")
				query.Set("filter", regexp.MustCompile(`"limit":\d+`).ReplaceAllString(query.Get("filter"), `"limit":1`))
				req = req.Clone(req.Context())
				req.URL.RawQuery = query.Encode()
			case strings.Contains(query.Get("filter"), "types"):
				cut++
				return &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{"chunk":[]}`), Request: req}, nil
			}
			return next.RoundTrip(req)
		})
		var values []string
		for revision, err := range store.History(t.Context(), "k") {
			require.NoError(t, err)
			values = append(values, string(revision.Value))
		}
		assert.Equal(t, []string{"3", "2", "1", "0"}, values)
		assert.GreaterOrEqual(t, cut, 2)
	})
}
