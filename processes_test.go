package roomkv_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// rounds is how often processes race for a key, are killed, or write first: by default fewer than the 50 or 100 that were
// asked for, for time.
var rounds = flag.Int("rounds", defaultRounds, "how often processes race to create a key, are killed in an encrypted room, or are the first to write there")

const defaultRounds = 10

// often is how often processes do what takes them long, with -soak and without.
func often(soaked, usual int) int {
	if *soak {
		return soaked
	}
	return usual
}

// workerEnv is set in a worker only: a process of its own that writes to the same memory as others. It is this test
// binary, started again.
const workerEnv = "ROOMKV_TEST_WORKER"

// job is what a worker does.
type job struct {
	URL    string
	User   id.UserID
	Token  string
	Device id.DeviceID // with end-to-end encryption, where it is given
	Room   id.RoomID
	Layout string
	Name   string
	Do     string // put, overwrite, update, create, opsdroid, expire, lease or once
	Times  int
	From   int       // the event to begin with, of once
	Since  time.Time // when the first event came
	Many   int       // goroutines
	Sync   bool
	Follow bool
	Lossy  bool   // whether requests and answers are lost
	DieAt  string // kills itself once a PUT whose path has that in it was answered
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
	if j.Device != "" {
		client.DeviceID = j.Device
		if _, err := hstest.NewCrypto(ctx, client); err != nil {
			return err
		}
	}
	store, err := roomkv.New(client, j.Room.String(), layouts[j.Layout])
	if err != nil {
		return err
	}
	if j.Follow {
		if err := store.Follow(); err != nil {
			return err
		}
	}
	if j.DieAt != "" {
		dieAt(client, j.DieAt)
	}
	if j.Lossy {
		lossy(client)
	}
	recorder := hstest.Record(client) // before the sync, which reads what this changes
	if j.Sync || j.Follow {
		startSync(client)
	}
	if _, err := store.Keys(ctx); err != nil {
		return err
	}
	recorder.Reset()
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

// dieAt kills this process once the homeserver has answered a PUT whose path has that in it, before anybody here learns
// of the answer.
func dieAt(client *mautrix.Client, path string) {
	next := cmp.Or(client.Client.Transport, http.DefaultTransport)
	dying := *client.Client
	dying.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && req.Method == http.MethodPut && strings.Contains(req.URL.Path, path) {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			if err != nil {
				panic(err)
			}
			select {}
		}
		return resp, err
	})
	client.Client = &dying
}

// lossy has one request of the client in 33 lost, and one answer in 33. A sync that does not begin is not tried again, so that it begins.
func lossy(client *mautrix.Client) {
	plan := faults.Plan{Seed: rand.Uint64(), Kinds: []faults.Kind{faults.Drop, faults.Lose}, Rate: 2. / 33}
	faults.Under(client, func(index int, req *http.Request) faults.Fault {
		path := req.URL.Path
		if strings.HasSuffix(path, "/filter") || strings.HasSuffix(path, "/sync") && !faults.IsSync(req) {
			return faults.Fault{}
		}
		return plan.Decide(index, req)
	}, nil).Begin()
	client.DefaultHTTPBackoff = 100 * time.Millisecond
}

func (j job) rounds() int {
	if j.Do == "create" {
		return j.Times
	}
	return 1
}

func (j job) work(ctx context.Context, store *roomkv.Store, client *mautrix.Client, worker int, say func(string)) error {
	switch j.Do {
	case "expire":
		return j.expire(ctx, store, say)
	case "lease":
		return j.lease(ctx, store, say)
	case "once":
		j.once(ctx, store, say)
		return nil
	case "create":
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
		case "overwrite":
			err = store.Put(ctx, j.Name, i)
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
	return startAs(t, self, j)
}

// startAs is start with another build of the test binary, and with more in the environment.
func startAs(t testing.TB, self string, j job, env ...string) *process {
	t.Helper()
	text, err := json.Marshal(j)
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), workerEnv+"="+string(text)), env...)
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

// workers are n jobs like j. Those that encrypt get a device each.
func workers(t testing.TB, client *mautrix.Client, j job, n int) (jobs []job) {
	t.Helper()
	for i := range n {
		j.Name = fmt.Sprint(i)
		if j.Device != "" {
			device := again(t, client)
			j.Token, j.Device = device.AccessToken, device.DeviceID
		}
		jobs = append(jobs, j)
	}
	return jobs
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
	long(t)
	for processes, most := range map[int]float64{4: 5, 8: 6, 16: 7} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			client, j := shared(t)
			processesPut(t, client, j, processes, 25, most)
		})
	}
}

// processesPut has each process put keys of its own, at most so many requests a put, and reads them with the client.
func processesPut(t *testing.T, client *mautrix.Client, j job, processes, puts int, most float64) {
	j.Do, j.Times = "put", puts
	jobs := workers(t, client, j, processes)
	began := time.Now()
	acknowledged, requests := together(t, jobs...)
	perPut := float64(requests) / float64(processes*puts)
	t.Logf("%.2f requests a put, %s", perPut, time.Since(began))
	assert.LessOrEqual(t, perPut, most)
	memory := memoryOf(t, open(t, client, j.Room, layouts[j.Layout]))
	for _, keys := range acknowledged {
		assert.Len(t, keys, puts)
		for i, key := range keys {
			assert.Equal(t, fmt.Sprint(i), memory[key], key)
		}
	}
	assert.Len(t, memory, processes*puts)
}

func TestProcessesUpdate(t *testing.T) {
	hstest.Parallel(t)
	hstest.Real(t)
	for _, name := range []string{"single", "perkey"} {
		t.Run("layout="+name, func(t *testing.T) {
			client, j := shared(t)
			j.Layout = name
			processesUpdate(t, client, j, often(25, 3))
		})
	}
}

func processesUpdate(t *testing.T, client *mautrix.Client, j job, updates int) {
	const processes, goroutines = 3, 8
	j.Do, j.Times, j.Many = "update", updates, goroutines
	jobs := workers(t, client, j, processes)
	began := time.Now()
	_, requests := together(t, jobs...)
	t.Logf("%d requests, %s", requests, time.Since(began))
	counter, err := roomkv.Get[int](t.Context(), open(t, client, j.Room, layouts[j.Layout]), "counter")
	require.NoError(t, err)
	assert.Equal(t, processes*goroutines*updates, counter)
}

func TestProcessesCreate(t *testing.T) {
	hstest.Parallel(t)
	for name, rounds := range map[string]int{"single": often(*rounds, 3), "perkey": often(10, 3)} {
		t.Run("layout="+name, func(t *testing.T) {
			client, j := shared(t)
			j.Layout = name
			processesCreate(t, client, j, rounds)
		})
	}
}

func processesCreate(t *testing.T, client *mautrix.Client, j job, rounds int) {
	const processes = 8
	j.Do, j.Times = "create", rounds
	store := open(t, client, j.Room, layouts[j.Layout])
	var racing []*process
	for _, j := range workers(t, client, j, processes) {
		racing = append(racing, start(t, j))
	}
	for range rounds {
		for _, p := range racing {
			p.begin()
		}
		var winners []string
		for i, p := range racing {
			if said, _ := p.finish(t); len(said) == 1 && said[0] == "won" {
				winners = append(winners, fmt.Sprint(i))
			}
		}
		require.Len(t, winners, 1)
		var value string
		require.NoError(t, store.Pop(t.Context(), "round", &value))
		require.Equal(t, winners[0], value)
	}
}
