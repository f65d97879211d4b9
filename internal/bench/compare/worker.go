package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/bench/compare/result"
)

// jobEnv has the job of a process that writes.
const jobEnv = "ROOMKV_COMPARE_JOB"

// job is what one process does: it has some of the keys to itself, and goes through rooms in turn.
type job struct {
	Kind   string
	URL    string
	User   id.UserID
	Device id.DeviceID
	Token  string
	NATS   string
	Rooms  []id.RoomID
	Keys   []string
}

// order is a line that a process reads, and done one that it answers.
type order struct {
	Op    string
	Times int
}

type done struct {
	Requests, Up, Down, Bytes, Allocs, Nanos int64
	Wrote                                    []written // since the start
}

type written struct {
	Room       id.RoomID
	Key, Value string
}

// traffic is what goes over a client's transport.
type traffic struct{ requests, up, down atomic.Int64 }

// RoundTrip implements [http.RoundTripper].
func (t *traffic) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/sync") {
		t.requests.Add(1)
	}
	t.up.Add(max(0, req.ContentLength))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		resp.Body = counted{resp.Body, &t.down}
	}
	return resp, err
}

type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// work is a process that writes. It says that it is ready once it has written each of its rooms and so knows it.
func work(text string) error {
	ctx := context.Background()
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	var through traffic
	var client *mautrix.Client
	var conn *nats.Conn
	var err error
	if j.Kind == inNATS {
		conn, err = nats.Connect(j.NATS)
	} else if client, err = mautrix.NewClient(j.URL, j.User, j.Token); err == nil {
		client.DeviceID, client.Client = j.Device, &http.Client{Transport: &through}
	}
	if err != nil {
		return err
	}
	memory, err := newMemory(ctx, j.Kind, client, conn)
	if err != nil {
		return err
	}
	last := map[[2]string]string{}
	times := 0
	do := func(op string) error {
		room, key := j.Rooms[times%len(j.Rooms)], j.Keys[times/len(j.Rooms)%len(j.Keys)]
		times++
		if op == result.Get {
			_, err := memory.get(ctx, room, key)
			return err
		}
		value := valueOf(times)
		last[[2]string{room.String(), key}] = value
		return memory.put(ctx, room, key, value)
	}
	now := func() (d done) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		d = done{Requests: through.requests.Load(), Up: through.up.Load(), Down: through.down.Load(), Bytes: int64(m.TotalAlloc), Allocs: int64(m.Mallocs)}
		if conn != nil {
			stats := conn.Stats()
			d.Requests, d.Up, d.Down = int64(stats.OutMsgs), int64(stats.OutBytes), int64(stats.InBytes)
		}
		return d
	}
	for range len(j.Rooms) + 1 {
		if err := do(result.Put); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return err
		}
		before, began := now(), time.Now()
		for range o.Times {
			if err := do(o.Op); err != nil {
				return err
			}
		}
		took, after := time.Since(began), now()
		d := done{Requests: after.Requests - before.Requests, Up: after.Up - before.Up, Down: after.Down - before.Down,
			Bytes: after.Bytes - before.Bytes, Allocs: after.Allocs - before.Allocs, Nanos: took.Nanoseconds()}
		for at, value := range last {
			d.Wrote = append(d.Wrote, written{id.RoomID(at[0]), at[1], value})
		}
		if err := out.Encode(d); err != nil {
			return err
		}
	}
	return nil
}

// valueOf is a text of 40 bytes that differs in each write of a process.
func valueOf(n int) string { return fmt.Sprintf("%040d", n) }

// worker is such a process, from outside.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWorker(ctx context.Context, j job) (*worker, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: exec.CommandContext(ctx, self)}
	w.cmd.Env = append(os.Environ(), jobEnv+"="+string(text))
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	return w, w.cmd.Start()
}

func (w *worker) ready() error {
	_, err := w.out.ReadString('\n')
	return err
}

func (w *worker) do(o order) (d done, err error) {
	if err := json.NewEncoder(w.in).Encode(o); err != nil {
		return d, err
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(line, &d)
}

func (w *worker) end() error {
	_ = w.in.Close()
	return w.cmd.Wait()
}
