package homeserver

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// shield passes requests on to Dendrite and sees each to its end, also where the client has gone: a request that
// is given up in the middle can leave Dendrite's SQLite in a transaction for good, and everything after it fails
// ("cannot start a transaction within a transaction"). Tests that cancel requests or kill processes do that
// all the time.
func shield(listener net.Listener, address string) error {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: address})
			r.Out.Host = r.In.Host // which is signed in requests of other homeservers
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		ErrorLog:  log.New(io.Discard, "", 0),
		// A server that has died gives no answer: the connection ends.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without its other methods, by which the proxy would learn that the client has gone.
		proxy.ServeHTTP(struct{ http.ResponseWriter }{w}, r.WithContext(context.WithoutCancel(r.Context())))
	}))
}
