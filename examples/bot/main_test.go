package main

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/session"
)

// child makes the test's program the bot.
const child = "BOT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// world is a homeserver with the bot's account and a user.
type world struct {
	url    string
	config session.Config
	person *mautrix.Client
	home   id.RoomID // the bot has power here
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := fakehs.New(fakehs.Options{Mode: fakehs.Forking, Seed: 1})
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	account, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	password, err := server.Password(account.UserID)
	require.NoError(t, err)
	person, err := server.Register(t.Context(), "person")
	require.NoError(t, err)
	w := &world{url: listening.URL, person: person, config: session.Config{
		Homeserver: listening.URL, User: account.UserID.String(), Password: password, NoEncryption: true, Invites: session.Invites{Allow: []string{"*"}},
	}}
	w.home = w.room(t, 50)
	_, err = account.JoinRoomByID(t.Context(), w.home)
	require.NoError(t, err)
	_, err = account.Logout(t.Context())
	require.NoError(t, err)
	return w
}

// room is one to which the bot is invited, with that power.
func (w *world) room(t *testing.T, power int) id.RoomID {
	t.Helper()
	made, err := w.person.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{
		Preset: "private_chat", Invite: []id.UserID{id.UserID(w.config.User)},
		PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{w.person.UserID: 100, id.UserID(w.config.User): power}},
	})
	require.NoError(t, err)
	return made.RoomID
}

// start starts a replica in this process.
func (w *world) start(t *testing.T) {
	t.Helper()
	config := w.config
	config.Dir = filepath.Join(t.TempDir(), "data")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan error, 1)
	go func() { over <- run(ctx, config, w.home.String()) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-over)
	})
}

func (w *world) say(t *testing.T, room id.RoomID, text string) {
	t.Helper()
	_, err := w.person.SendText(t.Context(), room, text)
	require.NoError(t, err)
}

// answers are what the bot has said, the oldest first.
func (w *world) answers(t *testing.T, room id.RoomID) (texts []string) {
	t.Helper()
	page, err := w.person.Messages(t.Context(), room, "", "", mautrix.DirectionBackward, nil, 100)
	require.NoError(t, err)
	for _, evt := range slices.Backward(page.Chunk) {
		if evt.Sender == id.UserID(w.config.User) && evt.Type.Type == event.EventMessage.Type {
			text, _ := evt.Content.Raw["body"].(string)
			texts = append(texts, text)
		}
	}
	return texts
}

// hears waits until the bot has said all that, and nothing else.
func (w *world) hears(t *testing.T, within time.Duration, room id.RoomID, want ...string) {
	t.Helper()
	before := time.Now()
	assert.Eventually(t, func() bool { return len(w.answers(t, room)) >= len(want) }, within, 20*time.Millisecond)
	t.Logf("%q after %v", want[len(want)-1], time.Since(before))
	assert.Equal(t, want, w.answers(t, room))
}

func (w *world) joins(t *testing.T, room id.RoomID) {
	t.Helper()
	assert.Eventually(t, func() bool {
		members, err := w.person.JoinedMembers(t.Context(), room)
		require.NoError(t, err)
		return members.Joined[id.UserID(w.config.User)].DisplayName != "" || len(members.Joined) == 2
	}, 10*time.Second, 20*time.Millisecond)
}

func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(t)
	w.start(t)
	strong, weak := w.room(t, 50), w.room(t, 0)
	for _, room := range []id.RoomID{strong, weak} {
		w.joins(t, room)
	}
	time.Sleep(3 * time.Second) // a replica has the lease
	for _, room := range []id.RoomID{strong, weak} {
		w.say(t, room, "!unit points")
		w.hears(t, 30*time.Second, room, "Done.")
		w.say(t, room, "!score alice")
		w.hears(t, 30*time.Second, room, "Done.", "alice: 1 points")
		w.say(t, room, "!score alice")
		w.hears(t, 30*time.Second, room, "Done.", "alice: 1 points", "alice: 2 points")
		w.say(t, room, "!poll Tea? / yes / no")
		w.hears(t, 30*time.Second, room, "Done.", "alice: 1 points", "alice: 2 points", "Done.")
		so := []string{"Done.", "alice: 1 points", "alice: 2 points", "Done."}
		for text, answer := range map[string]string{"!vote 3": "That did not work.", "!vote 2": "Tea? map[no:1]", "!vote 1": "Tea? map[yes:1]"} {
			w.say(t, room, text)
			so = append(so, answer)
			w.hears(t, 30*time.Second, room, so...)
		}
	}
	time.Sleep(time.Second)
	assert.Len(t, w.answers(t, strong), 7, "one replica answers")
	reader, err := roomkv.New(w.person, strong.String())
	require.NoError(t, err)
	points, err := roomkv.Get[int](t.Context(), reader, "score/alice")
	require.NoError(t, err)
	assert.Equal(t, 2, points)
	_, err = roomkv.Get[int](t.Context(), reader, "setting/none")
	require.ErrorIs(t, err, roomkv.ErrNotFound)
}

// process starts a replica in a process of its own.
func (w *world) process(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	program := exec.CommandContext(t.Context(), os.Args[0])
	program.Env = append(os.Environ(), child+"=1", "BOT_ROOM="+w.home.String(), session.EnvHomeserver+"="+w.url, session.EnvUser+"="+w.config.User,
		session.EnvPassword+"="+w.config.Password, session.EnvDir+"="+dir, session.EnvNoEncryption+"=true")
	program.Stdout, program.Stderr = t.Output(), t.Output()
	require.NoError(t, program.Start())
	return program
}

func TestRemindersSurviveAKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "data")
	first := w.process(t, dir)
	time.Sleep(2 * time.Second)
	w.say(t, w.home, "!remind 4s tea")
	w.hears(t, 20*time.Second, w.home, "Done.")
	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	w.say(t, w.home, "!score bob") // while nobody is there
	second := w.process(t, dir)
	assert.Eventually(t, func() bool { return slices.Contains(w.answers(t, w.home), "Reminder: tea") }, 90*time.Second, 100*time.Millisecond)
	assert.ElementsMatch(t, []string{"Done.", "bob: 1 ", "Reminder: tea"}, w.answers(t, w.home))
	require.NoError(t, second.Process.Signal(os.Interrupt))
	assert.NoError(t, second.Wait(), "it ends cleanly")
}

func TestIsShort(t *testing.T) {
	text, err := os.ReadFile("main.go")
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(text), "\n"), 150)
}
