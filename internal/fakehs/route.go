package fakehs

import (
	"net/http"
	"net/url"
	"strings"
)

// route is an endpoint.
type route struct {
	method string
	path   []string // after /_matrix/, or after /_ for what is Synapse's own; a part in braces stands for any
	open   bool     // whether it needs no access token
	quick  handler  // is called under the server's lock
	slow   handler  // is not
}

type handler func(s *Server, r *request) (any, error)

// match finds the endpoint of a request, or tells whether there is one for another method.
func match(method, path string) (found *route, vars map[string]string, other bool) {
	rest, ok := strings.CutPrefix(path, "/_matrix/")
	if !ok {
		rest, ok = strings.CutPrefix(path, "/_")
		ok = ok && strings.HasPrefix(rest, "synapse/")
	}
	if !ok {
		return nil, nil, false
	}
	parts := strings.Split(rest, "/")
	if len(parts) > 1 && parts[0] == "client" && parts[1] == "r0" {
		parts[1] = "v3"
	}
	for i := range routes {
		vars, ok := routes[i].match(parts)
		if ok && routes[i].method == method {
			return &routes[i], vars, false
		}
		other = other || ok
	}
	return nil, nil, other
}

func (r *route) match(parts []string) (vars map[string]string, ok bool) {
	if len(parts) != len(r.path) {
		return nil, false
	}
	for i, want := range r.path {
		got, err := url.PathUnescape(parts[i])
		switch {
		case err != nil:
			return nil, false
		case strings.HasPrefix(want, "{"):
			if vars == nil {
				vars = map[string]string{}
			}
			vars[want[1:len(want)-1]] = got
		case want != got:
			return nil, false
		}
	}
	return vars, true
}

// public makes an endpoint that needs no access token.
func public(method, path string, quick handler) route {
	return route{method: method, path: strings.Split(path, "/"), open: true, quick: quick}
}

// quick makes an endpoint whose handler waits for nothing.
func quick(method, path string, quick handler) route {
	return route{method: method, path: strings.Split(path, "/"), quick: quick}
}

// slow makes an endpoint whose handler takes the lock itself.
func slow(method, path string, slow handler) route {
	return route{method: method, path: strings.Split(path, "/"), slow: slow}
}

// openSlow makes an endpoint that needs no access token, and whose handler takes the lock itself.
func openSlow(method, path string, handler handler) route {
	return route{method: method, path: strings.Split(path, "/"), open: true, slow: handler}
}

const (
	get    = http.MethodGet
	put    = http.MethodPut
	post   = http.MethodPost
	remove = http.MethodDelete
)

// routes are all endpoints. They are set when the program starts, for the handlers refer to them.
var routes []route

