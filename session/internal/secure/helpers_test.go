package secure_test

import (
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/secure"
)

var onReal = flag.Bool("real", false, "run the tests also on Dendrite, or on the homeserver that ROOMKV_HOMESERVER names")

func TestMain(m *testing.M) {
	flag.Parse()
	if *onReal {
		hstest.Main(m)
	}
	os.Exit(m.Run())
}

// server is a homeserver, in memory or a real one.
type server interface {
	Register(ctx context.Context, prefix string) (*mautrix.Client, error)
	NewDevice(ctx context.Context, user id.UserID) (*mautrix.Client, error)
	Password(user id.UserID) (string, error)
}

// each runs a test on the homeservers in memory, and on a real one where the flag says so.
func each(t *testing.T, test func(t *testing.T, server server)) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			test(t, fakehstest.New(t, fakehs.Options{Mode: mode, Name: fakehstest.Name()}))
		})
	}
	if *onReal {
		t.Run("real", func(t *testing.T) { test(t, hstest.Server(t)) })
	}
}

func register(t *testing.T, server server) *mautrix.Client {
	client, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	return client
}

// account is a bot's account, and what its process has between two starts.
type account struct {
	server   server
	like     *mautrix.Client // has the way to the homeserver
	user     id.UserID
	password string
	device   id.DeviceID
	token    string
	dir      string // "" where nothing is kept
}

// newAccount is an account with a device and a folder, and with nothing set up.
func newAccount(t *testing.T, server server) *account {
	client := register(t, server)
	password, err := server.Password(client.UserID)
	require.NoError(t, err)
	return &account{server, client, client.UserID, password, client.DeviceID, client.AccessToken, t.TempDir()}
}

// client is that of a process that begins, with its requests.
func (a *account) client(t *testing.T) (*mautrix.Client, *hstest.Recorder) {
	client, err := mautrix.NewClient(a.like.HomeserverURL.String(), a.user, a.token)
	require.NoError(t, err)
	client.DeviceID = a.device
	client.Client = &http.Client{Transport: a.like.Client.Transport}
	client.DefaultHTTPBackoff = time.Millisecond
	return client, hstest.Record(client)
}

func (a *account) config(t *testing.T, client *mautrix.Client, recoveryKey string) secure.Config {
	files, err := folder.Open(a.dir)
	require.NoError(t, err)
	return secure.Config{Client: client, Folder: files, RecoveryKey: recoveryKey, Password: a.password}
}

// open starts the bot. It ends with the test, or when the test closes it.
func (a *account) open(t *testing.T, recoveryKey string) (*secure.Crypto, *hstest.Recorder) {
	client, wire := a.client(t)
	opened, err := secure.Open(t.Context(), a.config(t, client, recoveryKey))
	require.NoError(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	return opened, wire
}

// fails starts the bot in vain.
func (a *account) fails(t *testing.T, recoveryKey string) error {
	client, wire := a.client(t)
	opened, err := secure.Open(t.Context(), a.config(t, client, recoveryKey))
	require.Error(t, err)
	assert.Nil(t, opened)
	if recoveryKey != "" {
		assert.NotContains(t, err.Error(), recoveryKey)
	}
	for _, request := range wire.Requests() {
		if changes(request.Method, request.Path) {
			assert.Contains(t, request.Path, "/keys/upload", "a start that fails changes nothing but the device's own keys")
		}
	}
	return err
}

// key is the recovery key that the folder keeps.
func (a *account) key(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(a.dir, "recovery.key"))
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

// changes tells whether a request puts something on the homeserver.
func changes(method, path string) bool {
	return method != http.MethodGet && !strings.HasSuffix(path, "/keys/query")
}

// storageKeys are the keys of secret storage that are described on the homeserver, and the default one.
func (a *account) storageKeys(t *testing.T) (all []string, chosen string) {
	client, _ := a.client(t)
	response, err := client.SyncRequest(t.Context(), 0, "", "", true, "")
	require.NoError(t, err)
	for _, evt := range response.AccountData.Events {
		if name, ok := strings.CutPrefix(evt.Type.Type, "m.secret_storage.key."); ok {
			all = append(all, name)
		}
	}
	var content struct {
		Key string `json:"key"`
	}
	require.NoError(t, client.GetAccountData(t.Context(), "m.secret_storage.default_key", &content))
	return all, content.Key
}

// stranger is another account's client with encryption.
func stranger(t *testing.T, server server) (*mautrix.Client, *crypto.OlmMachine) {
	client := register(t, server)
	return client, hstest.Crypto(t, client).Machine()
}

// seenAs is what another account's client makes of the bot's device.
func (a *account) seenAs(t *testing.T) id.TrustState {
	_, machine := stranger(t, a.server)
	devices, err := machine.FetchKeys(t.Context(), []id.UserID{a.user}, true)
	require.NoError(t, err)
	require.Contains(t, devices[a.user], a.device)
	trust, err := machine.ResolveTrustContext(t.Context(), devices[a.user][a.device])
	require.NoError(t, err)
	return trust
}
