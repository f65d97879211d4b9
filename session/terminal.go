package session

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// terminal is where a person approves a sign-in by OAuth that the environment asks for.
type terminal struct {
	in  io.Reader
	out io.Writer
}

// visible is a server's text without what would move the cursor of a terminal.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (t terminal) showURL(_ context.Context, url string) error {
	_, err := fmt.Fprintf(t.out, "Open this address in a browser on this machine, to approve the bot:\n%s\n", visible(url))
	return err
}

func (t terminal) showCode(_ context.Context, code UserCode) error {
	url := code.FullURL
	if url == "" {
		url = code.URL
	}
	_, err := fmt.Fprintf(t.out, "Open this address in a browser, and approve the bot with the code %s:\n%s\n", visible(code.Code), visible(url))
	return err
}

func (t terminal) askURL(ctx context.Context, url string) (string, error) {
	_, err := fmt.Fprintf(t.out, "Open this address in a browser, to approve the bot. Then paste the address at which the browser has ended:\n%s\n", visible(url))
	if err != nil {
		return "", err
	}
	type read struct {
		line string
		err  error
	}
	lines := make(chan read, 1)
	go func() { // reading cannot be cancelled
		line, err := bufio.NewReader(t.in).ReadString('\n')
		lines <- read{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case is := <-lines:
		if line := strings.TrimSpace(is.line); line != "" {
			return line, nil
		}
		if is.err == nil {
			is.err = io.ErrUnexpectedEOF
		}
		return "", fmt.Errorf("no address was pasted: %w", is.err)
	}
}
