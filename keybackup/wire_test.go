package keybackup_test

import (
	"io"
	"net/http"
	"strings"
)

// answer is a homeserver that always says the same.
func answer(status int, body string) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	return func(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode:    status,
			Header:        http.Header{"Content-Type": {"application/json"}},
			Body:          io.NopCloser(strings.NewReader(body)),
			ContentLength: int64(len(body)),
			Request:       req,
		}, nil
	}
}

// hide is a homeserver that does not find what is at a path's end.
func hide(path, method string) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	return replace(path, method, http.StatusNotFound, `{"errcode":"M_NOT_FOUND","error":"hidden"}`)
}

// replace is a homeserver that answers what it likes where a path ends so.
func replace(path, method string, status int, body string) func(http.RoundTripper, *http.Request) (*http.Response, error) {
	return func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if req.Method == method && strings.HasSuffix(req.URL.Path, path) {
			return answer(status, body)(next, req)
		}
		return next.RoundTrip(req)
	}
}
