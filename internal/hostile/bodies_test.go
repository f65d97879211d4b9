package hostile_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// eventOf is a state event of the store's type, under the state key that is asked for.
func eventOf(content string) string {
	return `{"event_id":"$evil","type":"` + roomkv.DefaultEventType + `","state_key":STATEKEY,"sender":"@a:b","origin_server_ts":1,"content":` + content + `}`
}

func syncOf(events string) string {
	return `{"rooms":{"join":{"ROOM":{"state":{"events":` + events + `},"timeline":{"events":` + events + `}}}}}`
}

var deep = strings.Repeat(`[`, 20_000)

var every = flag.Bool("every", false, "try everything with everything, which takes an hour")

// bodies are what no homeserver should answer.
var bodies = []string{
	``, ` `, `null`, `7`, `"x"`, `[]`, `{}`, `{`, `[`, `"`, `{"a":`, deep, `{"rooms":` + deep, "\x00", "\xff\xfe", `<html>captive portal</html>`, `[null]`, `[7]`, `[[]]`, `[{}]`,
	`{"event_id":7}`, `{"event_id":"$e"}`, `{"content":null}`, `{"rooms":7}`, `{"rooms":null}`, `{"rooms":[]}`, `{"joined_rooms":7}`, `{"joined_rooms":[]}`,
	`{"chunk":7}`, `{"chunk":null}`, `{"chunk":[null]}`, `{"chunk":[7]}`, `{"chunk":[{}],"end":"x"}`, `{"chunk":[],"end":7}`, `{"chunk":` + deep,
	eventOf(`null`), eventOf(`"k"`), eventOf(`[{"k":1}]`), eventOf(`7`), eventOf(`{}`), eventOf(`{"there":{"encrypted_val":[]}}`), eventOf(`{"there":{"encrypted_val":"$evil"}}`),
	eventOf(`{"there":` + deep), eventOf(`{"there":{"media_val":{"size":-1}}}`), eventOf(`{"users":{"@bot:example.org":"x"}}`), eventOf(`{"algorithm":7}`),
	eventOf(`{"replacement_room":7}`), eventOf(`{"replacement_room":"ROOM"}`), eventOf(`{"roomkv.parents":{"events":["$evil"]},"there":1}`),
	`{"event_id":"$e","content":{"there":1},"origin_server_ts":"soon"}`,
	syncOf(`null`), syncOf(`[null]`), syncOf(`[7]`), syncOf(`[{}]`), syncOf(`[` + eventOf(`"k"`) + `]`), syncOf(`[` + eventOf(`null`) + `]`),
	`{"rooms":{"join":{"ROOM":null}}}`, `{"m.upload.size":-1}`, `{"m.upload.size":1e300}`, `{"start":7,"events_before":7}`, `{"users":7}`,
}

// endpoint is what a request asks for, whatever the room, the key or the event.
func endpoint(req *http.Request) string {
	path := strings.TrimPrefix(req.URL.Path, "/_matrix/")
	for _, id := range identifiers {
		path = id.ReplaceAllString(path, "*")
	}
	return req.Method + " " + path
}

var identifiers = []*regexp.Regexp{
	regexp.MustCompile(`![^/]*`), regexp.MustCompile(`\$[^/]*`), regexp.MustCompile(`@[^/]*`), regexp.MustCompile(`mautrix-go_[^/]*`),
	regexp.MustCompile(roomkv.DefaultEventType + `/.*`), regexp.MustCompile(`example.org/.*`),
}

// isCrypto tells whether the client's Crypto asks there, by itself and as the client does.
func isCrypto(at string) bool {
	return strings.Contains(at, "client/v3/keys/") || strings.Contains(at, "/sendToDevice/")
}

// endpoints are those that an operation asks.
func endpoints(t *testing.T, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) (found []string) {
	h, store := memory().open(t)
	var seen sync.Map
	h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
		seen.Store(endpoint(req), true)
		return homeserver(req)
	}
	require.NoError(t, do(t.Context(), store))
	seen.Range(func(at, _ any) bool {
		found = append(found, at.(string))
		return true
	})
	return found
}

