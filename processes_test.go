package roomkv_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// createRounds is how often processes race for a key: by default fewer than the 50 that were asked for, for time.
var createRounds = flag.Int("rounds", 10, "how often processes race to create a key")

// workerEnv is set in a worker only: a process of its own that writes to the same memory as others. It is this test
// binary, started again.
const workerEnv = "ROOMKV_TEST_WORKER"

// job is what a worker does.
type job struct {
	URL    string
	User   id.UserID
	Token  string
	Room   id.RoomID
	Layout string
	Name   string
	Do     string // put, update, create or opsdroid
	Times  int
	Many   int // goroutines
	Follow bool
}

func init() {
	if text := os.Getenv(workerEnv); text != "" {
		var j job
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			panic(err)
		}
		if err := j.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// run says "ready", waits for a line, works, and says one line for each write that was acknowledged, and at
// last how many requests all took.
func (j job) run() error {
	ctx := context.Background()
	client, err := mautrix.NewClient(j.URL, j.User, j.Token)
	if err != nil {
		return err
	}
	store, err := roomkv.New(client, j.Room.String(), layouts[j.Layout])
	if err != nil {
		return err
	}
	if j.Follow {
		if err := store.Follow(); err != nil {
			return err
		}
		go func() { _ = client.Sync() }()
		time.Sleep(300 * time.Millisecond)
	}
	if _, err := store.Keys(ctx); err != nil {
		return err
	}
	recorder := hstest.Record(client)
	fmt.Println("ready")
	input := bufio.NewReader(os.Stdin)
	var mu sync.Mutex
	say := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what)
	}
	for range max(1, j.rounds()) {
		if _, err := input.ReadString('\n'); err != nil {
			return err
		}
		var group sync.WaitGroup
		failed := make(chan error, max(1, j.Many))
		for worker := range max(1, j.Many) {
			group.Go(func() { failed <- j.work(ctx, store, client, worker, say) })
		}
		group.Wait()
		close(failed)
		for err := range failed {
			if err != nil {
				return err
			}
		}
		requests := 0
		for _, r := range recorder.Requests() {
			if !strings.HasSuffix(r.Path, "/sync") {
				requests++
			}
		}
		say(fmt.Sprintf("requests %d", requests))
	}
	return nil
}

func (j job) rounds() int {
	if j.Do == "create" {
		return j.Times
	}
	return 1
}

func (j job) work(ctx context.Context, store *roomkv.Store, client *mautrix.Client, worker int, say func(string)) error {
	if j.Do == "create" {
		switch err := store.Create(ctx, "round", j.Name); {
		case err == nil:
			say("won")
		case errors.Is(err, roomkv.ErrExists):
			say("lost")
		default:
			return err
		}
		return nil
	}
	for i := range j.Times {
		key := fmt.Sprintf("%s/%d/%d", j.Name, worker, i)
		var err error
		switch j.Do {
		case "put":
			err = store.Put(ctx, key, i)
		case "update":
			err = roomkv.Update(ctx, store, "counter", func(old int, _ bool) (int, error) { return old + 1, nil })
		case "opsdroid":
			content := map[string]any{}
			if err = client.StateEvent(ctx, j.Room, database, "", &content); err == nil || errors.Is(err, mautrix.MNotFound) {
				content[key] = i
				_, err = client.SendStateEvent(ctx, j.Room, database, "", content)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		say(key)
	}
	return nil
}

// process is a worker from outside.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines chan string
}

func start(t testing.TB, j job) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(j)
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd, input, make(chan string, 10_000)}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
		_ = cmd.Wait()
	}()
	require.Equal(t, "ready", <-p.lines)
	return p
}

func (p *process) begin() { _, _ = io.WriteString(p.input, "go\n") }

// finish gives what was acknowledged, and how many requests it took.
func (p *process) finish(t testing.TB) (acknowledged []string, requests int) {
	t.Helper()
	for line := range p.lines {
		if _, err := fmt.Sscanf(line, "requests %d", &requests); err == nil {
			return acknowledged, requests
		}
		acknowledged = append(acknowledged, line)
	}
	t.Error("a worker has failed")
	return acknowledged, requests
}

// shared makes a room with a bot, for workers that are further processes of it.
func shared(t testing.TB) (*mautrix.Client, job) {
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	return client, job{URL: client.HomeserverURL.String(), User: client.UserID, Token: client.AccessToken, Room: room, Layout: "single"}
}

func together(t testing.TB, jobs ...job) (acknowledged [][]string, requests int) {
	t.Helper()
	var processes []*process
	for _, j := range jobs {
		processes = append(processes, start(t, j))
	}
	for _, p := range processes {
		p.begin()
	}
	for _, p := range processes {
		acked, n := p.finish(t)
		acknowledged = append(acknowledged, acked)
		requests += n
	}
	return acknowledged, requests
}

func TestProcessesPut(t *testing.T) {
	for _, test := range []struct {
		processes, most int
	}{{4, 5}, {8, 7}} {
		t.Run(fmt.Sprint(test.processes), func(t *testing.T) {
			const puts = 25
			client, j := shared(t)
			var jobs []job
			for i := range test.processes {
				j.Name, j.Do, j.Times = fmt.Sprint(i), "put", puts
				jobs = append(jobs, j)
			}
			began := time.Now()
			acknowledged, requests := together(t, jobs...)
			perPut := float64(requests) / float64(test.processes*puts)
			t.Logf("%.2f requests a put, %s", perPut, time.Since(began))
			assert.LessOrEqual(t, perPut, float64(test.most))
			memory := memoryOf(t, open(t, client, j.Room))
			for _, keys := range acknowledged {
				assert.Len(t, keys, puts)
				for _, key := range keys {
					assert.Contains(t, memory, key)
				}
			}
			assert.Len(t, memory, test.processes*puts)
		})
	}
}

func TestProcessesUpdate(t *testing.T) {
	for _, name := range []string{"single", "perkey"} {
		t.Run("layout="+name, func(t *testing.T) {
			const processes, goroutines, updates = 3, 8, 25
			client, j := shared(t)
			var jobs []job
			for i := range processes {
				j.Name, j.Do, j.Times, j.Many, j.Layout = fmt.Sprint(i), "update", updates, goroutines, name
				jobs = append(jobs, j)
			}
			began := time.Now()
			_, requests := together(t, jobs...)
			t.Logf("%d requests, %s", requests, time.Since(began))
			counter, err := roomkv.Get[int](t.Context(), open(t, client, j.Room, layouts[name]), "counter")
			require.NoError(t, err)
			assert.Equal(t, processes*goroutines*updates, counter)
		})
	}
}

func TestProcessesCreate(t *testing.T) {
	for name, rounds := range map[string]int{"single": *createRounds, "perkey": 10} {
		t.Run("layout="+name, func(t *testing.T) {
			const processes = 8
			client, j := shared(t)
			store := open(t, client, j.Room, layouts[name])
			var workers []*process
			for i := range processes {
				j.Name, j.Do, j.Times, j.Layout = fmt.Sprint(i), "create", rounds, name
				workers = append(workers, start(t, j))
			}
			for range rounds {
				for _, p := range workers {
					p.begin()
				}
				var winners []string
				for i, p := range workers {
					if said, _ := p.finish(t); len(said) == 1 && said[0] == "won" {
						winners = append(winners, fmt.Sprint(i))
					}
				}
				require.Len(t, winners, 1)
				var value string
				require.NoError(t, store.Pop(t.Context(), "round", &value))
				require.Equal(t, winners[0], value)
			}
		})
	}
}
