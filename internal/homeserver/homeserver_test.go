package homeserver_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

const victimEnv = "ROOMKV_TEST_VICTIM"

func TestMain(m *testing.M) {
	if how := os.Getenv(victimEnv); how != "" {
		beVictim(how)
	}
	hstest.Main(m)
}

func TestAccounts(t *testing.T) {
	server := hstest.Server(t)
	alice, err := server.Register(t.Context(), "alice")
	require.NoError(t, err)
	bob, err := server.Register(t.Context(), "alice")
	require.NoError(t, err)
	assert.NotEqual(t, alice.UserID, bob.UserID)

	phone, err := server.NewDevice(t.Context(), alice.UserID)
	require.NoError(t, err)
	assert.Equal(t, alice.UserID, phone.UserID)
	assert.NotEqual(t, alice.DeviceID, phone.DeviceID)
	who, err := phone.Whoami(t.Context())
	require.NoError(t, err)
	assert.Equal(t, phone.DeviceID, who.DeviceID)

	_, err = server.Login(t.Context(), alice.UserID.String(), "wrong")
	require.ErrorIs(t, err, mautrix.MForbidden)
	_, err = server.NewDevice(t.Context(), "@stranger:localhost")
	require.Error(t, err)
}

func TestRecorder(t *testing.T) {
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	recorder := hstest.Record(client)
	test := event.Type{Type: "com.example.test", Class: event.StateEventType}

	_, err := client.SendStateEvent(t.Context(), room, test, "a/b", map[string]int{"n": 1})
	require.NoError(t, err)
	var content struct{ N int }
	require.NoError(t, client.StateEvent(t.Context(), room, test, "a/b", &content))
	assert.Equal(t, 1, content.N, "a recorded response still arrives")

	requests := recorder.Requests()
	require.Len(t, requests, 2)
	assert.Equal(t, 2, recorder.Count())
	assert.Equal(t, http.MethodPut, requests[0].Method)
	assert.True(t, strings.HasSuffix(requests[0].Path, "/com.example.test/a%2Fb"), requests[0].Path)
	assert.JSONEq(t, `{"n":1}`, string(requests[0].Body))
	assert.Equal(t, http.StatusOK, requests[0].Status)
	assert.JSONEq(t, `{"n":1}`, string(requests[1].Response))
	recorder.Reset()
	assert.Zero(t, recorder.Count())
}

// ownServer is a Dendrite of this test alone, whatever server the other tests use.
func ownServer(t *testing.T) *homeserver.Server {
	server, err := homeserver.Start(t.Context())
	require.NoError(t, err)
	return server
}

func TestCloseStopsTheServer(t *testing.T) {
	server := ownServer(t)
	assert.True(t, answers(server.URL))
	require.NoError(t, server.Close())
	assert.False(t, answers(server.URL))
	require.NoError(t, server.Close(), "closing twice is one closing")
}

// What a server had acknowledged is there when it runs again.
func TestKilledServerRunsAgain(t *testing.T) {
	server, err := homeserver.Start(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, server.Close()) }()
	client, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	room := hstest.Room(t, client)
	test := event.Type{Type: "com.example.test", Class: event.StateEventType}
	for i := range 3 {
		_, err := client.SendStateEvent(t.Context(), room, test, "", map[string]int{"n": i})
		require.NoError(t, err)
		require.NoError(t, server.Kill())
		assert.False(t, answers(server.URL))
		require.NoError(t, server.Kill(), "killing twice is one kill")
		require.NoError(t, server.Restart(t.Context()))
		var content struct{ N int }
		require.NoError(t, client.StateEvent(t.Context(), room, test, "", &content))
		assert.Equal(t, i, content.N)
	}
	require.NoError(t, server.Restart(t.Context()), "a server that runs is left alone")
	assert.True(t, answers(server.URL))
}

