package roomkv_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// serverSessionRows are what a homeserver does with logins, on which package session relies.
var serverSessionRows = []row{
	{name: "server: a login that asks for a refresh token", in: once, run: serverRefreshTokens},
	{name: "server: a login as a device that is there", in: once, run: serverSameDevice},
	{name: "server: a changed password logs out the other devices", in: once, run: serverChangedPassword},
}

// serverLogin is what a homeserver gives for a login or a refresh token.
type serverLogin struct {
	Access  string      `json:"access_token"`
	Refresh string      `json:"refresh_token"`
	Life    int64       `json:"expires_in_ms"`
	Device  id.DeviceID `json:"device_id"`
}

func (e *env) login(t *testing.T, password string, device id.DeviceID) answer {
	t.Helper()
	return ask(t, e.client, http.MethodPost, e.client.BuildClientURL("v3", "login"), &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: e.client.UserID.String()},
		Password: password, DeviceID: device, RefreshToken: true,
	})
}

func (e *env) refresh(t *testing.T, token string) answer {
	t.Helper()
	return ask(t, e.client, http.MethodPost, e.client.BuildClientURL("v3", "refresh"), map[string]string{"refresh_token": token})
}

// whoami is what the homeserver answers to who has the token.
func (e *env) whoami(t *testing.T, token string) answer {
	t.Helper()
	client := e.twin(t)
	client.AccessToken = token
	return ask(t, client, http.MethodGet, client.BuildClientURL("v3", "account", "whoami"), nil)
}

func (e *env) password(t *testing.T) string {
	t.Helper()
	password, err := e.subject.Password(e.client.UserID)
	require.NoError(t, err)
	return password
}

// A refresh token can be used again until what was given for it was used, so that an answer may be lost.
func serverRefreshTokens(t *testing.T, e *env) {
	var first, lost, second serverLogin
	e.login(t, e.password(t), "").read(t, &first)
	assert.Equal(t, "200", e.whoami(t, first.Access).is())
	if e.subject.like == dendrite {
		assert.Empty(t, first.Refresh)
		assert.Zero(t, first.Life)
		return
	}
	require.NotEmpty(t, first.Refresh)
	assert.Positive(t, first.Life)
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.refresh(t, "syr_unknown_token_000000").is())

	e.refresh(t, first.Refresh).read(t, &lost)
	assert.NotEqual(t, first.Access, lost.Access)
	assert.NotEqual(t, first.Refresh, lost.Refresh)
	assert.Equal(t, "200", e.whoami(t, first.Access).is(), "it is good until it expires")
	e.refresh(t, first.Refresh).read(t, &second)
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.whoami(t, lost.Access).is(), "another was given in its place")
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.refresh(t, lost.Refresh).is())
	assert.Equal(t, "200", e.whoami(t, second.Access).is())
	assert.Equal(t, "403 M_FORBIDDEN", e.refresh(t, first.Refresh).is(), "what was given for it was used")
}

func serverSameDevice(t *testing.T, e *env) {
	var first, second serverLogin
	e.login(t, e.password(t), "CHOSEN").read(t, &first)
	e.login(t, e.password(t), "CHOSEN").read(t, &second)
	assert.Equal(t, id.DeviceID("CHOSEN"), first.Device, "a client chooses it")
	assert.Equal(t, id.DeviceID("CHOSEN"), second.Device)
	assert.Equal(t, "200", e.whoami(t, second.Access).is())
	devices, err := e.client.GetDevicesInfo(t.Context())
	require.NoError(t, err)
	assert.Len(t, devices.Devices, 2, "with the one that has made the user")
}

func serverChangedPassword(t *testing.T, e *env) {
	old := e.password(t)
	var other serverLogin
	e.login(t, old, "").read(t, &other)
	change := map[string]any{"new_password": old + "-new"}
	url := e.client.BuildClientURL("v3", "account", "password")
	text, err := e.client.MakeRequest(t.Context(), http.MethodPost, url, change, nil)
	require.Error(t, err)
	var asked mautrix.RespUserInteractive
	require.NoError(t, json.Unmarshal(text, &asked))
	change["auth"] = &mautrix.ReqUIAuthLogin{BaseAuthData: mautrix.BaseAuthData{Type: mautrix.AuthTypePassword, Session: asked.Session}, User: e.client.UserID.String(), Password: old}
	require.Equal(t, "200", ask(t, e.client, http.MethodPost, url, change).is())

	assert.Equal(t, "200", e.whoami(t, e.client.AccessToken).is())
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.whoami(t, other.Access).is())
	if other.Refresh != "" {
		assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.refresh(t, other.Refresh).is())
	}
	assert.Equal(t, "403 M_FORBIDDEN", e.login(t, old, "").is())
	assert.Equal(t, "200", e.login(t, old+"-new", "").is())
}
