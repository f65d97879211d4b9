package roomkv_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// eachRoom runs a test with one state event and with one for each key, in a room that is encrypted and in one that is not.
func eachRoom(t *testing.T, test func(t *testing.T, encrypted bool, layout roomkv.Option)) {
	for _, layout := range []string{"single", "perkey"} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("layout=%s/encrypted=%v", layout, encrypted), func(t *testing.T) { test(t, encrypted, layouts[layout]) })
		}
	}
}

func newIn(t testing.TB, encrypted bool, opts ...roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID) {
	t.Helper()
	if encrypted {
		return newEncrypted(t, opts...)
	}
	return newStore(t, opts...)
}

// text is a value of that many bytes, unlike others.
func text(size int, seed byte) string {
	return strings.Repeat("secret: "+string('a'+rune(seed%26)), size/9+1)[:size]
}

// uploads are the requests that brought something to the media repository.
func uploads(recorder *hstest.Recorder) (n int) {
	for _, request := range recorder.Requests() {
		if request.Method == http.MethodPost && strings.HasSuffix(request.Path, "/upload") {
			n++
		}
	}
	return n
}

// allState is the memory's state as one text.
func allState(t testing.TB, client *mautrix.Client, room id.RoomID) string {
	t.Helper()
	text, err := json.Marshal(memoryState(t, client, room))
	require.NoError(t, err)
	return string(text)
}

func TestLargeValuesComeBack(t *testing.T) {
	hstest.Parallel(t)
	eachRoom(t, func(t *testing.T, encrypted bool, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newIn(t, encrypted, layout)
		recorder := hstest.Record(client)
		values := map[string]any{
			"floats": make([]float64, 30_000), "nested": map[string]any{"a": text(50_000, 1), "b": []any{nil, 1.5}},
			"marker": map[string]string{"json_val": text(80_000, 2)}, "escaped": strings.Repeat("<&>\"", 20_000),
		}
		for i, size := range []int{1, 44_000, 45_100, 49_200, 65_600, 1_000_000} {
			values[fmt.Sprint("text ", size)] = text(size, byte(i))
		}
		for key, value := range values {
			require.NoError(t, store.Put(ctx, key, value), key)
		}
		want := map[string]string{}
		for key, value := range values {
			encoded, err := json.Marshal(value)
			require.NoError(t, err)
			want[key] = string(encoded)
		}
		for _, reader := range []*roomkv.Store{store, open(t, client, room, layout)} {
			got := memoryOf(t, reader)
			require.Len(t, got, len(want))
			for key := range want {
				assert.JSONEq(t, want[key], got[key], key)
			}
			var long string
			require.NoError(t, reader.Get(ctx, "text 1000000", &long))
			assert.Equal(t, values["text 1000000"], long)
		}
		state := allState(t, client, room)
		assert.Equal(t, !encrypted, strings.Contains(state, "media_val"))
		if encrypted {
			assert.Empty(t, clearNames(t, client, room))
		}
		for _, request := range recorder.Requests() {
			if encrypted || strings.HasSuffix(request.Path, "/upload") {
				assert.NotContains(t, string(request.Body), "secret")
			}
		}

		// What is there already is not sent again, whoever of this process's stores has read it.
		recorder.Reset()
		before := allState(t, client, room)
		require.NoError(t, store.Put(ctx, "text 1000000", values["text 1000000"]))
		assert.Zero(t, uploads(recorder))
		if _, single := dictStateKey(t, client, room); single || !encrypted {
			assert.Equal(t, before, allState(t, client, room))
		}
		require.NoError(t, store.Put(ctx, "text 1000000", "small"))
		require.NoError(t, store.Delete(ctx, "text 65600"))
		memory := memoryOf(t, open(t, client, room, layout))
		assert.Equal(t, `"small"`, memory["text 1000000"])
		assert.Len(t, memory, len(values)-1)
	})
}

