package authserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage is what the authorization server knows. It implements [op.Storage] and [op.DeviceAuthorizationStorage].
type storage struct {
	homeserver *homeserver
	secret     string
	key        signingKey

	mu        sync.Mutex // guards all that follows; nobody makes a request while they hold it
	clients   map[string]*client
	requests  map[string]*authRequest
	codes     map[string]string         // IDs of requests, by code
	devices   map[string]*deviceRequest // by device code
	access    map[string]*accessToken   // by ID
	refresh   map[string]*refreshToken
	lives     map[string]time.Duration // of access tokens, by user
	refreshes map[string]int           // how often a user's tokens were refreshed
	replays   map[string]int           // how often a user's refresh token was refused because it was used before
}

var (
	_ op.Storage                    = (*storage)(nil)
	_ op.DeviceAuthorizationStorage = (*storage)(nil)
)

type accessToken struct {
	grant   *grant
	expires time.Time
	used    bool // whether the homeserver has asked for it
}

// refreshToken is good once, as in Matrix Authentication Service. It is good again while nobody has used what it was exchanged for: the answer may
// have been lost.
type refreshToken struct {
	grant  *grant
	access string // the ID of the access token that came with it
	next   string // what it was exchanged for
}

// defaultLife is an access token's, as in Matrix Authentication Service.
const defaultLife = 5 * time.Minute

func newStorage(homeserver *homeserver, secret string) (*storage, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &storage{
		homeserver: homeserver,
		secret:     secret,
		key:        signingKey{key},
		clients:    map[string]*client{},
		requests:   map[string]*authRequest{},
		codes:      map[string]string{},
		devices:    map[string]*deviceRequest{},
		access:     map[string]*accessToken{},
		refresh:    map[string]*refreshToken{},
		lives:      map[string]time.Duration{},
		refreshes:  map[string]int{},
		replays:    map[string]int{},
	}, nil
}

// CreateAuthRequest implements [op.AuthStorage].
func (s *storage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	request := &authRequest{asked: *asked, id: rand.Text(), since: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[request.id] = request
	return request, nil
}

// AuthRequestByID implements [op.AuthStorage].
func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if request := s.requests[id]; request != nil {
		return request, nil
	}
	return nil, errors.New("no such request")
}

// AuthRequestByCode implements [op.AuthStorage].
func (s *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id := s.codes[code]
	s.mu.Unlock()
	return s.AuthRequestByID(ctx, id)
}

// SaveAuthCode implements [op.AuthStorage].
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

// DeleteAuthRequest implements [op.AuthStorage].
func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// CreateAccessToken implements [op.AuthStorage]. Every client here is given a refresh token too.
func (s *storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return "", time.Time{}, oidc.ErrUnauthorizedClient().WithDescription("the client has not registered for refresh_token")
}

// CreateAccessAndRefreshTokens implements [op.AuthStorage].
func (s *storage) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (id, fresh string, expires time.Time, err error) {
	if current != "" {
		return s.renew(current)
	}
	own := &grant{subject: request.GetSubject(), scopes: request.GetScopes(), since: time.Now()}
	switch request := request.(type) {
	case *authRequest:
		own.client = request.GetClientID()
	case *op.DeviceAuthorizationState:
		own.client = request.GetClientID()
		s.forget(request)
	default:
		return "", "", time.Time{}, fmt.Errorf("a request of type %T", request)
	}
	if err := s.homeserver.provision(ctx, own.subject, own.device()); err != nil {
		return "", "", time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, fresh, expires = s.issue(own)
	return id, fresh, expires, nil
}

// issue makes tokens. The caller has the lock.
func (s *storage) issue(own *grant) (id, fresh string, expires time.Time) {
	life := s.lives[own.subject]
	if life == 0 {
		life = defaultLife
	}
	id, fresh, expires = rand.Text(), "refresh_"+rand.Text(), time.Now().Add(life)
	s.access[id] = &accessToken{grant: own, expires: expires}
	s.refresh[fresh] = &refreshToken{grant: own, access: id}
	return id, fresh, expires
}

// renew exchanges a refresh token.
func (s *storage) renew(current string) (id, fresh string, expires time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.good(current)
	if err != nil {
		return "", "", time.Time{}, oidc.ErrInvalidGrant().WithParent(err)
	}
	if lost := s.refresh[old.next]; lost != nil {
		delete(s.access, lost.access)
		delete(s.refresh, old.next)
	}
	delete(s.access, old.access)
	id, fresh, expires = s.issue(old.grant)
	old.next = fresh
	s.refreshes[old.grant.subject]++
	return id, fresh, expires, nil
}

// good is a refresh token that can be exchanged. The caller has the lock.
func (s *storage) good(token string) (*refreshToken, error) {
	own := s.refresh[token]
	if own == nil || own.grant.ended {
		return nil, errors.New("no such refresh token")
	}
	if own.next == "" {
		return own, nil
	}
	next := s.refresh[own.next]
	if next == nil || next.next != "" || s.access[next.access] == nil || s.access[next.access].used {
		s.replays[own.grant.subject]++
		return nil, errors.New("the refresh token was used before")
	}
	return own, nil
}

// TokenRequestByRefreshToken implements [op.AuthStorage].
func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, err := s.good(token)
	if err != nil {
		return nil, err
	}
	return own.grant, nil
}

