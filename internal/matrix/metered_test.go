package matrix

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/meter"
)

// All that crosses the wire is counted, in both directions, and once, also what is made again and what a redirect takes.
func TestMetered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "token")
		require.NoError(t, err)
		var wire meter.Counts
		client.Client.Transport = transport(func(req *http.Request) (*http.Response, error) {
			wire.Requests++
			if req.Body != nil {
				text, err := io.ReadAll(req.Body)
				require.NoError(t, err)
				wire.Sent += int64(len(text))
			}
			status, answer, header := http.StatusOK, `{"all": "well"}`, http.Header{}
			switch {
			case wire.Requests == 1:
				return nil, io.EOF
			case wire.Requests == 2:
				status, answer = http.StatusBadGateway, `<html>`
			case strings.HasSuffix(req.URL.Path, "/moved"):
				status, answer = http.StatusFound, ""
				header.Set("Location", "/there")
			}
			wire.Received += int64(len(answer))
			return &http.Response{StatusCode: status, Header: header, Request: req, Body: io.NopCloser(strings.NewReader(answer))}, nil
		})
		var m, total meter.Meter
		ctx, own := m.In(t.Context()), Client{Client: client, Meter: &total}
		_, err = Do(ctx, own, Request{Method: http.MethodPut, URL: "http://homeserver.invalid/", JSON: map[string]string{"a": "b"}})
		require.NoError(t, err)
		assert.Equal(t, meter.Counts{Retries: 2}, total.Counts())
		_, err = Do(ctx, own, Request{Method: http.MethodPost, URL: "http://homeserver.invalid/", Bytes: bytes.Repeat([]byte("x"), 1000)})
		require.NoError(t, err)
		_, err = Do(ctx, own, Request{Method: http.MethodGet, URL: "http://homeserver.invalid/moved", Elsewhere: true})
		require.NoError(t, err)
		assert.Equal(t, 6, wire.Requests)
		assert.EqualValues(t, 3*len(`{"a":"b"}`)+1000, wire.Sent)
		wire.Retries = 2
		assert.Equal(t, wire, m.Counts())

		_, err = Do(t.Context(), own, Request{Method: http.MethodGet, URL: "http://homeserver.invalid/"})
		require.NoError(t, err)
		assert.Equal(t, 6, m.Counts().Requests, "nothing counts there")
	})
}

func TestClass(t *testing.T) {
	failed := func(status int) error {
		answer := mautrix.HTTPError{Request: &http.Request{}, WrappedError: io.EOF}
		if status != 0 {
			answer.Response = &http.Response{StatusCode: status}
			answer.RespError = &mautrix.RespError{ErrCode: "M_" + strconv.Itoa(status), Err: "a secret"}
		}
		return answer
	}
	for want, err := range map[string]error{
		"":                         nil,
		"ErrNotFound":              fault.Of(fault.ErrNotFound, failed(404), "key"),
		"context.Canceled":         fault.Because(context.Canceled, "cannot"),
		"context.DeadlineExceeded": mautrix.HTTPError{WrappedError: context.DeadlineExceeded},
		"HTTP 502":                 fault.Because(failed(502), "cannot"),
		"no answer":                failed(0),
		"other":                    errors.New("a secret"),
	} {
		assert.Equal(t, want, Class(err))
	}
}