// Whatever changes a value by what it was can do so with a large one, in a batch too.
func TestLargeValuesChange(t *testing.T) {
	hstest.Parallel(t)
	eachRoom(t, func(t *testing.T, encrypted bool, layout roomkv.Option) {
		ctx := t.Context()
		store, _, _ := newIn(t, encrypted, layout)
		require.NoError(t, store.Create(ctx, "k", []string{text(100_000, 0)}))
		require.ErrorIs(t, store.Create(ctx, "k", []string{text(100_000, 0)}), roomkv.ErrExists)
		var group sync.WaitGroup
		for i := range 5 {
			group.Go(func() {
				assert.NoError(t, roomkv.Update(ctx, store, "k", func(old []string, _ bool) ([]string, error) {
					return append(old, fmt.Sprint(i)), nil
				}))
			})
		}
		group.Wait()
		entry, err := store.Entry(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, store.CompareAndPut(ctx, "k", []string{text(200_000, 1)}, entry.Revision))
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", []string{text(200_000, 2)}, entry.Revision), roomkv.ErrConflict)
		var got []string
		require.NoError(t, store.Pop(ctx, "k", &got))
		assert.Equal(t, []string{text(200_000, 1)}, got)
		require.ErrorIs(t, store.Get(ctx, "k", &got), roomkv.ErrNotFound)
	})
}

// through makes a client's requests go through what the test says, which may change.
func through(client *mautrix.Client) (use func(roundTripper), next http.RoundTripper) {
	next = cmp.Or(client.Client.Transport, http.DefaultTransport)
	var now atomic.Value // of a roundTripper; a write goes on when its caller has left
	now.Store(roundTripper(next.RoundTrip))
	changed := *client.Client
	changed.Transport = roundTripper(func(req *http.Request) (*http.Response, error) { return now.Load().(roundTripper)(req) })
	client.Client = &changed
	return func(transport roundTripper) { now.Store(transport) }, next
}

// isDownload tells whether a request is one, of today's kind or of that before.
func isDownload(req *http.Request) bool {
	return strings.Contains(req.URL.Path, "/media/") && strings.Contains(req.URL.Path, "/download/")
}

// Whichever request fails, so does the write, and nothing has changed. What was uploaded for it is not uploaded again.
func TestFailedWriteOfALargeValue(t *testing.T) {
	hstest.Parallel(t)
	eachRoom(t, func(t *testing.T, encrypted bool, layout roomkv.Option) {
		store, client, room := newIn(t, encrypted, layout)
		require.NoError(t, store.Put(t.Context(), "key", text(70_000, 0)))
		recorder := hstest.Record(client)
		use, next := through(client)
		paths := []string{"/upload", memoryPath}
		if encrypted {
			paths = []string{"/upload", "/send/m.room.encrypted/", memoryPath}
		}
		before := allState(t, client, room)
		for i, path := range paths {
			refused := errors.New("refused by the test")
			use(func(req *http.Request) (*http.Response, error) {
				if strings.Contains(req.URL.Path, path) && req.Method != http.MethodGet {
					return nil, refused
				}
				return next.RoundTrip(req)
			})
			recorder.Reset()
			err := store.Put(mautrix.WithMaxRetries(t.Context(), 0), "key", text(70_000, 1))
			require.ErrorIs(t, err, refused, path)
			assert.NotContains(t, err.Error(), "secret")
			assert.Equal(t, before, allState(t, client, room), path)
			if i == 1 {
				assert.Equal(t, 1, uploads(recorder), path)
			} else {
				assert.Zero(t, uploads(recorder), path)
			}
		}
		use(next.RoundTrip)
		recorder.Reset()
		assert.Equal(t, map[string]string{"key": fmt.Sprintf("%q", text(70_000, 0))}, memoryOf(t, open(t, client, room, layout)))
		require.NoError(t, store.Put(t.Context(), "key", text(70_000, 1)))
		assert.Zero(t, uploads(recorder))
		assert.Equal(t, map[string]string{"key": fmt.Sprintf("%q", text(70_000, 1))}, memoryOf(t, open(t, client, room, layout)))
	})
}