func init() {
	routes = []route{
		public(get, "client/versions", (*Server).versions),
		public(get, "client/v3/login", (*Server).loginFlows),
		public(post, "client/v3/login", (*Server).login),
		public(post, "client/v3/register", (*Server).register),
		public(post, "client/v3/refresh", (*Server).refresh),
		openSlow(get, "client/v1/auth_metadata", (*Server).authMetadata),
		openSlow(get, "client/unstable/org.matrix.msc2965/auth_metadata", (*Server).authMetadata),
		public(post, "synapse/mas/provision_user", (*Server).provisionUser),
		public(post, "synapse/mas/upsert_device", (*Server).upsertDevice),
		public(post, "synapse/mas/delete_device", (*Server).deleteProvisioned),
		quick(get, "client/v3/account/whoami", (*Server).whoami),
		quick(post, "client/v3/account/password", (*Server).changePassword),
		quick(post, "client/v3/logout", (*Server).logout),
		quick(post, "client/v3/logout/all", (*Server).logoutAll),
		quick(get, "client/v3/capabilities", (*Server).capabilities),
		quick(get, "client/v3/profile/{user}", (*Server).profile),
		quick(get, "client/v3/profile/{user}/{field}", (*Server).profile),
		quick(put, "client/v3/profile/{user}/{field}", (*Server).setProfile),
		quick(put, "client/v3/presence/{user}/status", nothing),

		quick(post, "client/v3/createRoom", (*Server).createRoom),
		slow(post, "client/v3/rooms/{room}/upgrade", (*Server).upgrade),
		slow(post, "client/v3/join/{target}", (*Server).joinTarget),
		slow(post, "client/v3/rooms/{room}/join", (*Server).join),
		slow(post, "client/v3/rooms/{room}/leave", (*Server).leave),
		slow(post, "client/v3/rooms/{room}/invite", (*Server).invite),
		slow(post, "client/v3/rooms/{room}/kick", (*Server).kick),
		slow(post, "client/v3/rooms/{room}/ban", (*Server).ban),
		slow(post, "client/v3/rooms/{room}/unban", (*Server).unban),
		quick(post, "client/v3/rooms/{room}/forget", (*Server).forget),
		quick(get, "client/v3/joined_rooms", (*Server).joinedRooms),
		quick(get, "client/v3/rooms/{room}/members", (*Server).members),
		quick(get, "client/v3/rooms/{room}/joined_members", (*Server).joinedMembers),

		public(get, "client/v3/directory/room/{alias}", (*Server).resolveAlias),
		quick(put, "client/v3/directory/room/{alias}", (*Server).createAlias),
		quick(remove, "client/v3/directory/room/{alias}", (*Server).deleteAlias),

		quick(get, "client/v3/rooms/{room}/state", (*Server).allState),
		quick(get, "client/v3/rooms/{room}/state/{type}", (*Server).getState),
		quick(get, "client/v3/rooms/{room}/state/{type}/{key}", (*Server).getState),
		slow(put, "client/v3/rooms/{room}/state/{type}", (*Server).putState),
		slow(put, "client/v3/rooms/{room}/state/{type}/{key}", (*Server).putState),
		slow(put, "client/v3/rooms/{room}/send/{type}/{txn}", (*Server).sendMessage),
		slow(put, "client/v3/rooms/{room}/redact/{event}/{txn}", (*Server).redact),
		quick(get, "client/v3/rooms/{room}/event/{event}", (*Server).getEvent),
		quick(get, "client/v3/rooms/{room}/context/{event}", (*Server).context),
		quick(get, "client/v3/rooms/{room}/messages", (*Server).messages),

		slow(get, "client/v3/sync", (*Server).sync),
		quick(post, "client/v3/user/{user}/filter", (*Server).createFilter),
		quick(get, "client/v3/user/{user}/filter/{filter}", (*Server).getFilter),
		quick(get, "client/v3/user/{user}/account_data/{type}", (*Server).getAccountData),
		quick(put, "client/v3/user/{user}/account_data/{type}", (*Server).putAccountData),
		quick(get, "client/v3/user/{user}/rooms/{room}/account_data/{type}", (*Server).getAccountData),
		quick(put, "client/v3/user/{user}/rooms/{room}/account_data/{type}", (*Server).putAccountData),
		quick(put, "client/v3/rooms/{room}/typing/{user}", nothing),

		quick(post, "client/v3/keys/upload", (*Server).uploadKeys),
		quick(post, "client/v3/keys/query", (*Server).queryKeys),
		quick(post, "client/v3/keys/claim", (*Server).claimKeys),
		quick(get, "client/v3/keys/changes", (*Server).keyChanges),
		quick(post, "client/v3/keys/device_signing/upload", (*Server).uploadSigningKeys),
		quick(post, "client/v3/keys/signatures/upload", (*Server).uploadSignatures),
		quick(put, "client/v3/sendToDevice/{type}/{txn}", (*Server).sendToDevice),
		quick(get, "client/v3/devices", (*Server).listDevices),
		quick(get, "client/v3/devices/{device}", (*Server).getDevice),
		quick(put, "client/v3/devices/{device}", (*Server).putDevice),
		quick(remove, "client/v3/devices/{device}", (*Server).deleteDevice),
		quick(post, "client/v3/delete_devices", (*Server).deleteDevices),

		quick(get, "client/v3/room_keys/version", (*Server).getBackup),
		quick(post, "client/v3/room_keys/version", (*Server).createBackup),
		quick(get, "client/v3/room_keys/version/{version}", (*Server).getBackup),
		quick(put, "client/v3/room_keys/version/{version}", (*Server).putBackup),
		quick(remove, "client/v3/room_keys/version/{version}", (*Server).deleteBackup),
		quick(get, "client/v3/room_keys/keys", (*Server).getBackupKeys),
		quick(put, "client/v3/room_keys/keys", (*Server).putBackupKeys),
		quick(remove, "client/v3/room_keys/keys", (*Server).deleteBackupKeys),
		quick(get, "client/v3/room_keys/keys/{room}", (*Server).getBackupKeys),
		quick(put, "client/v3/room_keys/keys/{room}", (*Server).putBackupKeys),
		quick(remove, "client/v3/room_keys/keys/{room}", (*Server).deleteBackupKeys),
		quick(get, "client/v3/room_keys/keys/{room}/{session}", (*Server).getBackupKeys),
		quick(put, "client/v3/room_keys/keys/{room}/{session}", (*Server).putBackupKeys),
		quick(remove, "client/v3/room_keys/keys/{room}/{session}", (*Server).deleteBackupKeys),

		quick(get, "client/v1/media/config", (*Server).mediaConfig),
		quick(get, "media/v3/config", (*Server).mediaConfig),
		quick(post, "media/v3/upload", (*Server).uploadMedia),
		quick(get, "client/v1/media/download/{server}/{media}", (*Server).download),
		quick(get, "client/v1/media/download/{server}/{media}/{name}", (*Server).download),
		quick(post, "client/v3/rooms/{room}/receipt/{kind}/{event}", (*Server).receipt),
		quick(post, "client/v3/rooms/{room}/read_markers", (*Server).readMarkers),
	}
}

// nothing is for what is accepted and leaves no trace.
func nothing(*Server, *request) (any, error) { return object{}, nil }
