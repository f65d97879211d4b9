package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/session/internal/tokens"
)

// findServer finds the URL of a homeserver's client API, for a server's name or such a URL, and makes sure that a homeserver answers there (Client-Server API,
// server discovery). An error is an [ErrHomeserver], unless what answers says that its trouble may pass.
func findServer(ctx context.Context, client tokens.Doer, named string) (string, error) {
	found, err := find(ctx, client, named)
	var answer *tokens.Answer
	if errors.As(err, &answer) && answer.Passing() {
		return "", fmt.Errorf("session: looking for the homeserver at %s, which is in trouble or limits requests: %w", named, answer)
	}
	return found, err
}

func find(ctx context.Context, client tokens.Doer, named string) (string, error) {
	if !strings.Contains(named, "://") {
		return lookUp(ctx, client, named)
	}
	found, err := baseURL(named)
	if err != nil {
		return "", fail(ErrHomeserver, "Homeserver is not the URL of a homeserver, as https://matrix.example.org: %w", err) // it can hold a password
	}
	if err := checkServer(ctx, client, found); err != nil {
		return "", fail(ErrHomeserver, "what answers at %s is no Matrix homeserver: %w", found, err)
	}
	return found, nil
}

// lookUp asks the server's .well-known file.
func lookUp(ctx context.Context, client tokens.Doer, name string) (string, error) {
	if at, err := url.Parse("https://" + name); err != nil || at.Host != name || at.Hostname() == "" {
		if strings.Contains(name, "@") {
			name = "…" + name[strings.LastIndex(name, "@"):] // before it can be a password
		}
		return "", fail(ErrHomeserver, "Homeserver %q is neither a server's name, as example.org, nor a URL", name)
	}
	var file mautrix.ClientWellKnown
	err := tokens.Get(ctx, client, "https://"+name+"/.well-known/matrix/client", "", &file)
	var answer *tokens.Answer
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound: // the server's name is all that there is
		found := "https://" + name
		if err := checkServer(ctx, client, found); err != nil {
			return "", fail(ErrHomeserver, "%s has no .well-known file, and what answers there is no Matrix homeserver: %w; give the homeserver's URL", name, err)
		}
		return found, nil
	case err != nil:
		return "", fail(ErrHomeserver, "cannot look %s up in its .well-known file: %w; if that is right, give the homeserver's URL, with http:// or https://", name, err)
	}
	found, err := baseURL(file.Homeserver.BaseURL)
	if err == nil && strings.HasPrefix(found, "http:") && !isLoopback(found) {
		err = errors.New("it is not https")
	}
	if err == nil {
		err = checkServer(ctx, client, found)
	}
	if err != nil {
		text := file.Homeserver.BaseURL[:min(len(file.Homeserver.BaseURL), longestURL)]
		return "", fail(ErrHomeserver, "the .well-known file of %s says that its homeserver is at %q, which is not so: %w; give the homeserver's URL", name, text, err)
	}
	return found, nil
}

// longestURL is how much of a server's text an error has, in bytes.
const longestURL = 200

// baseURL is the URL without what paths are not added to.
func baseURL(text string) (string, error) {
	found, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("it is no URL")
	case found.Scheme != "http" && found.Scheme != "https":
		return "", errors.New("it does not begin with https:// or http://")
	case found.Host == "", found.User != nil, found.RawQuery != "", found.Fragment != "":
		return "", errors.New("it has no host, or more than host and path")
	}
	return strings.TrimRight(found.String(), "/"), nil
}

func isLoopback(address string) bool {
	at, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(at.Hostname())
	return at.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// checkServer makes sure that a homeserver answers.
func checkServer(ctx context.Context, client tokens.Doer, found string) error {
	var versions struct {
		Versions []string `json:"versions"`
	}
	if err := tokens.Get(ctx, client, found+"/_matrix/client/versions", "", &versions); err != nil {
		return fmt.Errorf("asking for its versions: %w", err)
	}
	if len(versions.Versions) == 0 {
		return errors.New("asking for its versions: it names none")
	}
	return nil
}