// What comes in place of an attachment is not believed, and neither is what is said of it.
func TestDamagedAttachment(t *testing.T) {
	hstest.Parallel(t)
	eachRoom(t, func(t *testing.T, encrypted bool, layout roomkv.Option) {
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		store, client, room := newIn(t, encrypted, layout)
		require.NoError(t, store.Put(ctx, "key", text(70_000, 0)))
		use, next := through(client)
		answer := func(change func(resp *http.Response, body []byte) []byte) {
			use(func(req *http.Request) (*http.Response, error) {
				resp, err := next.RoundTrip(req)
				if err != nil || !isDownload(req) {
					return resp, err
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body = readCloser(string(change(resp, body)))
				return resp, err
			})
		}
		for what, test := range map[string]struct {
			change func(resp *http.Response, body []byte) []byte
			want   error
		}{
			"a flipped bit":        {func(_ *http.Response, body []byte) []byte { body[len(body)/2] ^= 1; return body }, roomkv.ErrCorrupt},
			"cut":                  {func(_ *http.Response, body []byte) []byte { return body[:100] }, io.ErrUnexpectedEOF},
			"cut, length unknown":  {func(resp *http.Response, body []byte) []byte { resp.ContentLength = -1; return body[:100] }, roomkv.ErrCorrupt},
			"long, length unknown": {func(resp *http.Response, body []byte) []byte { resp.ContentLength = -1; return append(body, 0) }, roomkv.ErrCorrupt},
			"another length":       {func(resp *http.Response, body []byte) []byte { resp.ContentLength = 1 << 40; return body }, roomkv.ErrCorrupt},
			"gone": {func(resp *http.Response, _ []byte) []byte {
				resp.StatusCode = http.StatusNotFound
				return []byte(`{"errcode":"M_NOT_FOUND","error":"secret"}`)
			}, roomkv.ErrMissingMedia},
		} {
			answer(test.change)
			err := store.Get(ctx, "key", new(any))
			require.ErrorIs(t, err, test.want, what)
			assert.ErrorContains(t, err, "mxc://", what)
			assert.NotContains(t, err.Error(), "secret", what)
			if what == "a flipped bit" {
				assert.ErrorContains(t, err, "event $")
			}
			keys, err := store.Keys(ctx)
			require.NoError(t, err)
			assert.Equal(t, []string{"key"}, keys)
		}
		require.NoError(t, store.Put(ctx, "key", text(70_000, 0)), "what cannot be read is replaced, also by the same value")
		use(next.RoundTrip)
		assert.Equal(t, map[string]string{"key": fmt.Sprintf("%q", text(70_000, 0))}, memoryOf(t, open(t, client, room, layout)))
	})
}

// A user with the power to send state says how large an attachment is, and where.
func TestHostileReference(t *testing.T) {
	ctx := t.Context()
	store, client, room := newStore(t, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "key", text(70_000, 0)))
	var stored struct {
		Key map[string]map[string]any `json:"key"`
	}
	require.NoError(t, json.Unmarshal([]byte(rawState(t, client, room, database, "key")), &stored))
	for what, test := range map[string]struct {
		field string
		value any
		want  error
	}{
		"huge":             {"size", 1 << 50, roomkv.ErrTooLarge},
		"larger":           {"size", 40_000_000, roomkv.ErrCorrupt},
		"smaller":          {"size", 69_999, roomkv.ErrCorrupt},
		"negative":         {"size", -1, roomkv.ErrCorrupt},
		"none":             {"size", 0, roomkv.ErrCorrupt},
		"text":             {"size", "70002", roomkv.ErrCorrupt},
		"no mxc":           {"url", "https://example.org/x", roomkv.ErrCorrupt},
		"a path":           {"url", "mxc://../../../x", roomkv.ErrCorrupt},
		"another hash":     {"hashes", map[string]string{"sha256": strings.Repeat("A", 43)}, roomkv.ErrCorrupt},
		"no hash":          {"hashes", map[string]string{}, roomkv.ErrCorrupt},
		"another version":  {"v", "v1", roomkv.ErrCorrupt},
		"another iv":       {"iv", "AAAAAAAAAAAAAAAAAAAAAA", roomkv.ErrCorrupt},
		"a key of nothing": {"key", map[string]any{"alg": "A256CTR", "k": ""}, roomkv.ErrCorrupt},
	} {
		media := maps.Clone(stored.Key["media_val"])
		media[test.field] = test.value
		_, err := client.SendStateEvent(ctx, room, database, "key", map[string]any{"key": map[string]any{"media_val": media}})
		require.NoError(t, err, what)
		grown := peak(func() {
			err = store.Get(ctx, "key", new(any))
		})
		require.ErrorIs(t, err, test.want, what)
		assert.ErrorContains(t, err, `"key"`, what)
		assert.Less(t, grown, uint64(20_000_000), what)
	}
}