// TerminateSession implements [op.AuthStorage].
func (s *storage) TerminateSession(context.Context, string, string) error {
	return errors.New("nobody ends a session of a browser here")
}

// GetRefreshTokenInfo implements [op.AuthStorage].
func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (userID, tokenID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.refresh[token]
	if own == nil {
		return "", "", op.ErrInvalidRefreshToken
	}
	return own.grant.subject, token, nil
}

// RevokeToken implements [op.AuthStorage]: it ends the whole grant. A token that is unknown is no error (RFC 7009, section 2.2).
func (s *storage) RevokeToken(ctx context.Context, token, _, client string) *oidc.Error {
	s.mu.Lock()
	var own *grant
	if found := s.refresh[token]; found != nil {
		own = found.grant
	} else if found := s.access[token]; found != nil {
		own = found.grant
	}
	s.mu.Unlock()
	if own == nil {
		return nil
	}
	if own.client != client {
		return oidc.ErrInvalidClient().WithDescription("the token is another client's")
	}
	if err := s.end(ctx, own); err != nil {
		return oidc.ErrServerError().WithParent(err)
	}
	return nil
}

// end ends a grant, and removes its device.
func (s *storage) end(ctx context.Context, own *grant) error {
	s.mu.Lock()
	own.ended = true
	s.mu.Unlock()
	return s.homeserver.removeDevice(ctx, own.subject, own.device())
}

// SetIntrospectionFromToken implements [op.OPStorage].
func (s *storage) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, token, subject, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.access[token]
	if own == nil || own.grant.ended || !time.Now().Before(own.expires) {
		return errors.New("the token has ended")
	}
	own.used = true
	answer.Scope, answer.Username = own.grant.scopes, subject
	answer.Claims = map[string]any{"expires_in": int(math.Ceil(time.Until(own.expires).Seconds()))}
	return nil
}

// GetClientByClientID implements [op.OPStorage].
func (s *storage) GetClientByClientID(_ context.Context, name string) (op.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.clients[name]; known != nil {
		return known, nil
	}
	return nil, oidc.ErrInvalidClient()
}

// AuthorizeClientIDSecret implements [op.OPStorage]: the homeserver is the only client with a secret.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, name, secret string) error {
	if name != homeserverClient || secret != s.secret {
		return errors.New("wrong secret")
	}
	return nil
}

// SetUserinfoFromScopes implements [op.OPStorage].
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromToken implements [op.OPStorage].
func (s *storage) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return nil
}

// GetPrivateClaimsFromScopes implements [op.OPStorage].
func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

// GetKeyByIDAndClientID implements [op.OPStorage].
func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("no client has a key")
}

// ValidateJWTProfileScopes implements [op.OPStorage].
func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("no client has a key")
}

// Health implements [op.Storage].
func (s *storage) Health(context.Context) error { return nil }

// SigningKey implements [op.AuthStorage].
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

// SignatureAlgorithms implements [op.AuthStorage].
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// KeySet implements [op.AuthStorage].
func (s *storage) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

// signingKey signs ID tokens.
type signingKey struct{ key *ecdsa.PrivateKey }

func (k signingKey) ID() string                                  { return "key" }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                    { return k.key }

type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.key.PublicKey }
