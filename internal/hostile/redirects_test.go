package hostile_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// Nobody but the homeserver gets a value or the token, whatever it answers: neither another host, nor another port of its own. What the
// client's Crypto asks for by itself is not the store's.
func TestRedirectsAreNotFollowed(t *testing.T) {
	targets := []string{"http://elsewhere.invalid", "http://homeserver.invalid:8448", "https://homeserver.invalid", "http://matrix.homeserver.invalid"}
	eachOperation(t, func(t *testing.T, kind string, memory func() *memory, do func(ctx context.Context, store *roomkv.Store) error) {
		for i, at := range endpoints(t, memory, do) {
			if isCrypto(at) || strings.Contains(at, "/media/download/") {
				continue
			}
			for j, status := range []int{301, 302, 303, 307, 308} {
				if !*every && kind != "perkey" && (i+j)%3 != 0 {
					continue
				}
				h, store := memory().open(t)
				var followed sync.Map
				h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
					switch {
					case req.URL.Scheme+"://"+req.URL.Host != "http://homeserver.invalid":
						followed.Store(req.URL.String(), true)
					case endpoint(req) == at:
						return saying(req, status, http.Header{"Location": {targets[(i+j)%len(targets)] + req.URL.EscapedPath()}}, "{}"), nil
					}
					return homeserver(req)
				}
				began := time.Now()
				err := do(t.Context(), store)
				followed.Range(func(url, _ any) bool {
					assert.Fail(t, "followed", "%d: %s: %v", status, url, err)
					return true
				})
				assert.Less(t, time.Since(began), time.Minute)
			}
		}
	})
}

// What to do about it is said.
func TestRedirectIsExplained(t *testing.T) {
	h, store := memories["perkey"]().open(t)
	h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
		if req.Method == http.MethodPut {
			return saying(req, 308, http.Header{"Location": {"http://secret.invalid/"}}, "secret"), nil
		}
		return homeserver(req)
	}
	err := store.Put(t.Context(), "key", "secret")
	require.Error(t, err)
	assert.ErrorContains(t, err, "HomeserverURL")
	assert.NotContains(t, err.Error(), "secret")
}

// A homeserver may have attachments elsewhere, where nobody is to know the user's token, nor anything else of the request.
func TestAttachmentIsElsewhere(t *testing.T) {
	for _, kind := range []string{"perkey", "encrypted single"} {
		memory := memories[kind]()
		h := memory.homeserver.copy()
		client, err := memory.client(t.Context(), h)
		require.NoError(t, err)
		client.RequestHook = func(req *http.Request) { req.Header.Set("X-Secret", "secret") }
		asked := 0
		h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
			switch {
			case req.URL.Host == "elsewhere.invalid":
				asked++
				assert.Equal(t, http.Header{"User-Agent": {client.UserAgent}}, req.Header)
				req.URL.Path = req.URL.Query().Get("path")
				return homeserver(req)
			case strings.Contains(req.URL.Path, "/media/download/"):
				assert.NotEmpty(t, req.Header.Get("Authorization"))
				return saying(req, 307, http.Header{"Location": {"http://elsewhere.invalid/?path=" + req.URL.Path}}, ""), nil
			}
			return homeserver(req)
		}
		var value string
		require.NoError(t, open(t, client, memory.options...).Get(t.Context(), "large", &value))
		assert.Len(t, value, 60_000)
		assert.Equal(t, 1, asked)

		// Round and round.
		asked = 0
		h.between = func(req *http.Request, homeserver asking) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/media/download/") {
				asked++
				return saying(req, 302, http.Header{"Location": {req.URL.String()}}, ""), nil
			}
			return homeserver(req)
		}
		require.Error(t, open(t, client, memory.options...).Get(t.Context(), "large", &value))
		assert.Equal(t, 10, asked)

		// The client's user can forbid it.
		client.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		asked = 0
		require.Error(t, open(t, client, memory.options...).Get(t.Context(), "large", &value))
		assert.Equal(t, 1, asked)
	}
}