func TestMaxValue(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t, roomkv.WithMaxValue(200_000))
	require.NoError(t, store.Put(ctx, "key", text(190_000, 0)))
	recorder := hstest.Record(client)
	err := store.PutAll(ctx, map[string]any{"a": text(100_000, 0), "key": text(200_000, 0)})
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.ErrorContains(t, err, "200002 bytes")
	assert.ErrorContains(t, err, "200000")
	assert.Zero(t, uploads(recorder))
	require.ErrorIs(t, open(t, client, room, roomkv.WithMaxValue(100_000)).Get(ctx, "key", new(any)), roomkv.ErrTooLarge)

	small := open(t, client, room, roomkv.WithMaxValue(100))
	require.ErrorIs(t, small.Put(ctx, "inline", text(101, 0)), roomkv.ErrTooLarge, "also of what stays in the state")
	require.ErrorIs(t, roomkv.Update(ctx, small, "inline", func(string, bool) (string, error) { return text(101, 0), nil }), roomkv.ErrTooLarge)
	require.NoError(t, small.Put(ctx, "inline", text(90, 0)))

	config, err := client.GetMediaConfig(ctx)
	require.NoError(t, err)
	require.NotZero(t, config.UploadSize)
	recorder.Reset()
	unlimited := open(t, client, room)
	err = unlimited.Put(ctx, "key", strings.Repeat("x", int(config.UploadSize)))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.ErrorContains(t, err, fmt.Sprint(config.UploadSize))
	assert.Zero(t, uploads(recorder))
	got, err := roomkv.Get[string](ctx, unlimited, "key")
	require.NoError(t, err)
	assert.Equal(t, text(190_000, 0), got, "the old value is as it was")
	_, err = roomkv.New(client, room.String(), roomkv.WithMaxValue(-1))
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
}

// An attachment that the homeserver does not get from another one, or does not give, is one value that is missing.
func TestAttachmentThatIsNotGiven(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 1, "large": text(60_000, 0), "z": 2}))
	use, next := through(client)
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusBadGateway, http.StatusGatewayTimeout} {
		use(func(req *http.Request) (*http.Response, error) {
			if !isDownload(req) {
				return next.RoundTrip(req)
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode": "M_UNKNOWN", "error": "from a test"}`))}, nil
		})
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		require.ErrorIs(t, store.Get(ctx, "large", new(any)), roomkv.ErrMissingMedia, status)
		copied, err := roomkv.Copy(ctx, open(t, client, hstest.Room(t, client)), store)
		require.ErrorIs(t, err, roomkv.ErrMissingMedia, status)
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 2, Unreadable: 1}, copied, status)
	}
}

