package fakehs

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"

	"maunium.net/go/mautrix/id"
)

// user is an account.
type user struct {
	id          id.UserID
	password    string
	displayName string
	avatar      string
	devices     map[id.DeviceID]*device
	accounts    map[accountSlot]*accountData
	filters     []json.RawMessage
	read        map[id.RoomID]int64 // up to which place
	readAt      map[id.RoomID]int64 // and the place of when that was said
	forgotten   map[id.RoomID]bool
	bucket      bucket
	changed     int64             // the place of the last change of keys
	signing     map[string]object // cross-signing keys by usage: master, self_signing, user_signing
	backups     []*keyBackup      // the latest last
}

// device is a login of an account.
type device struct {
	user  *user
	id    id.DeviceID
	name  string
	seen  int64          // when it made its latest request, in Unix milliseconds
	done  map[string]any // what was answered to requests with a transaction ID
	keys  deviceKeys
	inbox []toDevice
	syncs syncCache // of a Forking server
	waits *request  // the sync that waits for something new, nil where none does
	heard int64     // the place up to which there was nothing for it
}

func (s *Server) versions(*request) (any, error) {
	versions := []string{"r0.6.1", "v1.1", "v1.2"}
	if s.mode == Forking {
		versions = append(versions, "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12")
	}
	return object{"versions": versions, "unstable_features": object{"org.matrix.e2e_cross_signing": true, "org.matrix.msc3916.stable": true}}, nil
}

func (s *Server) capabilities(*request) (any, error) {
	available := object{}
	for _, version := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"} {
		available[version] = "stable"
	}
	return object{"capabilities": object{"m.room_versions": object{"default": s.defaultVersion(), "available": available}}}, nil
}

func (s *Server) loginFlows(*request) (any, error) {
	return object{"flows": []object{{"type": "m.login.password"}}}, nil
}

// authData is what a request brings for user-interactive authentication.
type authData struct {
	Auth *struct {
		Type       string     `json:"type"`
		Session    string     `json:"session"`
		Identifier identifier `json:"identifier"`
		User       string     `json:"user"` // in older clients
		Password   string     `json:"password"`
	} `json:"auth"`
}

// identifier is whom a client names.
type identifier struct {
	Type string `json:"type"`
	User string `json:"user"`
}

// confirm asks for user-interactive authentication. Of the stage m.login.password the password must be right, of others the name is enough. The
// user is nil where there is none yet.
func (s *Server) confirm(own *user, auth authData, stage string) error {
	no := refuse(http.StatusUnauthorized, "", "")
	if given := auth.Auth; given != nil && given.Type != "" {
		if stage != "m.login.password" {
			return nil
		}
		named := s.userID(cmp.Or(given.Identifier.User, given.User))
		if given.Type == stage && named == own.id && given.Password == own.password {
			return nil
		}
		no = refuse(http.StatusUnauthorized, "M_FORBIDDEN", "Invalid username or password")
	}
	no.more = object{"flows": []object{{"stages": []string{stage}}}, "params": object{}, "session": s.text(24, letters)}
	return no
}

