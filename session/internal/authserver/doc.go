// Package authserver is a real authorization server for tests, as Matrix Authentication Service is beside a Synapse: OpenID Connect of
// github.com/zitadel/oidc, with registration of clients, a page that signs in whoever the client names, and the requests that make users and devices
// on a homeserver. It stands in front of a Synapse with matrix_authentication_service, or in front of a [fakehs.Server] that asks it.
//
// Nobody is asked for a password: it is for tests, on 127.0.0.1.
package authserver