// A homeserver from before authenticated media has neither of its endpoints.
func TestOldMediaRepository(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	use, next := through(client)
	use(func(req *http.Request) (*http.Response, error) {
		if !strings.HasPrefix(req.URL.Path, "/_matrix/client/v1/media/") {
			if isDownload(req) { // Synapse has no such thing any more
				req = req.Clone(req.Context())
				req.URL.Path = strings.Replace(req.URL.Path, "/_matrix/media/v3/", "/_matrix/client/v1/media/", 1)
			}
			return next.RoundTrip(req)
		}
		return &http.Response{StatusCode: http.StatusNotFound, Request: req, Body: readCloser(`{"errcode":"M_UNRECOGNIZED"}`)}, nil
	})
	require.NoError(t, store.Put(t.Context(), "key", text(70_000, 0)))
	got, err := roomkv.Get[string](t.Context(), store, "key")
	require.NoError(t, err)
	assert.Equal(t, text(70_000, 0), got)
}

// Where a dict gets full, new values go to the media repository, the largest first. What is there stays there.
func TestFullDictTakesNoLargeValues(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t)
	want := map[string]string{}
	put := func(key string, size int) {
		t.Helper()
		require.NoError(t, store.Put(ctx, key, text(size, 0)), key)
		want[key] = fmt.Sprintf("%q", text(size, 0))
	}
	inline := func() (names []string) {
		var dict map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(rawState(t, client, room, database, "")), &dict))
		for name, stored := range dict {
			if !strings.HasPrefix(string(stored), `{"media_val"`) && !strings.HasPrefix(name, "roomkv.") {
				names = append(names, name)
			}
		}
		return names
	}
	_, err := client.SendStateEvent(ctx, room, database, "", map[string]any{"large": text(30_000, 0), "small": 1}) // opsdroid's
	require.NoError(t, err)
	want["large"], want["small"] = fmt.Sprintf("%q", text(30_000, 0)), "1"
	put("medium", 16_000)
	assert.ElementsMatch(t, []string{"large", "small", "medium"}, inline())
	put("another", 3_000)
	assert.ElementsMatch(t, []string{"large", "small", "medium"}, inline())
	put("some", 1_500)
	assert.ElementsMatch(t, []string{"large", "small", "medium", "some"}, inline(), "there is room for small values")
	assert.Equal(t, want, memoryOf(t, open(t, client, room)))

	recorder := hstest.Record(client)
	require.NoError(t, store.Put(ctx, "another", text(3_000, 0)), "it is there")
	assert.Zero(t, uploads(recorder))
	assert.False(t, slices.ContainsFunc(recorder.Requests(), func(r hstest.Request) bool { return r.Method == http.MethodPut }))

	put("medium", 20_000) // which replaces the one that was in the state
	assert.ElementsMatch(t, []string{"large", "small", "some"}, inline())
	all := map[string]any{}
	for i := range 9 {
		key := fmt.Sprint("of many ", i)
		all[key] = text(20_000+i, 0)
		want[key] = fmt.Sprintf("%q", text(20_000+i, 0))
	}
	require.NoError(t, store.PutAll(ctx, all))
	assert.Equal(t, want, memoryOf(t, open(t, client, room)))
	require.NoError(t, roomkv.Update(ctx, store, "small", func(old int, _ bool) (int, error) { return old + 1, nil }))
	require.NoError(t, store.Delete(ctx, "large"))
	want["small"] = "2"
	delete(want, "large")
	put("medium", 20_001)
	assert.Contains(t, inline(), "medium", "there is room again")
	assert.Equal(t, want, memoryOf(t, open(t, client, room)))
}

// Many small values do not fit, in whatever form. None of those that were acknowledged is lost.
func TestTooManySmallValues(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t)
	recorder := hstest.Record(client)
	all := map[string]any{}
	for i := range 2000 {
		all[fmt.Sprint("key ", i)] = text(198, byte(i))
	}
	want := map[string]string{}
	err := store.PutAll(ctx, all)
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.Empty(t, memoryOf(t, store))
	for i := 0; i < 2000; i += 25 {
		some, encoded := map[string]any{}, map[string]string{}
		for j := range 25 {
			key := fmt.Sprint("key ", i+j)
			some[key], encoded[key] = all[key], fmt.Sprintf("%q", all[key])
		}
		if err = store.PutAll(ctx, some); err != nil {
			break
		}
		maps.Copy(want, encoded)
	}
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.ErrorContains(t, err, "WithPerKeyState")
	assert.ErrorContains(t, err, "Copy")
	assert.Greater(t, len(want), 250)
	assert.Equal(t, want, memoryOf(t, open(t, client, room)))
	assert.Zero(t, uploads(recorder))
}

