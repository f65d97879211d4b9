package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// metadata is what is used of an authorization server's metadata (RFC 8414).
type metadata struct {
	Issuer              string   `json:"issuer"`
	Authorization       string   `json:"authorization_endpoint"`
	Token               string   `json:"token_endpoint"`
	Registration        string   `json:"registration_endpoint"`
	Revocation          string   `json:"revocation_endpoint"`
	DeviceAuthorization string   `json:"device_authorization_endpoint"`
	Scopes              []string `json:"scopes_supported"`
	Challenges          []string `json:"code_challenge_methods_supported"`
}

// Server is an authorization server whose metadata is known.
type Server struct {
	http     *http.Client
	metadata metadata
	unstable bool // whether scopes have the names of MSC2967
}

// Names of scopes (Client-Server API, OAuth 2.0 API, scope), and those that they had in MSC2967.
const (
	scopeAPI            = "urn:matrix:client:api:*"
	scopeDevice         = "urn:matrix:client:device:"
	unstableScopeAPI    = "urn:matrix:org.matrix.msc2967.client:api:*"
	unstableScopeDevice = "urn:matrix:org.matrix.msc2967.client:device:"
)

const (
	metadataPath         = "/_matrix/client/v1/auth_metadata"
	unstableMetadataPath = "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"
)

// Discover reads the metadata of the homeserver's authorization server, given by the URL of the homeserver's client API. Where address is not empty, the
// metadata is read there. It returns [ErrUnsupported] where the homeserver has none, and [ErrInsecure] where an address in it is not safe.
func Discover(ctx context.Context, client *http.Client, homeserver, address string) (*Server, error) {
	server := &Server{http: client}
	read := func(from string) error {
		return ask{what: "the metadata", method: http.MethodGet, url: from, forward: true}.do(ctx, client, &server.metadata)
	}
	old := false
	var err error
	if address != "" {
		if err := checkAddress("the address of the metadata", address); err != nil {
			return nil, err
		}
		err = read(address)
	} else {
		base := strings.TrimRight(homeserver, "/")
		if err = read(base + metadataPath); isUnknown(err) {
			old = true
			err = read(base + unstableMetadataPath)
		}
		if isUnknown(err) {
			err = fmt.Errorf("OAuth 2: %w", ErrUnsupported)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := server.metadata.check(); err != nil {
		return nil, err
	}
	server.unstable = server.metadata.namesAreUnstable(old)
	return server, nil
}

// isUnknown tells whether a homeserver does not have the endpoint.
func isUnknown(err error) bool {
	var answer *Error
	return errors.As(err, &answer) && (answer.Status == http.StatusNotFound || answer.Status == http.StatusMethodNotAllowed)
}

// namesAreUnstable tells whether only MSC2967's names of scopes are sure to be known: those are listed alone, or the metadata stands where MSC2965 had
// it and lists none of both.
func (m *metadata) namesAreUnstable(old bool) bool {
	if slices.Contains(m.Scopes, scopeAPI) {
		return false
	}
	return old || slices.Contains(m.Scopes, unstableScopeAPI)
}

// check wants all that every sign-in needs, and safe addresses.
func (m *metadata) check() error {
	if m.Issuer == "" || m.Token == "" {
		return fmt.Errorf("the metadata has no issuer or no token_endpoint: %w", ErrUnsupported)
	}
	for name, address := range map[string]string{
		"authorization_endpoint": m.Authorization, "token_endpoint": m.Token, "registration_endpoint": m.Registration,
		"revocation_endpoint": m.Revocation, "device_authorization_endpoint": m.DeviceAuthorization,
	} {
		if address == "" {
			continue
		}
		if err := checkAddress(name, address); err != nil {
			return err
		}
	}
	return nil
}

// scopes are those that a bot's device asks for.
func (s *Server) scopes(device id.DeviceID) []string {
	if s.unstable {
		return []string{unstableScopeAPI, unstableScopeDevice + string(device)}
	}
	return []string{scopeAPI, scopeDevice + string(device)}
}
