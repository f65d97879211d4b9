package authserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/oauth"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// kept is a folder with the session of a new user.
func kept(t *testing.T, user string) (dir string, given oauth.Tokens) {
	t.Helper()
	given = signIn(t, user)
	dir = t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	files, err := folder.Open(dir)
	require.NoError(t, err)
	require.NoError(t, tokens.Save(files, tokens.Token{
		Homeserver: shared.hs, UserID: id.NewUserID(user, shared.name), DeviceID: given.Device, AccessToken: given.Access, RefreshToken: given.Refresh, Expires: given.Expires,
		OAuth: &tokens.OAuthClient{ClientID: given.ClientID, TokenEndpoint: given.TokenEndpoint, RevocationEndpoint: given.RevocationEndpoint},
	}))
	return dir, given
}

// keeping is a client whose session a keeper keeps in the folder.
func keeping(dir string) (*mautrix.Client, *tokens.Keeper, error) {
	files, err := folder.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	token, found, err := tokens.Load(files)
	if err != nil || !found {
		return nil, nil, fmt.Errorf("found %t: %w", found, err)
	}
	client, err := mautrix.NewClient(token.Homeserver, token.UserID, "")
	if err != nil {
		return nil, nil, err
	}
	client.DefaultHTTPRetries = 0
	keeper := tokens.NewKeeper(tokens.Config{
		Token: token, Files: files, Refresher: tokens.Refreshing(token, web, time.Now), Now: time.Now, Log: zerolog.Nop(), Changed: tokens.Changed(client),
	})
	client.Client = &http.Client{Transport: keeper.Transport(http.DefaultTransport)}
	return client, keeper, nil
}

// kind is the type of state that tests write.
var kind = event.Type{Type: "com.example.kind", Class: event.StateEventType}

// Arguments of a process that writes: a folder, a room, a name for its keys.
const (
	writes      = "write"
	writingTime = 6 * time.Second       // at least
	writings    = 20                    // at least
	writeEvery  = 50 * time.Millisecond // 20 a second
)

// write writes state to a room, and prints each key that the homeserver has acknowledged.
func write(dir string, room id.RoomID, name string) error {
	client, keeper, err := keeping(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i, end := 0, time.Now().Add(writingTime); i < writings || time.Now().Before(end); i++ {
		key := fmt.Sprintf("%s-%d", name, i)
		if _, err := client.SendStateEvent(ctx, room, kind, key, map[string]any{"i": i}); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		fmt.Println(key)
		time.Sleep(writeEvery)
	}
	return keeper.Close(ctx)
}

// Two processes have one folder, and so one refresh token, which is good once.
func TestRotationWithTwoProcesses(t *testing.T) {
	t.Parallel()
	name := user()
	shared.auth.SetLife(name, 3*time.Second)
	dir, given := kept(t, name)
	shared.auth.Delay(given.ClientID, 4*writeEvery) // so that each process wants a token while the other gets one
	client := matrix(t, given.Access)
	client.UserID = id.NewUserID(name, shared.name)
	room, err := client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{})
	require.NoError(t, err)

	var processes [2]*exec.Cmd
	var said [2]bytes.Buffer
	for i := range processes {
		processes[i] = exec.CommandContext(t.Context(), os.Args[0], writes, dir, string(room.RoomID), fmt.Sprint("process", i))
		processes[i].Stdout, processes[i].Stderr = &said[i], t.Output()
		require.NoError(t, processes[i].Start())
	}
	for _, process := range processes {
		assert.NoError(t, process.Wait())
	}
	done, replayed := shared.auth.Refreshes(name)
	assert.GreaterOrEqual(t, done, 2)
	assert.Zero(t, replayed, "no process used a refresh token that the other had used")

	client, _, err = keeping(dir)
	require.NoError(t, err)
	state, err := client.State(t.Context(), room.RoomID)
	require.NoError(t, err)
	for i := range said {
		keys := 0
		for lines := bufio.NewScanner(&said[i]); lines.Scan(); keys++ {
			assert.Contains(t, state[kind], lines.Text(), "it was acknowledged")
		}
		assert.GreaterOrEqual(t, keys, writings)
	}
	about, err := os.Stat(dir + "/token.json")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), about.Mode().Perm())
}

func TestKeeperWithServerInTrouble(t *testing.T) {
	t.Parallel()
	name := user()
	shared.auth.SetLife(name, 2*time.Second)
	dir, given := kept(t, name)
	client, keeper, err := keeping(dir)
	require.NoError(t, err)
	shared.auth.Fail(given.ClientID, http.StatusBadGateway, 3)
	time.Sleep(time.Until(given.Expires))
	_, err = client.Whoami(t.Context())
	require.ErrorContains(t, err, "502", "the token has ended, and there is no other yet")
	require.NotErrorIs(t, err, tokens.ErrSignedOut)
	require.Eventually(t, func() bool {
		_, err := client.Whoami(t.Context())
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(t, keeper.Close(t.Context()))
	done, _ := shared.auth.Refreshes(name)
	assert.GreaterOrEqual(t, done, 1)
}

func TestKeeperOfRevokedSession(t *testing.T) {
	t.Parallel()
	name := user()
	dir, _ := kept(t, name)
	client, keeper, err := keeping(dir)
	require.NoError(t, err)
	_, err = client.Whoami(t.Context())
	require.NoError(t, err)
	require.NoError(t, shared.auth.End(t.Context(), name))
	start := time.Now()
	_, err = client.Whoami(t.Context())
	require.ErrorIs(t, err, tokens.ErrSignedOut)
	assert.Less(t, time.Since(start), 5*time.Second)
	<-keeper.Ended()
	text, err := os.ReadFile(dir + "/token.json")
	require.NoError(t, err)
	assert.False(t, strings.Contains(string(text), "refresh_"), "a session that has ended is not kept")
}
