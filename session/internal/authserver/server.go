package authserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	discoveryPath     = "/.well-known/openid-configuration"
	loginPath         = "/login"
	registrationPath  = "/oauth2/registration"
	introspectionPath = "oauth2/introspect" // Synapse adds it to its endpoint
	tokenPath         = "oauth2/token"
	homeserverClient  = "homeserver" // the client that a homeserver's requests are
)

// Server is an authorization server on 127.0.0.1.
type Server struct {
	URL string // the issuer

	http     *http.Server
	provider *op.Provider
	storage  *storage

	mu      sync.Mutex
	faults  map[string]*fault        // of the token endpoint, by client
	delays  map[string]time.Duration // of the token endpoint, by client
	refused map[string]bool          // localparts of users who say no
}

// fault is what the token endpoint answers a client instead of tokens.
type fault struct{ status, times int }

// Start has an authorization server listen on an address of this machine, for the homeserver whose client API has the URL. The secret is the one that
// the homeserver has for it.
func Start(address, homeserverURL, secret string) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	storage, err := newStorage(&homeserver{homeserverURL, secret, &http.Client{Timeout: requestTimeout}}, secret)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{URL: "http://" + listener.Addr().String(), storage: storage, faults: map[string]*fault{}, delays: map[string]time.Duration{},
		refused: map[string]bool{}}
	config := &op.Config{
		CodeMethodS256:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{oidc.ScopeOpenID, oidc.ScopeEmail}, // as Matrix Authentication Service has it
		DeviceAuthorization:   op.DeviceAuthorizationConfig{Lifetime: deviceLife, PollInterval: deviceInterval, UserFormPath: "/link", UserCode: op.UserCodeBase20},
	}
	_, _ = rand.Read(config.CryptoKey[:])
	s.provider, err = op.NewProvider(config, storage, op.StaticIssuer(s.URL), op.WithAllowInsecure(),
		op.WithCustomTokenEndpoint(op.NewEndpoint(tokenPath)),
		op.WithCustomIntrospectionEndpoint(op.NewEndpoint(introspectionPath)),
		op.WithCustomRevocationEndpoint(op.NewEndpoint("oauth2/revoke")),
		op.WithCustomDeviceAuthorizationEndpoint(op.NewEndpoint("oauth2/device")))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: requestTimeout}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

// Close ends the server.
func (s *Server) Close() error { return s.http.Close() }

// routes adds to the provider what it has not.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.provider)
	mux.HandleFunc("GET "+discoveryPath, s.discovery)
	mux.HandleFunc("GET "+loginPath, s.login)
	mux.HandleFunc("POST "+registrationPath, s.register)
	mux.HandleFunc("POST /"+introspectionPath, s.introspect)
	mux.HandleFunc("POST /"+tokenPath, s.token)
	return mux
}

// discovery is the metadata. Synapse wants account_management_uri.
func (s *Server) discovery(w http.ResponseWriter, req *http.Request) {
	known, err := json.Marshal(op.CreateDiscoveryConfig(op.ContextWithIssuer(req.Context(), s.URL), s.provider, s.storage))
	all := map[string]any{}
	if err = errors.Join(err, json.Unmarshal(known, &all)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	all["registration_endpoint"] = s.URL + registrationPath
	all["response_modes_supported"] = []string{"query", "fragment"}
	all["account_management_uri"] = s.URL + "/account"
	respond(w, http.StatusOK, all)
}

// login is the page on which a person would sign in. It takes the user whom the client has named.
func (s *Server) login(w http.ResponseWriter, req *http.Request) {
	s.storage.mu.Lock()
	request := s.storage.requests[req.URL.Query().Get("id")]
	if request != nil {
		request.subject = hinted(request.asked.LoginHint)
		request.done = request.subject != ""
	}
	s.storage.mu.Unlock()
	if request == nil || !request.done {
		http.Error(w, "no such request, or one that names no user", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	refused := s.refused[request.subject]
	s.mu.Unlock()
	if refused {
		answer := url.Values{"error": {"access_denied"}, "state": {request.asked.State}}
		http.Redirect(w, req, request.asked.RedirectURI+"?"+answer.Encode(), http.StatusFound)
		return
	}
	back := op.AuthCallbackURL(s.provider)(op.ContextWithIssuer(req.Context(), s.URL), request.id)
	http.Redirect(w, req, back, http.StatusFound)
}

// introspect takes the secret as a homeserver sends it.
func (s *Server) introspect(w http.ResponseWriter, req *http.Request) {
	if secret, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		req.SetBasicAuth(homeserverClient, secret)
	}
	s.provider.ServeHTTP(w, req)
}

// token takes its time, and fails, where a test wants it.
func (s *Server) token(w http.ResponseWriter, req *http.Request) {
	own := req.PostFormValue("client_id")
	s.mu.Lock()
	fault, status := s.faults[own], 0
	if fault != nil && fault.times > 0 {
		fault.times--
		status = fault.status
	}
	delay := s.delays[own]
	s.mu.Unlock()
	time.Sleep(delay)
	if status != 0 {
		http.Error(w, "the server is in trouble", status)
		return
	}
	s.provider.ServeHTTP(w, req)
}

// Fail has the token endpoint answer the client's next requests with the status.
func (s *Server) Fail(client string, status, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[client] = &fault{status, times}
}

// Delay has the token endpoint take so long for each of the client's requests.
func (s *Server) Delay(client string, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays[client] = delay
}

// Refuse has a user, given by the localpart, say no from now on.
func (s *Server) Refuse(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[user] = true
}

// SetLife sets how long access tokens of the user live from now on.
func (s *Server) SetLife(user string, life time.Duration) {
	s.storage.mu.Lock()
	defer s.storage.mu.Unlock()
	s.storage.lives[user] = life
}

// End is an administrator who ends all sessions of the user.
func (s *Server) End(ctx context.Context, user string) error {
	s.storage.mu.Lock()
	grants := map[*grant]bool{}
	for _, token := range s.storage.refresh {
		if token.grant.subject == user && !token.grant.ended {
			grants[token.grant] = true
		}
	}
	s.storage.mu.Unlock()
	for own := range grants {
		if err := s.storage.end(ctx, own); err != nil {
			return err
		}
	}
	return nil
}

// Refreshes are how often tokens of the user were refreshed, and how often that was refused because the refresh token was used before.
func (s *Server) Refreshes(user string) (done, replayed int) {
	s.storage.mu.Lock()
	defer s.storage.mu.Unlock()
	return s.storage.refreshes[user], s.storage.replays[user]
}