// Whatever a homeserver answers, and to whichever request, nothing panics, and every operation ends.
func TestHostileBodies(t *testing.T) {
	eachOperation(t, func(t *testing.T, kind string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) {
		for _, at := range append(endpoints(t, memory, do), "all") {
			for i, body := range bodies {
				step := 7
				if kind != "single" && kind != "perkey" { // these take longer
					step = 31
				}
				if !*every && (i+len(at))%step != 0 {
					continue
				}
				h, store := memory().open(t)
				h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
					if at != "all" && at != endpoint(req) {
						return homeserver(req)
					}
					_, stateKey, _ := strings.Cut(req.URL.Path, "/state/"+roomkv.DefaultEventType+"/")
					return saying(req, 200, nil, strings.NewReplacer("STATEKEY", strconv.Quote(stateKey), "ROOM", h.room.String()).Replace(body)), nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				err := do(ctx, store)
				assert.NoError(t, ctx.Err(), "%s, %.60s: %v", at, body, err)
				cancel()
			}
		}
	})
}

// filler is what a body is filled with, again and again.
type filler struct{ begin, again string }

var fillers = map[string]filler{
	"spaces":         {"", strings.Repeat(" ", 1024)},
	"a text":         {`{"a":"`, strings.Repeat("x", 1024)},
	"an event":       {`{"event_id":"$e","content":{"a":"`, strings.Repeat("x", 1024)},
	"brackets":       {"", strings.Repeat("[", 1024)},
	"skipped":        {`{"a":`, strings.Repeat("[", 1024)},
	"names":          {`{`, strings.Repeat(`"a":1,`, 200)},
	"nulls":          {`[`, strings.Repeat(`null,`, 200)},
	"null events":    {`{"chunk":[`, strings.Repeat(`null,`, 200)},
	"small events":   {`{"chunk":[`, strings.Repeat(`{"event_id":"$a","type":"`+roomkv.DefaultEventType+`","state_key":""},`, 20)},
	"members":        {`{"chunk":[`, strings.Repeat(`{"type":"m.room.member","state_key":"@a:b","content":{"membership":"join"}},`, 20)},
	"a large event":  {`{"chunk":[{"event_id":"$a","content":{"a":"`, strings.Repeat("x", 1024)},
	"large events":   {`{"chunk":[`, `{"event_id":"$a","type":"` + roomkv.DefaultEventType + `","state_key":"","content":{"a":"` + strings.Repeat("x", 60_000) + `"}},`},
	"the state":      {`[`, strings.Repeat(`{"event_id":"$a","type":"`+roomkv.DefaultEventType+`","state_key":"KEY","content":{"there":1}},`, 10)},
	"the whole sync": {`{"rooms":{"join":{"ROOM":{"state":{"events":[`, strings.Repeat(`{"event_id":"$a","type":"`+roomkv.DefaultEventType+`","state_key":"KEY","content":{"there":1}},`, 10)},
	"another room":   {`{"rooms":{"join":{"!x:y":{"state":{"events":[`, strings.Repeat(`{"event_id":"$a","type":"`+roomkv.DefaultEventType+`","state_key":"KEY","content":{"there":1}},`, 10)},
	"rooms":          {`{"joined_rooms":[`, strings.Repeat(`"",`, 300)},
}

// size is how large such bodies are, in bytes.
const size = 500 << 20

// fill writes a body. Each state key is another one.
func (f filler) fill(w io.Writer, req *http.Request) {
	if _, err := io.WriteString(w, strings.Replace(f.begin, "ROOM", roomOf(req), 1)); err != nil {
		return
	}
	for n, i := 0, 0; n < size; i++ {
		again := f.again
		for strings.Contains(again, "KEY") {
			i++
			again = strings.Replace(again, "KEY", strconv.Itoa(i), 1)
		}
		written, err := io.WriteString(w, again)
		if n += written; err != nil {
			return
		}
	}
}

// roomOf is the room that a sync is about.
func roomOf(req *http.Request) string {
	_, rest, _ := strings.Cut(req.URL.Query().Get("filter"), `"rooms":["`)
	room, _, _ := strings.Cut(rest, `"`)
	return room
}

// bomb is the same body, compressed to much less: gzip reads what several of its streams have as one.
func (f filler) bomb() func(req *http.Request) []byte {
	var part bytes.Buffer
	compress := func(to *bytes.Buffer, text string, times int) {
		w := gzip.NewWriter(to)
		for i := range times {
			_, _ = io.WriteString(w, strings.ReplaceAll(text, "KEY", strconv.Itoa(i)))
		}
		_ = w.Close()
	}
	times := (8 << 20) / len(f.again)
	compress(&part, f.again, times)
	return func(req *http.Request) []byte {
		var whole bytes.Buffer
		compress(&whole, strings.Replace(f.begin, "ROOM", roomOf(req), 1), 1)
		for n := 0; n < size; n += times * len(f.again) {
			whole.Write(part.Bytes())
		}
		return whole.Bytes()
	}
}

