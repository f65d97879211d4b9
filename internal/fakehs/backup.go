package fakehs

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"maunium.net/go/mautrix/id"
)

// keyBackup is a version of a user's key backup.
type keyBackup struct {
	version   string
	algorithm string
	auth      json.RawMessage
	etag      int
	deleted   bool
	rooms     map[id.RoomID]map[string]backedUp
}

// backedUp is a Megolm session in a backup.
type backedUp struct {
	First     int             `json:"first_message_index"`
	Forwarded int             `json:"forwarded_count"`
	Verified  bool            `json:"is_verified"`
	Data      json.RawMessage `json:"session_data"`
}

// isBetter tells whether a session takes the place of another one (Client-Server API, server-side key backups).
func (b backedUp) isBetter(than backedUp) bool {
	switch {
	case b.Verified != than.Verified:
		return b.Verified
	case b.First != than.First:
		return b.First < than.First
	}
	return b.Forwarded < than.Forwarded
}

func (b *keyBackup) count() int {
	count := 0
	for _, sessions := range b.rooms {
		count += len(sessions)
	}
	return count
}

func (b *keyBackup) describe() object {
	return object{"version": b.version, "algorithm": b.algorithm, "auth_data": b.auth, "count": b.count(), "etag": strconv.Itoa(b.etag)}
}

func (b *keyBackup) updated() object {
	return object{"count": b.count(), "etag": strconv.Itoa(b.etag)}
}

// aboutBackup is what a backup is made or changed to.
type aboutBackup struct {
	Algorithm string          `json:"algorithm"`
	Auth      json.RawMessage `json:"auth_data"`
}

func (s *Server) createBackup(r *request) (any, error) {
	var asked aboutBackup
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	own := r.device.user
	number := len(own.backups) + 1
	if s.mode == Linear { // Dendrite counts those of all users
		s.backups++
		number = s.backups
	}
	made := &keyBackup{version: strconv.Itoa(number), algorithm: asked.Algorithm, auth: asked.Auth, rooms: map[id.RoomID]map[string]backedUp{}}
	own.backups = append(own.backups, made)
	return object{"version": made.version}, nil
}

// backupOf is the version of a user's backup, the latest where the name is "". On Dendrite there is none where the latest was deleted.
func (s *Server) backupOf(own *user, version string) (*keyBackup, error) {
	for i, known := range slices.Backward(own.backups) {
		if known.deleted {
			if s.mode == Linear && version == "" && i == len(own.backups)-1 {
				break
			}
			continue
		}
		if version == "" || known.version == version {
			return known, nil
		}
	}
	return nil, notFound("No backup found")
}

func (s *Server) getBackup(r *request) (any, error) {
	found, err := s.backupOf(r.device.user, r.vars["version"])
	if err != nil {
		return nil, err
	}
	return found.describe(), nil
}

func (s *Server) putBackup(r *request) (any, error) {
	var asked aboutBackup
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	found, err := s.backupOf(r.device.user, r.vars["version"])
	if err != nil && s.mode == Linear {
		return object{"version": r.vars["version"]}, nil
	} else if err != nil {
		return nil, err
	}
	if s.mode == Forking && asked.Algorithm != found.algorithm {
		return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "the algorithm does not match")
	}
	found.auth = asked.Auth
	return object{}, nil
}

func (s *Server) deleteBackup(r *request) (any, error) {
	for _, known := range r.device.user.backups {
		if known.version == r.vars["version"] {
			known.deleted = true
			return object{}, nil
		}
	}
	return nil, notFound("Unknown backup version")
}

// inBackup are sessions by room.
type inBackup struct {
	Rooms map[id.RoomID]inRoom `json:"rooms"`
}

type inRoom struct {
	Sessions map[string]backedUp `json:"sessions"`
}

func (s *Server) putBackupKeys(r *request) (any, error) {
	all := inBackup{Rooms: map[id.RoomID]inRoom{}}
	room, session := r.room(), r.vars["session"]
	var err error
	switch {
	case session != "":
		var one backedUp
		err = r.read(&one)
		all.Rooms[room] = inRoom{map[string]backedUp{session: one}}
	case room != "":
		var some inRoom
		err = r.read(&some)
		all.Rooms[room] = some
	default:
		err = r.read(&all)
	}
	if err != nil {
		return nil, err
	}
	latest, err := s.writable(r.device.user, r.query.Get("version"))
	if err != nil {
		return nil, err
	}
	for room, some := range all.Rooms {
		for name, session := range some.Sessions {
			if known, ok := latest.rooms[room][name]; ok && !session.isBetter(known) {
				continue
			}
			if latest.rooms[room] == nil {
				latest.rooms[room] = map[string]backedUp{}
			}
			latest.rooms[room][name] = session
			latest.etag++
		}
	}
	return latest.updated(), nil
}

// writable is the latest version of a user's backup, where the one that a request names is that.
func (s *Server) writable(own *user, version string) (*keyBackup, error) {
	if version == "" {
		return nil, refuse(http.StatusBadRequest, "M_MISSING_PARAM", "version must be specified")
	}
	latest, err := s.backupOf(own, "")
	switch {
	case s.mode == Linear && err != nil:
		return nil, refuse(http.StatusInternalServerError, "M_UNKNOWN", "PerformKeyBackup: backup was deleted")
	case s.mode == Forking:
		if _, err := s.backupOf(own, version); err != nil {
			return nil, err
		}
	}
	if err == nil && latest.version != version {
		no := forbid("Wrong backup version.")
		no.code, no.more = "M_WRONG_ROOM_KEYS_VERSION", object{"current_version": latest.version}
		if s.mode == Forking {
			no.more["current_version"] = version // which is what Synapse says
		}
		return nil, no
	}
	return latest, err
}

func (s *Server) getBackupKeys(r *request) (any, error) {
	found, err := s.backupOf(r.device.user, r.query.Get("version"))
	if err != nil {
		return nil, err
	}
	room, session := r.room(), r.vars["session"]
	switch {
	case session != "":
		if one, ok := found.rooms[room][session]; ok {
			return one, nil
		}
		return nil, notFound("No room_keys found")
	case room != "":
		return object{"sessions": found.sessions(room)}, nil
	}
	rooms := object{}
	for room := range found.rooms {
		rooms[string(room)] = object{"sessions": found.sessions(room)}
	}
	return object{"rooms": rooms}, nil
}

func (b *keyBackup) sessions(room id.RoomID) map[string]backedUp {
	if sessions := b.rooms[room]; sessions != nil {
		return sessions
	}
	return map[string]backedUp{}
}

func (s *Server) deleteBackupKeys(r *request) (any, error) {
	if s.mode == Linear {
		return nil, refuse(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "Unrecognized request")
	}
	found, err := s.backupOf(r.device.user, r.query.Get("version"))
	if err != nil {
		return nil, err
	}
	room, session := r.room(), r.vars["session"]
	switch {
	case session != "":
		delete(found.rooms[room], session)
	case room != "":
		delete(found.rooms, room)
	default:
		clear(found.rooms)
	}
	found.etag++
	return found.updated(), nil
}
