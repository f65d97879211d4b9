package matrix

import (
	"errors"
	"net/http"
)

// straight is a copy of a client that follows no redirect: a request has the user's token, and many have values, and neither is for
// whoever the homeserver, or what stands before it, names. Package http keeps the token where only the port is another one, and the body
// of a request at 307 and 308. The client's own fields stay as they are.
func straight(client *http.Client) *http.Client {
	return redirecting(client, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse })
}

// anonymous is a copy of a client that follows redirects without the token, and without anything else that was sent but the program's
// name. A homeserver may send a download elsewhere (Client-Server API, content repository, since v1.11).
func anonymous(client *http.Client) *http.Client {
	return redirecting(client, func(req *http.Request, via []*http.Request) error {
		header := http.Header{}
		if agent := req.Header.Values("User-Agent"); len(agent) > 0 {
			header["User-Agent"] = agent
		}
		req.Header = header
		switch {
		case len(via) >= maxRedirects:
			return errors.New("too many redirects")
		case client.CheckRedirect != nil:
			return client.CheckRedirect(req, via)
		}
		return nil
	})
}

func redirecting(client *http.Client, check func(*http.Request, []*http.Request) error) *http.Client {
	changed := *client
	changed.CheckRedirect = check
	return &changed
}
