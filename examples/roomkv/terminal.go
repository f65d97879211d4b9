package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
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

// sure asks whether to do what cannot be undone, unless the person has said yes already. Where there is nobody to ask, that is
// a mistake in the command line.
func sure(cmd *cobra.Command, yes bool, question string) (bool, error) {
	switch {
	case yes:
		return true, nil
	case !attended():
		return false, usagef("nobody is there to be asked: give --yes")
	}
	answer, err := ask(cmd.Context(), question+" [y/N] ")
	if err != nil {
		return false, err
	}
	answer = strings.ToLower(answer)
	if answer != "y" && answer != "yes" {
		fmt.Fprintln(cmd.ErrOrStderr(), "Nothing was changed.")
		return false, nil
	}
	return true, nil
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
	fmt.Fprint(os.Stderr, plain(question, os.Stderr))
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
