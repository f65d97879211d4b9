package fakehs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/id"
)

// request is one that has come in.
type request struct {
	*http.Request
	vars   map[string]string // the parts of the path that the route names
	query  url.Values
	body   []byte
	device *device // whose it is, nil where the route does not ask
	token  string  // by which that is known
}

func (r *request) room() id.RoomID   { return id.RoomID(r.vars["room"]) }
func (r *request) event() id.EventID { return id.EventID(r.vars["event"]) }

// read decodes the request's body. An empty one is an empty object.
func (r *request) read(into any) error {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return refuse(http.StatusBadRequest, "M_NOT_JSON", "the body cannot be read: %v", err)
	}
	return nil
}

// number is what the query has under the name.
func (r *request) number(name string, otherwise int) int {
	if number, err := strconv.Atoi(r.query.Get(name)); err == nil {
		return number
	}
	return otherwise
}

// object is the answer of most requests.
type object map[string]any

// raw is an answer that is not JSON.
type raw struct {
	contentType string
	body        []byte
}

// refusal is an answer that says no.
type refusal struct {
	status int
	code   string
	text   string
	more   object // further fields of the body
	header http.Header
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.code, r.text) }

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, text: fmt.Sprintf(format, args...)}
}

func forbid(format string, args ...any) *refusal {
	return refuse(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

func notFound(format string, args ...any) *refusal {
	return refuse(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// encode makes an answer of what a handler gave.
func encode(result any, err error) answer {
	var no *refusal
	switch {
	case errors.As(err, &no):
		body := object{"error": no.text}
		if no.code != "" {
			body["errcode"] = no.code
		}
		for name, value := range no.more {
			body[name] = value
		}
		if no.code == "" { // user-interactive authentication
			delete(body, "error")
		}
		given := encode(body, nil)
		given.status = no.status
		for name, values := range no.header {
			given.header[name] = values
		}
		return given
	case err != nil:
		return encode(nil, refuse(http.StatusInternalServerError, "M_UNKNOWN", "%v", err))
	}
	if file, ok := result.(raw); ok {
		return answer{http.StatusOK, http.Header{"Content-Type": {file.contentType}}, file.body}
	}
	text, err := json.Marshal(result)
	if err != nil {
		return encode(nil, err)
	}
	return answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, text}
}

// RoundTrip implements [http.RoundTripper]. What a request does goes on when its context has ended, as on a real server.
func (s *Server) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil { // such a request is not sent, as with [http.Transport]
		return nil, err
	}
	body, err := readAll(req.Body)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		resp *http.Response
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		resp, err := s.pass(req, body)
		done <- outcome{resp, err}
	}()
	select {
	case given := <-done:
		return given.resp, given.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	resp, err := s.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func readAll(body io.ReadCloser) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	text, err := io.ReadAll(body)
	return text, errors.Join(err, body.Close())
}

// serve gives the response to a request.
func (s *Server) serve(req *http.Request, body []byte) *http.Response {
	given := s.answer(req, body)
	given.header.Set("Content-Length", strconv.Itoa(len(given.body)))
	given.header.Set("Date", s.date())
	return &http.Response{
		Status:        strconv.Itoa(given.status) + " " + http.StatusText(given.status),
		StatusCode:    given.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        given.header,
		Body:          io.NopCloser(bytes.NewReader(given.body)),
		ContentLength: int64(len(given.body)),
		Request:       req,
	}
}

func (s *Server) answer(req *http.Request, body []byte) answer {
	route, vars, other := match(req.Method, req.URL.EscapedPath())
	if route == nil {
		s.complain(req)
		status := http.StatusNotFound
		if other {
			status = http.StatusMethodNotAllowed
		}
		return encode(nil, refuse(status, "M_UNRECOGNIZED", "Unrecognized request"))
	}
	if err := s.closed(route); err != nil {
		return encode(nil, err)
	}
	r := &request{Request: req, vars: vars, query: req.URL.Query(), body: body}
	if !route.open {
		err := s.authenticate(r)
		if err == nil {
			err = s.throttle(r)
		}
		if err != nil {
			return encode(nil, err)
		}
	}
	if route.slow != nil {
		if route.method != http.MethodGet {
			r.Request = req.WithContext(context.WithoutCancel(req.Context()))
		}
		return encode(route.slow(s, r))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return encode(route.quick(s, r))
}

func (s *Server) complain(req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints = append(s.complaints, req.Method+" "+req.URL.Path)
}

// authenticate finds out whose a request is.
func (s *Server) authenticate(r *request) (err error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "missing access token")
	}
	s.mu.Lock()
	delegation, known := s.delegation, s.tokens[token]
	r.token = token
	if known != nil {
		r.device, err = known.device, s.use(known)
		r.device.seen = s.now()
	} else {
		r.device, err = s.masquerade(token, r)
	}
	s.mu.Unlock()
	switch {
	case r.device != nil || err != nil:
	case delegation != nil:
		r.device, err = s.introspected(r.Context(), delegation, token)
	default:
		err = s.unknownToken("unknown access token", false)
	}
	return err
}
