package secure_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/secure"
)

var errKilled = errors.New("the process was killed")

// killed is a transport of a process that ends with its n-th request: no further one is sent, and the n-th is either not sent, or nobody hears what
// came of it.
type killed struct {
	next http.RoundTripper
	n    int64
	sent bool
	so   atomic.Int64
}

func (k *killed) RoundTrip(req *http.Request) (*http.Response, error) {
	switch so := k.so.Add(1); {
	case so < k.n:
		return k.next.RoundTrip(req)
	case so == k.n && k.sent:
		if resp, err := k.next.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	return nil, errKilled
}

func TestAKilledSetUpIsMendedByTheNextStart(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		for _, sent := range []bool{false, true} {
			for n := int64(1); ; n++ {
				if done := killAt(t, server, n, sent); done {
					t.Logf("a set-up was killed at each of its %d requests (sent: %v)", n-1, sent)
					assert.Greater(t, n, int64(15))
					break
				}
			}
		}
	})
}

// killAt kills a set-up at its n-th request, and the next start as well. It tells whether the set-up had less requests.
func killAt(t *testing.T, server server, n int64, sent bool) (done bool) {
	t.Helper()
	what := fmt.Sprintf("killed at request %d, sent: %v", n, sent)
	bot := newAccount(t, server)
	keys := map[string]bool{}
	start := func(n int64) error {
		client, _ := bot.client(t)
		client.Client = &http.Client{Transport: &killed{next: client.Client.Transport, n: n, sent: sent}}
		opened, err := secure.Open(mautrix.WithMaxRetries(t.Context(), 0), bot.config(t, client, ""))
		if text, err := os.ReadFile(filepath.Join(bot.dir, "recovery.key")); err == nil {
			keys[strings.TrimSpace(string(text))] = true
		}
		if err == nil {
			require.NoError(t, opened.Close())
		}
		return err
	}
	err := start(n)
	if err == nil {
		return true
	}
	require.ErrorIs(t, err, errKilled, what)
	if err := start(n/2 + 1); err != nil { // the next start is killed too, where it has so many requests
		require.ErrorIs(t, err, errKilled, what)
	}
	opened, _ := bot.open(t, "")
	keys[bot.key(t)] = true
	assert.Len(t, keys, 1, what)
	all, chosen := bot.storageKeys(t)
	assert.Equal(t, []string{chosen}, all, what)
	assert.Equal(t, id.TrustStateCrossSignedTOFU, bot.seenAs(t), what)
	assert.NotEmpty(t, opened.Backup().Version(), what)
	require.NoError(t, opened.Close())

	// What is there can be opened without the folder.
	next, err := server.NewDevice(t.Context(), bot.user)
	require.NoError(t, err)
	key := bot.key(t)
	bot.device, bot.token, bot.dir = next.DeviceID, next.AccessToken, ""
	_, _ = bot.open(t, key)
	return t.Failed()
}
