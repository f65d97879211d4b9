// Command compare measures roomkv beside what else a bot can keep its memory in, and writes JSON for draw:
//
//	go run . -out results.json && go run ./draw -in results.json ../../../docs
//
// Each process that writes is one: compare starts itself again. The homeserver is a Dendrite that compare starts, or the one that
// ROOMKV_HOMESERVER names. With -quick it runs for some seconds, to see that it runs.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/roomkv/roomkv/internal/bench/compare/result"
	"github.com/roomkv/roomkv/internal/homeserver"
)

// sizes are how large the memories are, and how many processes write: one of the three varies at a time.
var sizes = []result.Size{
	{Keys: 10, Rooms: 1, Processes: 1}, {Keys: 100, Rooms: 1, Processes: 1}, {Keys: 1000, Rooms: 1, Processes: 1}, {Keys: 100, Rooms: 100, Processes: 1},
	{Keys: 100, Rooms: 1, Processes: 4}, {Keys: 100, Rooms: 1, Processes: 8}, {Keys: 100, Rooms: 1, Processes: 16},
}

func main() {
	if job := os.Getenv(jobEnv); job != "" {
		if err := work(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	quick := flag.Bool("quick", false, "measure small memories for some seconds")
	out := flag.String("out", "results.json", "where the results go, as far as they are there")
	flag.Parse()
	if err := run(context.Background(), *quick, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick bool, out string) error {
	server, err := homeserver.FromEnv(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	nats, err := startNATS()
	if err != nil {
		return err
	}
	defer nats.close()
	all := result.All{Time: time.Now().UTC(), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	measured := sizes
	if quick {
		measured = []result.Size{{Keys: 10, Rooms: 1, Processes: 1}, {Keys: 10, Rooms: 2, Processes: 2}}
	}
	for _, size := range measured {
		began := time.Now()
		r := round{server: server, nats: nats, Size: size, rounds: 5, times: 20}
		switch {
		case quick:
			r.rounds, r.times = 1, 3
		case size.Processes > 1:
			r.rounds, r.times = 2, 10
		}
		rows, err := r.measure(ctx)
		if err != nil {
			return fmt.Errorf("%v: %w", size, err)
		}
		all.Rows = append(all.Rows, rows...)
		text, err := json.MarshalIndent(all, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, text, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%v in %s\n", size, time.Since(began).Round(time.Second))
	}
	return nil
}
