// Package oauth signs a bot in by OAuth 2, as the Client-Server API has it (OAuth 2.0 API): it reads the authorization server's metadata, registers the
// bot as a client, gets tokens by an authorization code or by a device code, and revokes them.
//
// It keeps nothing. [Tokens] is what a caller keeps. Package tokens refreshes them.
//
// An [http.Client] that is given bounds each request. Nothing that is secret stands in an error: neither a token, nor a code, nor a verifier.
package oauth