func (s *Server) register(r *request) (any, error) {
	var asked struct {
		authData
		Type        string      `json:"type"`
		Username    string      `json:"username"`
		Password    string      `json:"password"`
		Device      id.DeviceID `json:"device_id"`
		Name        string      `json:"initial_device_display_name"`
		NoDevices   bool        `json:"inhibit_login"`
		Refreshable bool        `json:"refresh_token"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	if asked.Username == "" {
		asked.Username = strings.ToLower(s.text(10, upperCase))
	}
	user := id.NewUserID(asked.Username, s.name)
	if s.users[user] != nil {
		return nil, refuse(http.StatusBadRequest, "M_USER_IN_USE", "Desired user ID is already taken.")
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, service := s.services[token]; !service || asked.Type != "m.login.application_service" {
		if err := s.confirm(nil, asked.authData, "m.login.dummy"); err != nil {
			return nil, err
		}
	}
	own := s.addUser(user, asked.Password)
	if asked.NoDevices {
		return object{"user_id": user}, nil
	}
	return s.loggedIn(s.addDevice(own, asked.Device, asked.Name), asked.Refreshable), nil
}

func (s *Server) addUser(name id.UserID, password string) *user {
	own := &user{id: name, password: password, displayName: name.Localpart(), devices: map[id.DeviceID]*device{},
		accounts: map[accountSlot]*accountData{}, read: map[id.RoomID]int64{}, readAt: map[id.RoomID]int64{}, forgotten: map[id.RoomID]bool{}}
	s.users[name] = own
	return own
}

// addDevice logs in. The tokens of a device that is there already end.
func (s *Server) addDevice(own *user, name id.DeviceID, called string) *device {
	if name == "" {
		name = id.DeviceID(s.text(10, upperCase))
	}
	known := own.devices[name]
	if known == nil {
		known = &device{user: own, id: name, name: called, done: map[string]any{}}
		own.devices[name] = known
	}
	s.endTokens(known)
	return known
}

// loggedIn is the answer to who has logged in.
func (s *Server) loggedIn(d *device, refreshable bool) object {
	answer := s.issue(d, refreshable)
	answer["user_id"], answer["device_id"], answer["home_server"] = d.user.id, d.id, s.name
	return answer
}

func (s *Server) login(r *request) (any, error) {
	var asked struct {
		Type        string      `json:"type"`
		Identifier  identifier  `json:"identifier"`
		User        string      `json:"user"`
		Password    string      `json:"password"`
		Device      id.DeviceID `json:"device_id"`
		Name        string      `json:"initial_device_display_name"`
		Refreshable bool        `json:"refresh_token"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	own := s.users[s.userID(cmp.Or(asked.Identifier.User, asked.User))]
	if asked.Type != "m.login.password" || own == nil || own.password != asked.Password {
		return nil, forbid("Invalid username or password")
	}
	return s.loggedIn(s.addDevice(own, asked.Device, asked.Name), asked.Refreshable), nil
}

// userID is the user that is named by the ID, or by the part of it before the server's name.
func (s *Server) userID(name string) id.UserID {
	if strings.HasPrefix(name, "@") {
		return id.UserID(name)
	}
	return id.NewUserID(name, s.name)
}

func (s *Server) whoami(r *request) (any, error) {
	return object{"user_id": r.device.user.id, "device_id": r.device.id, "is_guest": false}, nil
}

func (s *Server) logout(r *request) (any, error) {
	s.removeDevice(r.device)
	return object{}, nil
}

func (s *Server) logoutAll(r *request) (any, error) {
	for _, device := range r.device.user.devices {
		s.removeDevice(device)
	}
	return object{}, nil
}

func (s *Server) removeDevice(d *device) {
	s.endTokens(d)
	delete(d.user.devices, d.id)
	s.devicesChanged(d.user)
}

func (s *Server) profile(r *request) (any, error) {
	own := s.users[id.UserID(r.vars["user"])]
	if own == nil {
		return nil, notFound("no such user")
	}
	all := object{"displayname": own.displayName}
	if own.avatar != "" {
		all["avatar_url"] = own.avatar
	}
	field := r.vars["field"]
	if field == "" {
		return all, nil
	}
	if value, ok := all[field]; ok {
		return object{field: value}, nil
	}
	return nil, notFound("no such field")
}

// setProfile does not change the member events of rooms, as a real server would.
func (s *Server) setProfile(r *request) (any, error) {
	var asked struct {
		DisplayName string `json:"displayname"`
		Avatar      string `json:"avatar_url"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	own := r.device.user
	if string(own.id) != r.vars["user"] {
		return nil, forbid("that is another user's profile")
	}
	switch r.vars["field"] {
	case "displayname":
		own.displayName = asked.DisplayName
	case "avatar_url":
		own.avatar = asked.Avatar
	}
	return object{}, nil
}
