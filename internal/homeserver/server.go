// Package homeserver gives tests, benchmarks and the quickstart a real Matrix homeserver.
//
// Start builds Dendrite from the version that the nested module dendrite pins, keeps the binary in the
// user's cache folder, and runs it on a free loopback port with SQLite in a temporary folder. FromEnv uses
// a server that already runs instead. StartPair runs two servers that federate with each other only. Nothing
// here is for production: registration is open, rate limits are off, a server on its own does not federate,
// and the data is gone when the server stops.
package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"maunium.net/go/mautrix"
)

// EnvURL names the environment variable that holds the base URL of a running homeserver, for example
// http://127.0.0.1:8008, which is then used instead of a Dendrite of our own.
const EnvURL = "ROOMKV_HOMESERVER"

const (
	startTimeout = 60 * time.Second
	startTries   = 3 // a free port can be taken by somebody else before Dendrite binds it
)

// Server is a running homeserver. Its methods are safe for concurrent use.
type Server struct {
	URL string // base URL of the client-server API, without a trailing slash

	stop      func() error
	dir       string   // its folder; empty where the server was not started here
	keeper    *keeper  // nil where the server was not started here
	passwords sync.Map // id.UserID → string, of the users that Register made
}

// FromEnv returns the server that ROOMKV_HOMESERVER names, or starts one where the variable is empty.
func FromEnv(ctx context.Context) (*Server, error) {
	url := os.Getenv(EnvURL)
	if url == "" {
		return Start(ctx)
	}
	probe, err := mautrix.NewClient(url, "", "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EnvURL, err)
	}
	if _, err := probe.Versions(ctx); err != nil {
		return nil, fmt.Errorf("%s=%s does not answer as a Matrix homeserver: %w", EnvURL, url, err)
	}
	return At(url), nil
}

// At is a server that runs already, at a base URL without a trailing slash.
func At(url string) *Server { return &Server{URL: url, stop: func() error { return nil }} }

// Start builds Dendrite where the cache has none, and runs it. The caller must Close it; when the calling
// process ends without that, however it ends, the server is stopped and its data removed all the same.
func Start(ctx context.Context) (*Server, error) { return startNamed(ctx, ownName) }

func startNamed(ctx context.Context, name string) (*Server, error) {
	binary, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		server, err := start(ctx, binary, name)
		if err == nil || try == startTries || ctx.Err() != nil {
			return server, err
		}
	}
}

func start(ctx context.Context, binary, name string) (*Server, error) {
	dir, err := dataFolder("roomkv-homeserver-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err == nil {
		err = writeConfig(dir, name)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}

	keeper, err := startKeeper(dir, binary, address)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	server := &Server{URL: "http://" + address, stop: sync.OnceValue(keeper.stop), dir: dir, keeper: keeper}
	if err := server.waitReady(ctx); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}

// Close ends the server at once, by SIGKILL, so to its clients and to its peer in a Pair this is a crash, and
// removes its data. A server that was already running is left alone.
func (s *Server) Close() error { return s.stop() }

// Kill ends the server at once, by SIGKILL, and leaves its data. Requests that it was at, and those that come before Restart, end with their
// connection. A server that runs no more is left alone.
func (s *Server) Kill() error { return s.order(orderKill) }

// Restart starts a server again that was killed, on its data and at the same URL, and returns when it answers.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.order(orderStart); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

func (s *Server) order(what byte) error {
	if s.keeper == nil {
		return fmt.Errorf("%s was not started here", s.URL)
	}
	return s.keeper.order(what)
}

// waitReady returns when the server answers. The error has the end of what the server printed.
func (s *Server) waitReady(ctx context.Context) error {
	if err := s.waitAnswer(ctx); err != nil {
		return fmt.Errorf("dendrite at %s: %w\n%s", s.URL, err, logTail(s.dir))
	}
	return nil
}

func (s *Server) waitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/_matrix/client/versions", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.keeper.exited:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", startTimeout, ctx.Err())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// logTail is the end of what the server printed, for the error of a server that would not start.
func logTail(dir string) string {
	const most = 4 << 10
	log, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}
