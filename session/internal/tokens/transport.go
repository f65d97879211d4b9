package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"maunium.net/go/mautrix"
)

// Transport is next with the session: it puts the access token into each request to the homeserver that carries one. Where the homeserver has ended the token,
// the request is sent again with another. Requests to other hosts go without the token. Once the session has ended for ever, each request fails at once, with an
// [ErrSignedOut] beneath.
func (k *Keeper) Transport(next http.RoundTripper) http.RoundTripper { return &transport{k, next} }

type transport struct {
	keeper *Keeper
	next   http.RoundTripper
}

const bearer = "Bearer "

// maxRenewals is how often one request gets another token.
const maxRenewals = 2

var errBody = errors.New("session: the access token was renewed, and the request's body cannot be sent a second time: send the request again")

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	carried, ok := strings.CutPrefix(req.Header.Get("Authorization"), bearer)
	if !ok {
		return t.next.RoundTrip(req)
	}
	if own := t.keeper.Token(); !sameHost(req.URL, own.Homeserver) {
		if carried == own.AccessToken {
			req = req.Clone(req.Context())
			req.Header.Del("Authorization")
		}
		return t.next.RoundTrip(req)
	}
	token, err := t.keeper.use(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return failure(req, err)
	}
	for renewals := 0; ; renewals++ {
		sent, err := with(req, token, renewals > 0)
		if err != nil {
			return nil, err
		}
		resp, err := t.next.RoundTrip(sent)
		if err != nil {
			return nil, err
		}
		unknown, soft := refusal(resp)
		if !unknown || renewals == maxRenewals {
			if resp.StatusCode < http.StatusBadRequest {
				t.keeper.accepted(token)
			}
			return resp, nil
		}
		_ = resp.Body.Close()
		if token, err = t.keeper.renew(req.Context(), token, soft); err != nil {
			return failure(req, err)
		}
	}
}

// failure is what a request comes to that has no token.
func failure(req *http.Request, err error) (*http.Response, error) {
	if errors.Is(err, ErrSignedOut) {
		return final(req, err), nil
	}
	return nil, err
}

// with is the request with the token, and with its body once more where it was sent before.
func with(req *http.Request, token string, again bool) (*http.Request, error) {
	sent := req.Clone(req.Context())
	sent.Header.Set("Authorization", bearer+token)
	if again && req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, errBody
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		sent.Body = body
	}
	return sent, nil
}

// refusal tells whether the homeserver does not know the token, and whether it says that the device is still there. The response can be read as before.
func refusal(resp *http.Response) (unknown, soft bool) {
	if resp.StatusCode != http.StatusUnauthorized {
		return false, false
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	resp.Body = &restored{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	var said struct {
		Code string `json:"errcode"`
		Soft bool   `json:"soft_logout"`
	}
	if err != nil || json.Unmarshal(body, &said) != nil || said.Code != mautrix.MUnknownToken.ErrCode {
		return false, false
	}
	return true, said.Soft
}

// restored is a body of which a part was read already.
type restored struct {
	io.Reader
	io.Closer
}

// sameHost tells whether the request goes to the homeserver.
func sameHost(to *url.URL, homeserver string) bool {
	own, err := url.Parse(homeserver)
	return err == nil && strings.EqualFold(to.Scheme, own.Scheme) && strings.EqualFold(to.Host, own.Host)
}

// Changed is what a mautrix client is told of a new token. Without a refresh token mautrix does not refresh by itself. Its method is used for its lock.
func Changed(client *mautrix.Client) func(Token) {
	return func(token Token) { client.OAuthSetTokens("", "", token.AccessToken, token.Expires) }
}
