// Roomkv reads and writes the memory of a Matrix bot from a terminal or a script. Run it without arguments to see how, or
// build it and try what docs/command.md has:
//
//	go build -tags goolm -o roomkv .
//
// Each verb is a function in the file of its name that calls one method of the library; what is around it is the same for
// all: connect.go and profile.go log in with package session, memory.go opens the store, say.go and usage.go have the words for what is
// wrong, terminal.go, style.go, output.go and progress.go are for the person at the terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends what does not end by itself

	app := &app{}
	verb, err := app.root().ExecuteContextC(ctx)
	err = errors.Join(err, app.close())
	code := app.exitCode(ctx, err)
	switch code {
	case exitOK:
	case exitInterrupted:
		fmt.Fprintln(os.Stderr, "roomkv: interrupted")
	default:
		style := styleFor(os.Stderr)
		fmt.Fprintln(os.Stderr, style.red("roomkv:"), plain(say(err), os.Stderr))
		if hint := hint(verb, code, err); hint != "" {
			fmt.Fprintln(os.Stderr, style.dim(hint))
		}
	}
	return code
}