// Writers who fill a dict at the same time lose nothing. Values of 5 KB fit beside each other whoever comes first.
func TestLargeValuesBesideManyWriters(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	_, client, room := newStore(t)
	want := map[string]string{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for w := range 3 {
		store := open(t, client, room) // each knows nothing of the others, as if they were processes
		group.Go(func() {
			for i := range 4 {
				key, value := fmt.Sprint("shared ", w%2), text([]int{10, 60_000, 4_000, 5_000}[(w+i)%4]+w*10+i, byte(w))
				if i%2 == 0 {
					key = fmt.Sprintf("own %d %d", w, i)
				}
				if !assert.NoError(t, store.Put(ctx, key, value)) {
					return
				}
				mu.Lock()
				want[key] = ""
				if i%2 == 0 {
					want[key] = fmt.Sprintf("%q", value)
				}
				mu.Unlock()
				assert.NoError(t, roomkv.Update(ctx, store, "count", func(n int, _ bool) (int, error) { return n + 1, nil }))
			}
		})
	}
	group.Wait()
	want["count"] = "12"
	got := memoryOf(t, open(t, client, room))
	assert.Len(t, got, len(want))
	for key, value := range want {
		assert.Contains(t, got, key)
		if value != "" {
			assert.Equal(t, value, got[key], key)
		}
	}
}

// An Update that does not fit beside what others wrote at the same time is made once, and so is theirs.
func TestUpdateWhileOthersFillTheDict(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	r := newRivals(t, layouts["single"])
	require.NoError(t, r.other.Put(ctx, "list", text(5_000, 0)))
	require.NoError(t, r.store.Get(ctx, "list", new(any)))
	interrupt(r.client, func(n int) {
		if n == 0 {
			assert.NoError(t, r.other.Put(ctx, "a", text(25_000, 1)))
			assert.NoError(t, r.other.Put(ctx, "b", text(25_000, 2)))
		}
	}, nil)
	require.NoError(t, roomkv.Update(ctx, r.store, "list", func(list string, _ bool) (string, error) { return list + text(15_000, 3), nil }))
	want := map[string]string{"list": text(5_000, 0) + text(15_000, 3), "a": text(25_000, 1), "b": text(25_000, 2)}
	for key, value := range want {
		want[key] = fmt.Sprintf("%q", value)
	}
	assert.Equal(t, want, memoryOf(t, open(t, again(t, r.client), r.room)))
}

// In the clear the state shows the keys to attachments, so that encryption takes others.
func TestEncryptAllUploadsAgain(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		hstest.Crypto(t, client)
		room := hstest.Room(t, client)
		store := open(t, client, room, layout)
		require.NoError(t, store.PutAll(ctx, map[string]any{"large": text(70_000, 0), "medium": text(47_000, 0), "small": 1}))
		_, err := client.SendStateEvent(ctx, room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
		require.NoError(t, err)
		want := memoryOf(t, store)
		recorder := hstest.Record(client)
		n, err := store.EncryptAll(ctx)
		require.NoError(t, err)
		assert.Equal(t, 3, n)
		assert.Equal(t, 2, uploads(recorder))
		assert.Empty(t, clearNames(t, client, room))
		assert.NotContains(t, allState(t, client, room), "media_val")
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout)))
		n, err = store.EncryptAll(ctx)
		require.NoError(t, err)
		assert.Zero(t, n)

		sealed := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
		_, err = sealed.EncryptAll(ctx)
		require.NoError(t, err)
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout, roomkv.WithSealedKeys(secret))))
		recorder.Reset()
		keys, err := sealed.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"large", "medium", "small"}, keys)
		for _, request := range recorder.Requests() {
			assert.NotContains(t, request.Path, "/download/")
		}
	})
}