// Dendrite acknowledges room events and to-device messages while they wait in a queue for what serves them: GET /event, GET /messages and sync.
// Those that wait when the server is killed come late, at the latest when the queue gives them out again, after 30 seconds.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	server := ownServer(t)
	defer func() { assert.NoError(t, server.Close()) }()
	sender, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	receiver, err := server.NewDevice(t.Context(), sender.UserID)
	require.NoError(t, err)

	const senders = 8
	var rooms []id.RoomID
	for range senders {
		rooms = append(rooms, hstest.Room(t, sender))
	}
	var mu sync.Mutex
	events := map[id.EventID]id.RoomID{} // that were acknowledged and not found yet
	messages := map[string]bool{}
	for round := range 3 {
		var group sync.WaitGroup
		for i, room := range rooms {
			group.Go(func() {
				for {
					sent, err := sender.SendText(t.Context(), room, "text")
					if err != nil {
						return
					}
					mu.Lock()
					events[sent.EventID] = room
					mu.Unlock()
				}
			})
			group.Go(func() {
				for j := 0; ; j++ {
					name := fmt.Sprint(round, " ", i, " ", j)
					_, err := sender.SendToDevice(t.Context(), event.Type{Type: "com.example.test", Class: event.ToDeviceEventType}, &mautrix.ReqSendToDevice{
						Messages: map[id.UserID]map[id.DeviceID]*event.Content{receiver.UserID: {receiver.DeviceID: {Raw: map[string]any{"name": name}}}},
					})
					if err != nil {
						return
					}
					mu.Lock()
					messages[name] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Second)
		require.NoError(t, server.Kill())
		group.Wait()
		require.NoError(t, server.Restart(t.Context()))
	}
	assert.NotEmpty(t, events)
	assert.NotEmpty(t, messages)

	since := ""
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end) && len(events)+len(messages) > 0; time.Sleep(100 * time.Millisecond) {
		for sent, room := range events {
			if _, err := sender.GetEvent(t.Context(), room, sent); err == nil {
				delete(events, sent)
			}
		}
		sync, err := receiver.SyncRequest(t.Context(), 0, since, "", false, "")
		require.NoError(t, err)
		since = sync.NextBatch
		for _, evt := range sync.ToDevice.Events {
			name, _ := evt.Content.Raw["name"].(string)
			delete(messages, name)
		}
	}
	assert.Empty(t, events, "events that were acknowledged")
	assert.Empty(t, messages, "to-device messages that were acknowledged")
}

func TestSeveralServersAtOnce(t *testing.T) {
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			server, err := homeserver.Start(t.Context())
			if assert.NoError(t, err) {
				assert.True(t, answers(server.URL))
				assert.NoError(t, server.Close())
			}
		})
	}
	group.Wait()
}

func TestFromEnvNamesTheVariable(t *testing.T) {
	t.Setenv(homeserver.EnvURL, "http://127.0.0.1:1")
	_, err := homeserver.FromEnv(t.Context())
	require.ErrorContains(t, err, homeserver.EnvURL)
}

// A test binary can end without running a line of its own: at go test's timeout, or killed.
func TestServerEndsWithItsProcess(t *testing.T) {
	for _, how := range []string{"panic", "exit", "wait for SIGINT", "wait for SIGKILL"} {
		t.Run(how, func(t *testing.T) {
			temp := t.TempDir()
			victim := exec.Command(os.Args[0], "-test.run=^$")
			victim.Env = append(os.Environ(), victimEnv+"="+how, "TMPDIR="+temp)
			out, err := victim.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, victim.Start())
			url, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			url = strings.TrimSpace(url)
			switch how {
			case "wait for SIGINT":
				require.NoError(t, victim.Process.Signal(os.Interrupt))
			case "wait for SIGKILL":
				require.NoError(t, victim.Process.Kill())
			}
			require.Error(t, victim.Wait())
			assert.Eventually(t, func() bool {
				left, err := os.ReadDir(temp)
				return err == nil && len(left) == 0 && !answers(url)
			}, 10*time.Second, 20*time.Millisecond, "the server or its folder is still there")
		})
	}
}

// beVictim is the other process of TestServerEndsWithItsProcess.
func beVictim(how string) {
	server, err := homeserver.Start(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	fmt.Println(server.URL)
	switch how {
	case "panic":
		panic(how)
	case "exit":
		os.Exit(3)
	}
	select {}
}

func answers(url string) bool {
	resp, err := http.Get(url + "/_matrix/client/versions")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
