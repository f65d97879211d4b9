// Way prints the functions of this module that a warm Get and a warm Put pass through, on the homeserver in memory. Build it with counters:
//
//	go build -tags goolm -cover -covermode=atomic -coverpkg=github.com/roomkv/roomkv/... -o way ./internal/bench/way && ./way
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"regexp"
	"runtime/coverage"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	for _, layout := range []string{"single", "per key"} {
		for _, following := range []bool{false, true} {
			if err := measure(ctx, layout, following); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure prints what a Get and a Put of one store pass through.
func measure(ctx context.Context, layout string, following bool) error {
	client, err := fakehs.New(fakehs.Options{Seed: 1}).Register(ctx, "bot")
	if err != nil {
		return err
	}
	room, err := client.CreateRoom(ctx, &mautrix.ReqCreateRoom{})
	if err != nil {
		return err
	}
	var options []roomkv.Option
	if layout != "single" {
		options = append(options, roomkv.WithPerKeyState())
	}
	store, err := roomkv.New(client, room.RoomID.String(), options...)
	if err != nil {
		return err
	}
	if following {
		if err := follow(ctx, store, client, room.RoomID); err != nil {
			return err
		}
	}
	get := func() error {
		_, err := roomkv.Get[string](ctx, store, "key")
		return err
	}
	n := 0
	put := func() error {
		n++
		return store.Put(ctx, "key", fmt.Sprint("value ", n))
	}
	for range 3 {
		if err := put(); err != nil {
			return err
		}
		if err := get(); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond) // the sync brings what was put
	for name, do := range map[string]func() error{"Get": get, "Put": put} {
		functions, err := way(do)
		if err != nil {
			return err
		}
		fmt.Printf("%s, %s, following %v: %d functions\n", name, layout, following, len(functions))
		if len(os.Args) > 1 {
			fmt.Println("\t" + strings.Join(functions, "\n\t"))
		}
	}
	return nil
}

func follow(ctx context.Context, store *roomkv.Store, client *mautrix.Client, _ id.RoomID) error {
	if err := store.Follow(); err != nil {
		return err
	}
	first := make(chan struct{}, 1)
	client.Syncer.(mautrix.ExtensibleSyncer).OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		select {
		case first <- struct{}{}:
		default:
		}
		return true
	})
	go client.SyncWithContext(ctx)
	<-first
	return nil
}

// function finds a function of the library's own packages in the output of covdata.
var function = regexp.MustCompile(`(?m)^github\.com/roomkv/roomkv/(?:internal/(?:architecture|bench|fakehs|faults|homeserver|hostile|mutants)\S*|examples\S*)|^github\.com/roomkv/roomkv/(\S+):\d+:\s+(\S+)\s+(\S+)%`)

// way is what do passes through.
func way(do func() error) ([]string, error) {
	dir, err := os.MkdirTemp("", "way")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := coverage.ClearCounters(); err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	if err := coverage.WriteCountersDir(dir); err != nil {
		return nil, err
	}
	if err := coverage.WriteMetaDir(dir); err != nil {
		return nil, err
	}
	text, err := exec.Command("go", "tool", "covdata", "func", "-i="+dir).Output()
	if err != nil {
		return nil, err
	}
	var functions []string
	for _, match := range function.FindAllStringSubmatch(string(text), -1) {
		if match[1] != "" && match[3] != "0.0" {
			functions = append(functions, match[1]+" "+match[2])
		}
	}
	slices.Sort(functions)
	return functions, nil
}
