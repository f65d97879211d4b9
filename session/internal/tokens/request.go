package tokens

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Doer makes requests to servers, without a token of its own. [http.Client] is one.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 20

// Get asks for JSON, with the access token where that is not empty. An answer that is not JSON with status 200 is an [*Answer].
func Get(ctx context.Context, client Doer, address, token string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return do(client, req, into)
}

// postJSON and postForm send what has secrets. They do not use mautrix's requests, which log bodies.
func postJSON(ctx context.Context, client Doer, address string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return post(ctx, client, address, "application/json", text, into)
}

func postForm(ctx context.Context, client Doer, address string, body url.Values, into any) error {
	return post(ctx, client, address, "application/x-www-form-urlencoded", []byte(body.Encode()), into)
}

func post(ctx context.Context, client Doer, address, contentType string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	return do(client, req, into)
}

func do(client Doer, req *http.Request, into any) error {
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("no answer from %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	answer := read(resp, body)
	switch {
	case err != nil:
		return fmt.Errorf("the answer of %s could not be read: %w", req.URL.Host, err)
	case resp.StatusCode != http.StatusOK:
		return answer
	case len(body) > maxAnswer:
		answer.Problem = "too large"
		return answer
	case json.Unmarshal(body, into) != nil: // whose error could quote a token
		answer.Problem = "not the JSON that it should be"
		return answer
	}
	return nil
}

// errorCode is what a Matrix error code or an OAuth error looks like. Another is left out, for a server could repeat a secret there.
var errorCode = regexp.MustCompile(`^([A-Z][A-Z0-9_.]{0,60}|[a-z][a-z_]{0,40})$`)

// read finds out what an answer says that is an error.
func read(resp *http.Response, body []byte) *Answer {
	var said struct {
		Code  string  `json:"errcode"`
		Error string  `json:"error"`
		Soft  bool    `json:"soft_logout"`
		After float64 `json:"retry_after_ms"`
	}
	_ = json.Unmarshal(body, &said) // fields of other types stay empty
	answer := &Answer{Status: resp.StatusCode, Soft: said.Soft}
	if code := cmp.Or(said.Code, said.Error); errorCode.MatchString(code) {
		answer.Code = code
	}
	after := said.After
	if seconds, err := strconv.ParseFloat(strings.TrimSpace(resp.Header.Get("Retry-After")), 64); err == nil {
		after = seconds * 1000
	}
	if after > 0 && after < math.MaxInt32 { // also false for what is no number
		answer.After = int64(after)
	}
	return answer
}
