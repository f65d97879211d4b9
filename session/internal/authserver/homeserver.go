package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// homeserver is the one whose users the authorization server has.
type homeserver struct {
	url    string
	secret string
	http   *http.Client
}

// requestTimeout bounds a request to the homeserver, and one of a fakehs to the authorization server.
const requestTimeout = 30 * time.Second

// provision makes a user and its device where they are missing, as Synapse wants it before it sees their first token.
func (h *homeserver) provision(ctx context.Context, user, device string) error {
	if err := h.post(ctx, "provision_user", map[string]string{"localpart": user}); err != nil {
		return err
	}
	return h.post(ctx, "upsert_device", map[string]string{"localpart": user, "device_id": device})
}

// removeDevice makes the homeserver believe a token no longer that it still knows.
func (h *homeserver) removeDevice(ctx context.Context, user, device string) error {
	return h.post(ctx, "delete_device", map[string]string{"localpart": user, "device_id": device})
}

func (h *homeserver) post(ctx context.Context, what string, body map[string]string) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/_synapse/mas/"+what, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+h.secret)
	req.Header.Set("Content-Type", "application/json")
	_, err = send(h.http, req)
	return err
}

// send gives the body of an answer that is a success.
func send(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: HTTP %d", req.Method, req.URL.Path, resp.StatusCode)
	}
	return body, err
}

// Delegation has a homeserver in memory ask the authorization server by the requests that a Synapse makes.
func (s *Server) Delegation() fakehs.Delegation {
	client := &http.Client{Timeout: requestTimeout}
	return fakehs.Delegation{
		Secret: s.storage.secret,
		Metadata: func(ctx context.Context) (json.RawMessage, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+discoveryPath, nil)
			if err != nil {
				return nil, err
			}
			return send(client, req)
		},
		Introspect: func(ctx context.Context, token string) (answer fakehs.Introspection, err error) {
			form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/"+introspectionPath, strings.NewReader(form.Encode()))
			if err != nil {
				return answer, err
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Authorization", "Bearer "+s.storage.secret)
			body, err := send(client, req)
			if err != nil {
				return answer, err
			}
			return answer, json.Unmarshal(body, &answer)
		},
	}
}
