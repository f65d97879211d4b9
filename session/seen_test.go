package session

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seen is what bots ask a homeserver, and what they log.
type seen struct {
	log logged // of all bots, at trace level

	mu      sync.Mutex
	asked   map[string]int // how often, by the last part of the path
	secrets map[string]bool
}

func newSeen() seen { return seen{asked: map[string]int{}, secrets: map[string]bool{}} }

// request counts a request.
func (s *seen) request(req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]]++
}

// answer notes the tokens that an answer gives.
func (s *seen) answer(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var given struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err == nil && json.Unmarshal(body, &given) == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, token := range []string{given.Access, given.Refresh} {
			if token != "" {
				s.secrets[token] = true
			}
		}
	}
	return err
}

// requests is how often an endpoint was asked, by the last part of its path.
func (s *seen) requests(last string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[last]
}

// all is how many requests there were since the last call.
func (s *seen) all() (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.asked {
		count += of
	}
	clear(s.asked)
	return count
}

// private asserts that others can read nothing in the folder, and that the log has no secret.
func (s *seen) private(t *testing.T, dir string, texts ...string) {
	t.Helper()
	about, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), about.Mode().Perm(), dir)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.NotEmpty(t, files)
	for _, file := range files {
		about, err := file.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), about.Mode().Perm(), filepath.Join(dir, file.Name()))
	}
	s.silent(t, texts...)
}

// silent asserts that neither the log nor the texts have a secret.
func (s *seen) silent(t *testing.T, texts ...string) {
	t.Helper()
	text := s.log.String() + strings.Join(texts, "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Greater(t, len(s.secrets), 1)
	for secret := range s.secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret is in: %s", text[max(0, at-300):min(len(text), at+len(secret)+50)])
		}
	}
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
