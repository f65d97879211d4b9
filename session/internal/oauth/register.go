package oauth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// App is what the authorization server shows to the person who approves.
type App struct {
	Name string
	URI  string // https; where Redirect is https, it is on the same host

	// Redirect is where the browser goes at the end, "" for a sign-in by device code.
	Redirect string
}

const (
	grantCode    = "authorization_code"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	grantRefresh = "refresh_token"
)

// Register makes the bot a client of the authorization server (RFC 7591), and returns its client ID. It returns [ErrUnsupported] where the server
// registers nobody: then its administrator gives a client ID.
func (s *Server) Register(ctx context.Context, app App) (clientID string, err error) {
	if s.metadata.Registration == "" {
		return "", fmt.Errorf("registering a client (ask the administrator for a client ID): %w", ErrUnsupported)
	}
	body := map[string]any{
		"application_type":           "native",
		"client_name":                app.Name,
		"client_uri":                 app.URI,
		"token_endpoint_auth_method": "none",
	}
	if app.Redirect == "" {
		body["grant_types"], body["response_types"] = []string{grantDevice, grantRefresh}, []string{}
	} else {
		body["grant_types"], body["response_types"] = []string{grantCode, grantRefresh}, []string{"code"}
		body["redirect_uris"] = []string{withoutPort(app.Redirect)}
	}
	var answer struct {
		ClientID string `json:"client_id"`
	}
	err = ask{what: "registering a client", method: http.MethodPost, url: s.metadata.Registration, json: body}.do(ctx, s.http, &answer)
	if err == nil && answer.ClientID == "" {
		err = &Error{Asked: "registering a client", Status: http.StatusOK, Code: "no_client_id"}
	}
	return answer.ClientID, err
}

// withoutPort takes the port away from a redirect to this machine. A server allows any port there (RFC 8252, section 7.3).
func withoutPort(redirect string) string {
	parsed, err := url.Parse(redirect)
	if err != nil || parsed.Scheme != "http" || !onThisMachine(parsed.Hostname()) || parsed.Port() == "" {
		return redirect
	}
	parsed.Host = parsed.Host[:len(parsed.Host)-len(":"+parsed.Port())]
	return parsed.String()
}
