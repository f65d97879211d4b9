package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// ask asks the person at the terminal for a line, and fails where there is nobody.
func ask(ctx context.Context, question string) (string, error) {
	return prompt(ctx, question, func() (string, error) { return bufio.NewReader(os.Stdin).ReadString('\n') })
}

// askSecret asks for a line that is not shown while it is typed.
func askSecret(ctx context.Context, question string) (string, error) {
	return prompt(ctx, question, func() (string, error) {
		defer fmt.Fprintln(os.Stderr) // for the Enter that was not shown either
		secret, err := term.ReadPassword(int(os.Stdin.Fd()))
		return string(secret), err
	})
}

// attended tells whether there is somebody to ask.
func attended() bool { return isTerminal(os.Stdin) && isTerminal(os.Stderr) }

// prompt asks on standard error, for standard output can go into a file. Ctrl-C does not end a read, so prompt leaves it
// behind, with the terminal as it was.
func prompt(ctx context.Context, question string, read func() (string, error)) (string, error) {
	stdin := int(os.Stdin.Fd())
	before, err := term.GetState(stdin)
	if err != nil {
		return "", err
	}
	fmt.Fprint(os.Stderr, question)
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	go func() {
		text, err := read()
		lines <- line{strings.TrimRight(text, "\r\n"), err}
	}()
	select {
	case got := <-lines:
		return got.text, got.err
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return "", errors.Join(ctx.Err(), term.Restore(stdin, before))
	}
}
