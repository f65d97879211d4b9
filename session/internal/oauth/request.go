package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// mostBytes is how much of an answer is read.
const mostBytes = 1 << 20

// ask is a request to an authorization server.
type ask struct {
	what    string // what is asked for, for errors
	method  string
	url     string
	form    url.Values // the body of a POST, or
	json    any        // that
	secret  bool       // whether the request carries a secret, which the server's description of an error may repeat
	forward bool       // whether redirects are followed; one of a POST would hand its secrets on
}

// do sends the request, and decodes the answer into what is given. It returns an [*Error] for an answer that is not a success or cannot be read, and
// the client's error where there is no answer.
func (a ask) do(ctx context.Context, client *http.Client, into any) error {
	req, err := a.request(ctx)
	if err != nil {
		return err
	}
	own := *client
	own.CheckRedirect = a.redirect
	resp, err := own.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", a.what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostBytes))
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", a.what, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return a.failure(resp.StatusCode, body)
	}
	if into != nil && json.Unmarshal(body, into) != nil { // the decoder's error can have a part of the answer
		return &Error{Asked: a.what, Status: resp.StatusCode, Code: "unreadable_answer"}
	}
	return nil
}

func (a ask) request(ctx context.Context) (*http.Request, error) {
	var body []byte
	contentType := "application/x-www-form-urlencoded"
	if a.form != nil {
		body = []byte(a.form.Encode())
	}
	if a.json != nil {
		contentType = "application/json"
		var err error
		if body, err = json.Marshal(a.json); err != nil {
			return nil, fmt.Errorf("%s: %w", a.what, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, a.method, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.what, err)
	}
	req.Header.Set("Accept", "application/json")
	if a.method == http.MethodPost {
		req.Header.Set("Content-Type", contentType)
	}
	return req, nil
}

// mostRedirects is how many redirects are followed for one request.
const mostRedirects = 5

func (a ask) redirect(req *http.Request, via []*http.Request) error {
	if !a.forward {
		return http.ErrUseLastResponse
	}
	if len(via) > mostRedirects {
		return fmt.Errorf("more than %d redirects", mostRedirects)
	}
	return checkAddress("a redirect", req.URL.String())
}

// failure is the answer as an error.
func (a ask) failure(status int, body []byte) error {
	var answer struct {
		Code        string `json:"error"` // a Matrix error has text here, and its code in errcode
		Description string `json:"error_description"`
		Matrix      string `json:"errcode"`
	}
	_ = json.Unmarshal(body, &answer) // what a proxy says is not JSON
	no := &Error{Asked: a.what, Status: status, Code: plainCode(answer.Code)}
	if answer.Matrix != "" {
		no.Code = plainCode(answer.Matrix)
	}
	if !a.secret {
		no.Description = short(answer.Description)
	}
	return no
}

// checkAddress wants https, or a server on this machine.
func checkAddress(name, address string) error {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || parsed.User != nil {
		return fmt.Errorf("%s is no URL of a server: %w", name, ErrUnsupported)
	}
	if parsed.Scheme == "https" || parsed.Scheme == "http" && onThisMachine(parsed.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, ErrInsecure)
}

// onThisMachine tells whether nobody else can read what is sent to the host.
func onThisMachine(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}
