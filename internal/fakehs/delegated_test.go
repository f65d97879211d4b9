package fakehs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// authority is an authorization server that a test plays.
type authority struct {
	tokens map[string]Introspection
	asked  int // how often it was asked whose a token is
	ill    bool
}

func (a *authority) delegate(s *Server) {
	s.Delegate(Delegation{
		Secret: "secret",
		Metadata: func(context.Context) (json.RawMessage, error) {
			return json.RawMessage(`{"issuer":"https://auth.example.org/"}`), nil
		},
		Introspect: func(_ context.Context, token string) (Introspection, error) {
			a.asked++
			if a.ill {
				return Introspection{}, errors.New("no answer")
			}
			return a.tokens[token], nil
		},
	})
}

// call makes a request, and returns its status and its answer.
func call(t *testing.T, s *Server, method, path, token string, body any) (int, map[string]any) {
	t.Helper()
	text, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, bytes.NewReader(text))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer := map[string]any{}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer
}

const whoami = "/_matrix/client/v3/account/whoami"

// As measured on Synapse 1.160 with matrix_authentication_service.
func TestDelegation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		minute := int64(60)
		s := New(Options{Mode: Forking})
		scope := "urn:matrix:client:api:* urn:matrix:client:device:DEV"
		a := &authority{tokens: map[string]Introspection{
			"good":     {Active: true, Username: "bot", Scope: scope},
			"old":      {Active: true, Username: "bot", Scope: "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:DEV"},
			"explicit": {Active: true, Username: "bot", Scope: "urn:matrix:client:api:*", Device: "DEV"},
			"short":    {Active: true, Username: "bot", Scope: scope, ExpiresIn: &minute},
			"narrow":   {Active: true, Username: "bot", Scope: "openid urn:matrix:client:device:DEV"},
			"nobody":   {Active: true, Username: "nobody", Scope: scope},
			"bare":     {Active: true, Username: "bot", Scope: "urn:matrix:client:api:* urn:matrix:client:device:NONE"},
		}}
		a.delegate(s)

		status, answer := call(t, s, get, "/_matrix/client/v1/auth_metadata", "", nil)
		assert.Equal(t, 200, status)
		assert.Equal(t, "https://auth.example.org/", answer["issuer"])

		status, _ = call(t, s, post, "/_synapse/mas/provision_user", "other", object{"localpart": "bot"})
		assert.Equal(t, 403, status)
		status, _ = call(t, s, post, "/_synapse/mas/upsert_device", "secret", object{"localpart": "bot", "device_id": "DEV"})
		assert.Equal(t, 404, status, "the user comes first")
		for range 2 {
			status, _ = call(t, s, post, "/_synapse/mas/provision_user", "secret", object{"localpart": "bot"})
			assert.Equal(t, 200, status)
			status, _ = call(t, s, post, "/_synapse/mas/upsert_device", "secret", object{"localpart": "bot", "device_id": "DEV"})
			assert.Equal(t, 200, status)
		}
		for _, token := range []string{"good", "old", "explicit", "short"} {
			status, answer = call(t, s, get, whoami, token, nil)
			assert.Equal(t, 200, status, token)
			assert.Equal(t, map[string]any{"user_id": "@bot:fakehs", "device_id": "DEV", "is_guest": false}, answer)
		}
		for token, want := range map[string]int{"narrow": 401, "nobody": 500, "bare": 401, "unknown": 401} {
			status, answer = call(t, s, get, whoami, token, nil)
			assert.Equal(t, want, status, token)
			if want == 401 {
				assert.Equal(t, "M_UNKNOWN_TOKEN", answer["errcode"])
				assert.Equal(t, false, answer["soft_logout"])
			}
		}
		for _, closed := range []string{"login", "logout", "logout/all", "delete_devices"} {
			status, _ = call(t, s, post, "/_matrix/client/v3/"+closed, "good", object{})
			assert.Equal(t, 404, status, closed)
		}
		status, _ = call(t, s, remove, "/_matrix/client/v3/devices/DEV", "good", object{})
		assert.Equal(t, 404, status)
		status, _ = call(t, s, post, "/_matrix/client/v3/register", "", object{"username": "other"})
		assert.Equal(t, 403, status)

		status, answer = call(t, s, get, "/_matrix/client/v3/sync", "good", nil)
		assert.Equal(t, 200, status)
		status, _ = call(t, s, get, fmt.Sprintf("/_matrix/client/v3/sync?since=%s&timeout=1000", answer["next_batch"]), "good", nil)
		assert.Equal(t, 200, status)

		// An answer counts for two minutes, and its expires_in within them.
		a.tokens["good"], a.tokens["short"] = Introspection{}, Introspection{}
		asked := a.asked
		time.Sleep(59 * time.Second) // a second went by in the sync
		status, _ = call(t, s, get, whoami, "good", nil)
		assert.Equal(t, 200, status)
		status, _ = call(t, s, get, whoami, "short", nil)
		assert.Equal(t, 401, status)
		assert.Equal(t, asked, a.asked)
		time.Sleep(time.Minute)
		status, _ = call(t, s, get, whoami, "good", nil)
		assert.Equal(t, 401, status)

		a.ill = true
		status, _ = call(t, s, get, whoami, "new", nil)
		assert.Equal(t, 503, status)
		a.ill = false

		// Without its device a token counts no longer, whatever was said of it.
		status, _ = call(t, s, get, whoami, "explicit", nil)
		assert.Equal(t, 200, status)
		status, _ = call(t, s, post, "/_synapse/mas/delete_device", "secret", object{"localpart": "bot", "device_id": "DEV"})
		assert.Equal(t, 200, status)
		status, _ = call(t, s, get, whoami, "explicit", nil)
		assert.Equal(t, 401, status)
		assert.Empty(t, s.Complaints())
	})
}

func TestNoDelegation(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{"/_matrix/client/v1/auth_metadata", "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"} {
		status, answer := call(t, s, get, path, "", nil)
		assert.Equal(t, 404, status)
		assert.Equal(t, "M_UNRECOGNIZED", answer["errcode"])
	}
	status, _ := call(t, s, post, "/_synapse/mas/provision_user", "", object{"localpart": "bot"})
	assert.Equal(t, 404, status)
}
