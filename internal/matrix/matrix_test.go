package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
)

// decode reads an answer.
func decode(text io.Reader, read func(*Decoder) error) error { return decoded(read)(nil, text) }

func TestDecoder(t *testing.T) {
	var chunk []int
	var end string
	var names []string
	read := Members{
		"chunk": Elements(func(d *Decoder) error {
			var n int
			err := d.Decode(&n)
			chunk = append(chunk, n)
			return err
		}),
		"end":   func(d *Decoder) error { return d.Decode(&end) },
		"names": Objects(func(name string, d *Decoder) error { names = append(names, name); return d.Decode(new(any)) }),
	}.Read
	const text = `{"other":{"chunk":[[{"a":"]"}],{}]},"chunk":[1,2],"names":{"a":1,"b":{"c":2}},"x":null,"end":"e"}`
	require.NoError(t, decode(strings.NewReader(text), read))
	assert.Equal(t, []int{1, 2}, chunk)
	assert.Equal(t, []string{"a", "b"}, names)
	assert.Equal(t, "e", end)
	for _, text := range []string{`null`, `{}`, `{"chunk":null,"end":null,"names":null}`, `{"chunk":[]}`} {
		require.NoError(t, decode(strings.NewReader(text), read), text)
	}
	for i := range len(text) {
		require.ErrorIs(t, decode(strings.NewReader(text[:i]), read), ErrAnswer, text[:i])
	}
	for _, text := range []string{`[]`, `7`, `"chunk"`, `{"chunk":{}}`, `{"chunk":7}`, `{"chunk":["secret"]}`, `{"end":["secret"]}`, `{"names":[]}`, `{"chunk":[1}`, `{x`} {
		err := decode(strings.NewReader(text), read)
		require.ErrorIs(t, err, ErrAnswer, text)
		assert.NotContains(t, err.Error(), "secret")
	}
}

// endless is text without an end, and how much of it was read.
type endless struct {
	begin, again string
	read         int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.begin)
	e.begin = e.begin[n:]
	for n < len(p) {
		n += copy(p[n:], e.again)
	}
	e.read += n
	return n, nil
}

func TestDecoderIsBounded(t *testing.T) {
	read := Members{"chunk": Elements(func(d *Decoder) error { return d.Decode(new(any)) })}.Read
	for _, text := range []*endless{
		{begin: "", again: " "}, {begin: `{"chunk":[`, again: " "}, {begin: `{"`, again: "x"}, {begin: `{"chunk":["`, again: "x"}, {begin: `{"chunk":`, again: "["},
		{begin: `{"x":`, again: "["}, {begin: `{"x":`, again: `{"x":`}, {begin: `{"x":[`, again: "                   "},
	} {
		begin := text.begin
		require.ErrorIs(t, decode(text, read), ErrAnswer, begin)
		assert.LessOrEqual(t, text.read, 3*most, begin)
	}
	// As a whole it is as long as it likes.
	zeros := strings.Repeat(",0", most)
	many := strings.NewReader(`{"chunk":[0` + zeros + `],"x":[0` + zeros + `]}`)
	require.NoError(t, decode(many, read))
}

func TestBodyIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		length, limit int64
		text          string
		want          error
	}{
		"as long as it may be":          {10, 10, "0123456789", nil},
		"without a length":              {-1, 10, "0123456789", nil},
		"longer":                        {11, 10, "0123456789x", mautrix.ErrBodyReadReachedLimit},
		"longer, without a length":      {-1, 10, "0123456789x", mautrix.ErrBodyReadReachedLimit},
		"said to be longer":             {1 << 60, 10, "", mautrix.ErrBodyReadReachedLimit},
		"shorter than it is said to be": {10, 10, "012345678", io.ErrUnexpectedEOF},
	} {
		b := &body{ctx: t.Context(), from: strings.NewReader(test.text), missing: test.length, limit: test.limit, left: test.limit}
		text, err := io.ReadAll(b)
		require.ErrorIs(t, err, test.want, name)
		if test.want == nil {
			assert.Equal(t, test.text, string(text), name)
		}
		assert.Equal(t, err, b.failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &body{ctx: ctx, from: &endless{again: "x"}, missing: -1, limit: 100, left: 100}
	_, err := io.Copy(io.Discard, b)
	require.ErrorIs(t, err, context.Canceled)
}

// No word of a homeserver's is repeated, for it could be a value.
func TestDescribe(t *testing.T) {
	answer := func(status int, err error, resp *mautrix.RespError) error {
		return mautrix.HTTPError{Request: new(http.Request), Response: &http.Response{StatusCode: status}, WrappedError: err, RespError: resp, Message: "failed to read response body"}
	}
	malformed := &url.Error{Op: "Put", URL: "http://x", Err: errors.New(`net/http: malformed HTTP response "secret"`)}
	for want, err := range map[string]error{
		"M_FORBIDDEN (HTTP 403)": answer(403, nil, &mautrix.RespError{ErrCode: "M_FORBIDDEN", Err: "secret"}),
		"HTTP 400":               answer(400, nil, &mautrix.RespError{ErrCode: "the secret", Err: "secret"}),
		"HTTP 502":               answer(502, nil, nil),
		"HTTP 500":               answer(500, mautrix.ErrBodyReadReachedLimit, nil),
		"the answer could not be read: unexpected EOF":  answer(200, io.ErrUnexpectedEOF, nil),
		"no answer: net/http: malformed HTTP response ": mautrix.HTTPError{Request: new(http.Request), WrappedError: malformed},
		"no answer: EOF": fmt.Errorf("wrapped: %w", mautrix.HTTPError{Request: new(http.Request), WrappedError: io.EOF}),
		"another error":  errors.New("another error"),
	} {
		assert.Equal(t, want, Describe(err))
	}
}

type transport func(req *http.Request) (*http.Response, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

// A refusal says nothing of what was sent before, and perhaps stored.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		statuses         []int // 0 for no answer
		refused, inDoubt bool
	}{
		{[]int{403}, true, false}, {[]int{429, 403}, true, false}, {[]int{429, 429, 413}, true, false},
		{[]int{0, 403}, false, true}, {[]int{502, 403}, false, true}, {[]int{500, 429, 403}, false, true}, {[]int{429, 0, 413}, false, true},
		{[]int{500}, false, true}, {[]int{0}, false, true}, {[]int{429}, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "token")
			require.NoError(t, err)
			left := test.statuses
			client.Client.Transport = transport(func(req *http.Request) (*http.Response, error) {
				status := left[0]
				if left = left[min(1, len(left)-1):]; status == 0 {
					return nil, io.EOF
				}
				return &http.Response{StatusCode: status, Request: req, Body: io.NopCloser(strings.NewReader(`{"errcode":"M_UNKNOWN"}`))}, nil
			})
			_, err = Do(t.Context(), Client{Client: client}, Request{Method: http.MethodPut, URL: "http://homeserver.invalid/"})
			require.Error(t, err)
			assert.Equal(t, test.refused, Refused(err), "%v", test.statuses)
			assert.Equal(t, test.inDoubt, InDoubt(err), "%v", test.statuses)
		})
	}
}

// An event that was just acknowledged is found, though the homeserver takes 0.3 seconds before it finds it, or as long as the caller waits. One that is
// not there is given up soon.
func TestGetEventThatComesLate(t *testing.T) {
	for _, tt := range []struct {
		late, within time.Duration
		found        bool
	}{
		{0, 0, true}, {300 * time.Millisecond, 0, true}, {time.Minute, 0, false}, {2 * time.Second, 0, false}, {2 * time.Second, 3 * time.Second, true}, {time.Minute, 3 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "token")
			require.NoError(t, err)
			began := time.Now()
			client.Client.Transport = transport(func(req *http.Request) (*http.Response, error) {
				status, text := http.StatusNotFound, `{"errcode":"M_NOT_FOUND"}`
				if time.Since(began) >= tt.late {
					status, text = http.StatusOK, `{"event_id":"$event"}`
				}
				return &http.Response{StatusCode: status, Request: req, Body: io.NopCloser(strings.NewReader(text))}, nil
			})
			_, err = Room{Client: Client{Client: client}, ID: "!room"}.GetEvent(t.Context(), "$event", tt.within)
			assert.Equal(t, tt.found, err == nil, "%v", err)
			assert.Less(t, time.Since(began), tt.within+time.Second)
		})
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte(`{"chunk":[1,{"a":[]}],"x":{"y":[[]]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		err := decode(bytes.NewReader(text), Members{"chunk": Elements(func(d *Decoder) error {
			n++
			return d.Decode(new(any))
		})}.Read)
		if err != nil && !errors.Is(err, ErrAnswer) {
			t.Fatal(err)
		}
	})
}
