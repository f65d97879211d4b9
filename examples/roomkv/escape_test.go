package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// What a homeserver says must not move the cursor, nor look like a line of the command's own.
func TestAHomeserversNamesAreSpelledOut(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	at, err := url.Parse(hstest.Server(t).URL)
	require.NoError(t, err)
	device := []byte(`"device_id":"`)
	proxy := httputil.NewSingleHostReverseProxy(at)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Header.Get("Content-Encoding") != "" {
			return nil
		}
		body, err := io.ReadAll(resp.Body)
		body = bytes.ReplaceAll(body, device, []byte(`"device_id":"\u001b]0;evil\u0007\nLogged in as root "`+`,"was":"`))
		resp.Body = io.NopCloser(bytes.NewReader(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return err
	}
	hostile := httptest.NewServer(proxy)
	t.Cleanup(hostile.Close)
	sh.set(envHomeserver, hostile.URL)

	got := sh.run("login")
	assert.Zero(t, got.code, got.err)
	assert.Contains(t, got.err, "evil", "the homeserver names the device")
	assert.NotContains(t, got.err, "\x1b")
	assert.NotContains(t, got.err, "\nLogged in as root")
	sh.set(envToken, sh.bot.AccessToken)
	got = sh.run("login")
	assert.Contains(t, got.err, "evil")
	assert.NotContains(t, got.err, "\x1b")
}
