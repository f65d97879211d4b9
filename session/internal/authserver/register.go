package authserver

import (
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// registration is what a client says of itself (RFC 7591; Client-Server API, client registration).
type registration struct {
	ApplicationType string              `json:"application_type"`
	Name            string              `json:"client_name,omitempty"`
	URI             string              `json:"client_uri"`
	Redirects       []string            `json:"redirect_uris,omitempty"`
	Grants          []oidc.GrantType    `json:"grant_types"`
	Responses       []oidc.ResponseType `json:"response_types"`
	AuthMethod      oidc.AuthMethod     `json:"token_endpoint_auth_method"`
}

// fault is what is wrong with a registration, "" where it is nothing. It is as strict as Matrix Authentication Service's default policy.
func (r *registration) fault() (code, description string) {
	home, err := url.Parse(r.URI)
	if err != nil || home.Scheme != "https" || home.Host == "" {
		return "invalid_client_metadata", "client_uri must be an https URL"
	}
	if r.ApplicationType != "native" || r.AuthMethod != oidc.AuthMethodNone {
		return "invalid_client_metadata", "only native clients without a secret are registered here"
	}
	byCode := slices.Contains(r.Grants, oidc.GrantTypeCode)
	if byCode != slices.Contains(r.Responses, oidc.ResponseTypeCode) {
		return "invalid_client_metadata", "grant_types and response_types do not belong together"
	}
	if byCode && len(r.Redirects) == 0 {
		return "invalid_redirect_uri", "redirect_uris is empty"
	}
	for _, redirect := range r.Redirects {
		address, err := url.Parse(redirect)
		if err != nil {
			return "invalid_redirect_uri", "a redirect URI is no URL"
		}
		local := address.Scheme == "http" && address.Port() == "" && (address.Hostname() == "localhost" || net.ParseIP(address.Hostname()).IsLoopback())
		if !local && (address.Scheme != "https" || address.Host != home.Host) {
			return "invalid_redirect_uri", "a redirect URI is neither on this machine nor on the host of client_uri"
		}
	}
	return "", ""
}

// register makes a client known.
func (s *Server) register(w http.ResponseWriter, req *http.Request) {
	asked := registration{ApplicationType: "web", Grants: []oidc.GrantType{oidc.GrantTypeCode}, Responses: []oidc.ResponseType{oidc.ResponseTypeCode}}
	if err := json.NewDecoder(req.Body).Decode(&asked); err != nil {
		respond(w, http.StatusBadRequest, map[string]any{"error": "invalid_client_metadata"})
		return
	}
	if code, description := asked.fault(); code != "" {
		respond(w, http.StatusBadRequest, map[string]any{"error": code, "error_description": description})
		return
	}
	own := &client{id: rand.Text(), redirects: asked.Redirects, grants: asked.Grants, responses: asked.Responses}
	s.storage.mu.Lock()
	s.storage.clients[own.id] = own
	s.storage.mu.Unlock()
	respond(w, http.StatusCreated, struct {
		registration
		ClientID string `json:"client_id"`
	}{asked, own.id})
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
