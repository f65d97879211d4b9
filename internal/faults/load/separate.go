package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// What befalls a separate process, beside the faults of its transport.
const (
	Stopped faults.Kind = "process stopped" // it is suspended for a while, in the middle of whatever it does
	Died    faults.Kind = "process killed"  // it ends, by SIGKILL
)

// workerEnv is set in a worker only: a process of its own, which is this executable started again.
const workerEnv = "ROOMKV_LOAD_WORKER"

// job is what a worker is told.
type job struct {
	Config Config
	Number int
	Room   id.RoomID
	Type   string
	URL    string
	User   id.UserID
	Token  string
	Device id.DeviceID
}

// line is what a worker tells, one a line: a call that has begun or ended, or what there is to say in the end.
type line struct {
	Ready      bool
	Began      *Call
	Ended      *Call
	Injected   []faults.Injected
	Violations []Violation
}

func init() {
	if text := os.Getenv(workerEnv); text != "" {
		var j job
		err := json.Unmarshal([]byte(text), &j)
		if err == nil {
			err = j.run(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// run is the worker's side.
func (j job) run(ctx context.Context) error {
	client, err := mautrix.NewClient(j.URL, j.User, j.Token)
	if err != nil {
		return err
	}
	client.DeviceID = j.Device
	device := &member{client: client}
	if j.Config.Encrypted {
		device.crypto = hstest.NewCryptoStore()
	}
	r := &Run{Config: j.Config, Room: j.Room, Type: j.Type, Injected: map[int][]faults.Injected{}, Began: time.Now()}
	p, err := r.open(ctx, j.Number, device)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	output := json.NewEncoder(os.Stdout)
	say := func(l line) {
		mu.Lock()
		defer mu.Unlock()
		_ = output.Encode(l)
	}
	r.began = func(call *Call) { say(line{Began: call}) }
	r.ended = func(call *Call) { say(line{Ended: call}) }
	say(line{Ready: true})
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	r.work(ctx, []*process{p})
	if r.Config.SingleWriter {
		r.closeKeys(ctx, p)
	}
	say(line{Injected: r.Injected[j.Number], Violations: r.Violations})
	return nil
}

// worker is a separate process from outside.
type worker struct {
	number  int
	process *exec.Cmd
	input   io.WriteCloser
	output  *json.Decoder
	errors  bytes.Buffer

	open  []*Call // those that have begun and not ended
	calls []*Call
	last  line
	err   error
	began chan struct{} // has an element for each call that has begun, and is closed in the end
}

// separate is together with workers.
func (r *Run) separate(ctx context.Context, members []*member) error {
	if slices.ContainsFunc(r.Config.Kinds, faults.Kind.Kills) {
		return errors.New("separate processes cannot kill the homeserver")
	}
	var workers []*worker
	defer func() {
		for _, w := range workers {
			_ = w.process.Process.Kill()
		}
	}()
	for i, member := range members {
		w, err := r.startWorker(i, member.client)
		if err != nil {
			return err
		}
		workers = append(workers, w)
	}
	for _, w := range workers {
		var ready line
		if err := w.output.Decode(&ready); err != nil || !ready.Ready {
			return fmt.Errorf("worker %d: %w\n%s", w.number, errors.Join(err, w.process.Wait()), &w.errors)
		}
	}
	var group sync.WaitGroup
	for _, w := range workers {
		_, _ = io.WriteString(w.input, "go\n")
		group.Go(w.listen)
		group.Go(func() { r.befall(ctx, w) })
	}
	group.Wait()
	killed := slices.Contains(r.Config.Kinds, Died)
	if killed {
		time.Sleep(lastRequest)
	}
	for _, w := range workers {
		if w.err != nil && !killed {
			return fmt.Errorf("worker %d: %w\n%s", w.number, w.err, &w.errors)
		}
		for _, call := range w.open {
			call.Outcome, call.Why, call.End = Failed, "its process has died", call.Deadline
		}
		r.Calls = append(append(r.Calls, w.calls...), w.open...)
		r.Injected[w.number] = append(r.Injected[w.number], w.last.Injected...)
		r.Violations = append(r.Violations, w.last.Violations...)
	}
	return nil
}

// lastRequest is how long a homeserver can be at the last request of a process that has died.
const lastRequest = 2 * time.Second

func (r *Run) startWorker(number int, client *mautrix.Client) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(job{r.Config, number, r.Room, r.Type, client.HomeserverURL.String(), client.UserID, client.AccessToken, client.DeviceID})
	if err != nil {
		return nil, err
	}
	w := &worker{number: number, process: exec.Command(self), began: make(chan struct{}, r.Config.Goroutines*r.Config.Calls)}
	w.process.Env = append(os.Environ(), workerEnv+"="+string(text))
	w.process.Stderr = &w.errors
	if w.input, err = w.process.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := w.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.output = json.NewDecoder(output)
	return w, w.process.Start()
}

// listen takes in what the worker says, until it ends.
func (w *worker) listen() {
	defer close(w.began)
	for {
		var said line
		if err := w.output.Decode(&said); err != nil {
			w.err = w.process.Wait()
			return
		}
		switch {
		case said.Began != nil:
			w.open = append(w.open, said.Began)
			select {
			case w.began <- struct{}{}:
			default:
			}
		case said.Ended != nil:
			w.open = slices.DeleteFunc(w.open, func(call *Call) bool { return call.Goroutine == said.Ended.Goroutine })
			w.calls = append(w.calls, said.Ended)
		default:
			w.last = said
		}
	}
}

// befall stops or kills the worker, in a call that the seed chooses.
func (r *Run) befall(ctx context.Context, w *worker) {
	random := rand.New(rand.NewPCG(r.Config.Seed, uint64(5000+w.number)))
	for _, kind := range r.Config.Kinds {
		if kind != Stopped && kind != Died || random.IntN(3) == 0 && w.number > 0 { // not all of them, and one at least
			continue
		}
		for range 1 + random.IntN(r.Config.Goroutines*r.Config.Calls*2/3) {
			<-w.began
		}
		time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
		fault := faults.Fault{Kind: kind, Wait: time.Duration(r.Config.Pace * float64(5*time.Second+time.Duration(random.Int64N(int64(35*time.Second)))))}
		at := time.Now()
		if kind == Died {
			_ = w.process.Process.Kill()
			fault.Wait = 0
		} else if faults.Stop(w.process.Process) == nil {
			time.Sleep(fault.Wait)
			_ = faults.Resume(w.process.Process)
		}
		r.mu.Lock()
		r.Injected[w.number] = append(r.Injected[w.number], faults.Injected{Fault: fault, At: at, Method: "process", Path: fmt.Sprint(w.number)})
		r.mu.Unlock()
	}
}
