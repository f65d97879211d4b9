package authserver

import (
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"maunium.net/go/mautrix/id"
)

// client is a registered one. It is public: it has no secret.
type client struct {
	id        string
	redirects []string
	grants    []oidc.GrantType
	responses []oidc.ResponseType
}

var _ op.Client = (*client)(nil)

// idTokenLife is how long an ID token lives. Nobody reads them here.
const idTokenLife = time.Minute

func (c *client) GetID() string                       { return c.id }
func (c *client) RedirectURIs() []string              { return c.redirects }
func (c *client) PostLogoutRedirectURIs() []string    { return nil }
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (c *client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }
func (c *client) ResponseTypes() []oidc.ResponseType  { return c.responses }
func (c *client) GrantTypes() []oidc.GrantType        { return c.grants }
func (c *client) LoginURL(request string) string      { return loginPath + "?id=" + request }
func (c *client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }
func (c *client) IDTokenLifetime() time.Duration      { return idTokenLife }
func (c *client) DevMode() bool                       { return false }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (c *client) IsScopeAllowed(scope string) bool     { return strings.HasPrefix(scope, "urn:matrix:") }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c *client) ClockSkew() time.Duration             { return 0 }

// authRequest is an authorization request that a browser has brought.
type authRequest struct {
	asked   oidc.AuthRequest
	id      string
	subject string // a localpart, for a subject has no colon
	done    bool
	since   time.Time
}

var _ op.AuthRequest = (*authRequest)(nil)

func (r *authRequest) GetID() string                      { return r.id }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return nil }
func (r *authRequest) GetAudience() []string              { return []string{r.asked.ClientID} }
func (r *authRequest) GetAuthTime() time.Time             { return r.since }
func (r *authRequest) GetClientID() string                { return r.asked.ClientID }
func (r *authRequest) GetNonce() string                   { return r.asked.Nonce }
func (r *authRequest) GetRedirectURI() string             { return r.asked.RedirectURI }
func (r *authRequest) GetResponseType() oidc.ResponseType { return r.asked.ResponseType }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return r.asked.ResponseMode }
func (r *authRequest) GetScopes() []string                { return withRefresh(r.asked.Scopes) }
func (r *authRequest) GetState() string                   { return r.asked.State }
func (r *authRequest) GetSubject() string                 { return r.subject }
func (r *authRequest) Done() bool                         { return r.done }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if r.asked.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod}
}

// withRefresh adds the scope without which op gives no refresh token.
func withRefresh(scopes []string) []string {
	return append(slices.Clone(scopes), oidc.ScopeOfflineAccess)
}

// hinted is the localpart in a login_hint (MSC4198), "" where there is none.
func hinted(hint string) string {
	user, _ := strings.CutPrefix(hint, "mxid:")
	return id.UserID(user).Localpart()
}

// grant is what somebody has approved: a session of a client.
type grant struct {
	client  string
	subject string
	scopes  []string
	since   time.Time
	ended   bool
}

var _ op.RefreshTokenRequest = (*grant)(nil)

func (g *grant) GetAMR() []string          { return nil }
func (g *grant) GetAudience() []string     { return []string{g.client} }
func (g *grant) GetAuthTime() time.Time    { return g.since }
func (g *grant) GetClientID() string       { return g.client }
func (g *grant) GetScopes() []string       { return g.scopes }
func (g *grant) GetSubject() string        { return g.subject }
func (g *grant) SetCurrentScopes([]string) {}

// device is that of the scopes.
func (g *grant) device() string {
	for _, scope := range g.scopes {
		if _, device, ok := strings.Cut(scope, "client:device:"); ok {
			return device
		}
	}
	return ""
}
