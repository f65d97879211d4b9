package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	headerTimeout = 10 * time.Second // for the header of a request to the listener
	lastPage      = time.Second      // for the browser to get the listener's last page
)

// ByListening signs in with a browser on this machine. It listens on 127.0.0.1, has show give a person the URL, and waits until the browser comes back,
// or ctx ends. A callback of another sign-in is answered with an error, and the waiting goes on.
func (s *Server) ByListening(ctx context.Context, who Who, redirect string, show func(ctx context.Context, url string) error) (Tokens, error) {
	listener, redirect, err := listen(redirect)
	if err != nil {
		return Tokens{}, err
	}
	defer listener.Close() // also by the HTTP server
	attempt, err := s.begin(who, redirect)
	if err != nil {
		return Tokens{}, err
	}
	address, err := attempt.url()
	if err != nil {
		return Tokens{}, err
	}
	callback := newCallback(attempt)
	server := &http.Server{Handler: callback, ReadHeaderTimeout: headerTimeout}
	server.SetKeepAlivesEnabled(false)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastPage)
		defer cancel()
		if server.Shutdown(ending) != nil {
			_ = server.Close()
		}
		<-served
	}()
	if err := show(ctx, address); err != nil {
		return Tokens{}, err
	}
	select {
	case back := <-callback.result:
		if back.err != nil {
			return Tokens{}, back.err
		}
		return attempt.exchange(ctx, back.code)
	case <-ctx.Done():
		return Tokens{}, fmt.Errorf("waiting for the browser: %w", ctx.Err())
	}
}

// listen listens where the redirect leads, and returns the redirect with the port.
func listen(redirect string) (net.Listener, string, error) {
	address, err := url.Parse(redirect)
	if err != nil || address.Scheme != "http" || !onThisMachine(address.Hostname()) {
		return nil, "", errors.New("the redirect must be http on 127.0.0.1 where this program listens: leave it out, or paste the callback's URL")
	}
	host := address.Hostname()
	if net.ParseIP(host) == nil {
		host = "127.0.0.1" // localhost
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, cmp.Or(address.Port(), "0")))
	if err != nil {
		return nil, "", fmt.Errorf("listening for the browser: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, "", errors.Join(err, listener.Close())
	}
	address.Host = net.JoinHostPort(address.Hostname(), port)
	return listener, address.String(), nil
}

// callback is where the browser comes back to.
type callback struct {
	attempt *attempt
	path    string
	result  chan back // the first that is of this sign-in
}

type back struct {
	code string
	err  error
}

func newCallback(a *attempt) *callback {
	path := "/"
	if address, err := url.Parse(a.redirect); err == nil {
		path = cmp.Or(address.Path, "/")
	}
	return &callback{attempt: a, path: path, result: make(chan back, 1)}
}

// ServeHTTP implements [http.Handler].
func (c *callback) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // the address has the code
	if req.URL.Path != c.path || req.Method != http.MethodGet {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	code, err := c.attempt.code(req.URL.Query())
	switch {
	case errors.Is(err, ErrState):
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "This is not the end of the sign-in that the bot waits for.\n")
		return
	case err != nil:
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "The bot is not signed in. You can close this page.\n")
	default:
		_, _ = io.WriteString(w, "The sign-in goes on in the bot. You can close this page.\n")
	}
	select {
	case c.result <- back{code, err}:
	default: // the browser has come twice
	}
}