// grown is how much the heap grows at most while do runs, in bytes, with what is garbage and not collected yet.
func grown(do func()) uint64 {
	runtime.GC()
	heap := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before := heap()
	most := before
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			most = max(most, heap())
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	do()
	close(done)
	<-stopped
	return most - before
}

// A homeserver on the wire can answer with any number of bytes, or with few that are many when they are decompressed. Neither takes
// memory, nor keeps anybody beyond his deadline.
func TestHugeBodies(t *testing.T) {
	const deadline, late, heap = 2 * time.Second, time.Second, 64 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	var serve atomic.Pointer[http.Handler]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { (*serve.Load()).ServeHTTP(w, req) }))
	defer server.Close()
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	answers := map[string]http.HandlerFunc{}
	for name, filler := range fillers {
		answers[name] = func(w http.ResponseWriter, req *http.Request) { filler.fill(w, req) }
		bomb := filler.bomb()
		answers[name+", compressed"] = func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb(req))
		}
	}
	answers["a length without a body"] = func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(math.MaxInt32))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
	}
	answers["drops without an end"] = func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, kind := range []string{"single", "perkey", "encrypted single", "powerless"} {
		for operation, do := range operations {
			t.Run(kind+"/"+operation, func(t *testing.T) {
				var asked []string
				synctest.Test(t, func(t *testing.T) {
					t.Cleanup(func() { time.Sleep(time.Hour) })
					asked = endpoints(t, newMemories[kind], do) // the process remembers those that it has used in real time, which is later
				})
				// The client's Crypto makes requests of its own, which are bounded by the client's ResponseSizeLimit alone.
				asked = slices.DeleteFunc(asked, isCrypto)
				slices.Sort(asked)
				for i, name := range slices.Sorted(maps.Keys(answers)) {
					if n := i + len(t.Name()); !*every && n%58 != 0 {
						continue
					}
					answer, wanted := answers[name], asked[i%len(asked)]
					memory := memories[kind]()
					h := memory.homeserver.copy()
					client, err := memory.client(t.Context(), h)
					require.NoError(t, err)
					var hostile http.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
						if endpoint(req) == wanted {
							answer(w, req)
							return
						}
						h.mux.ServeHTTP(w, req)
					})
					serve.Store(&hostile)
					client.HomeserverURL, client.Client = at, server.Client()
					client.DefaultHTTPBackoff = time.Millisecond
					store := open(t, client, memory.options...)
					ctx, cancel := context.WithTimeout(t.Context(), deadline)
					began := time.Now()
					more := grown(func() { err = do(ctx, store) })
					took := time.Since(began)
					cancel()
					assert.Less(t, took, deadline+late, "%s: %s: %v", wanted, name, err)
					assert.Less(t, more, uint64(heap), "%s: %s: %v", wanted, name, err)
				}
			})
		}
	}
}

// A homeserver can list events without an end.
func TestEndlessPages(t *testing.T) {
	kinds := map[string]func(n int) string{
		"nothing":        func(int) string { return "" },
		"a talk":         func(n int) string { return fmt.Sprintf(`{"event_id":"$t%d","type":"m.room.message","content":{}}`, n) },
		"the same event": func(int) string { return strings.ReplaceAll(eventOf(`{"there":7}`), "STATEKEY", `"there"`) },
		"ever new events": func(n int) string {
			return fmt.Sprintf(`{"event_id":"$n%d","type":%q,"state_key":"","sender":"@a:b","origin_server_ts":%d,"content":{"there":%d}}`, n, roomkv.DefaultEventType, 1_700_000_000_000-n, n)
		},
		"of large tokens": func(int) string { return "" },
	}
	eachOperation(t, func(t *testing.T, kind string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) {
		for name, event := range kinds {
			if !*every && kind != "perkey" && (len(t.Name())+len(name))%8 != 0 {
				continue
			}
			h, store := memory().open(t)
			pages := 0
			h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
				if !strings.HasSuffix(req.URL.Path, "/messages") {
					return homeserver(req)
				}
				pages++
				token := strconv.Itoa(pages)
				if name == "of large tokens" {
					token = strings.Repeat("x", 10_000) + token
				}
				text, err := json.Marshal(token)
				return saying(req, 200, nil, `{"chunk":[`+event(pages)+`],"end":`+string(text)+`}`), err
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			err := do(ctx, store)
			assert.NoError(t, ctx.Err(), "%s: %v", name, err)
			assert.LessOrEqual(t, pages, 12_000, name)
			cancel()
		}
	})
}
