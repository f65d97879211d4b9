package fakehs

import (
	"encoding/json"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// deviceKeys are the keys of a device.
type deviceKeys struct {
	identity object // as the device has signed it, nil where it has none
	oneTime  []oneTimeKey
	fallback map[string]*oneTimeKey // by algorithm
}

// oneTimeKey is a key for one Olm session.
type oneTimeKey struct {
	id  string // with the algorithm before a colon
	key json.RawMessage
	use bool // whether a fallback key was given to anybody
}

func (k oneTimeKey) algorithm() string {
	name, _, _ := strings.Cut(k.id, ":")
	return name
}

func (s *Server) uploadKeys(r *request) (any, error) {
	var asked struct {
		Device   object                     `json:"device_keys"`
		OneTime  map[string]json.RawMessage `json:"one_time_keys"`
		Fallback map[string]json.RawMessage `json:"fallback_keys"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	own := &r.device.keys
	if asked.Device != nil {
		own.identity = asked.Device
		s.devicesChanged(r.device.user)
	}
	for name, key := range asked.OneTime {
		if !slices.ContainsFunc(own.oneTime, func(known oneTimeKey) bool { return known.id == name }) {
			own.oneTime = append(own.oneTime, oneTimeKey{id: name, key: key})
		}
	}
	slices.SortFunc(own.oneTime, func(a, b oneTimeKey) int { return strings.Compare(a.id, b.id) })
	for name, key := range asked.Fallback {
		if own.fallback == nil {
			own.fallback = map[string]*oneTimeKey{}
		}
		fallback := &oneTimeKey{id: name, key: key}
		own.fallback[fallback.algorithm()] = fallback
	}
	return object{"one_time_key_counts": own.counts()}, nil
}

// counts is how many one-time keys there are of each algorithm.
func (k *deviceKeys) counts() map[string]int {
	counts := map[string]int{"signed_curve25519": 0}
	for _, key := range k.oneTime {
		counts[key.algorithm()]++
	}
	return counts
}

// unused are the algorithms of fallback keys that nobody has been given.
func (k *deviceKeys) unused() []string {
	unused := []string{}
	for algorithm, key := range k.fallback {
		if !key.use {
			unused = append(unused, algorithm)
		}
	}
	return unused
}

func (s *Server) claimKeys(r *request) (any, error) {
	var asked struct {
		OneTime map[id.UserID]map[id.DeviceID]string `json:"one_time_keys"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	claimed := map[id.UserID]map[id.DeviceID]map[string]json.RawMessage{}
	for name, devices := range asked.OneTime {
		for deviceID, algorithm := range devices {
			owner := s.users[name]
			if owner == nil || owner.devices[deviceID] == nil {
				continue
			}
			key, ok := owner.devices[deviceID].keys.take(algorithm)
			if !ok {
				continue
			}
			if claimed[name] == nil {
				claimed[name] = map[id.DeviceID]map[string]json.RawMessage{}
			}
			claimed[name][deviceID] = map[string]json.RawMessage{key.id: key.key}
		}
	}
	s.tell()
	return object{"one_time_keys": claimed, "failures": object{}}, nil
}

// take gives a one-time key away.
func (k *deviceKeys) take(algorithm string) (oneTimeKey, bool) {
	if i := slices.IndexFunc(k.oneTime, func(key oneTimeKey) bool { return key.algorithm() == algorithm }); i >= 0 {
		key := k.oneTime[i]
		k.oneTime = slices.Delete(k.oneTime, i, i+1)
		return key, true
	}
	if key := k.fallback[algorithm]; key != nil {
		key.use = true
		return *key, true
	}
	return oneTimeKey{}, false
}

func (s *Server) queryKeys(r *request) (any, error) {
	var asked struct {
		Devices map[id.UserID][]id.DeviceID `json:"device_keys"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	devices := map[id.UserID]map[id.DeviceID]object{}
	signing := map[string]map[id.UserID]object{"master": {}, "self_signing": {}, "user_signing": {}}
	for name, wanted := range asked.Devices {
		owner := s.users[name]
		if owner == nil {
			continue
		}
		devices[name] = map[id.DeviceID]object{}
		for deviceID, device := range owner.devices {
			if device.keys.identity != nil && (len(wanted) == 0 || slices.Contains(wanted, deviceID)) {
				devices[name][deviceID] = device.shown()
			}
		}
		for usage, key := range owner.signing {
			if usage != "user_signing" || owner == r.device.user {
				signing[usage][name] = key
			}
		}
	}
	return object{
		"device_keys": devices, "failures": object{},
		"master_keys": signing["master"], "self_signing_keys": signing["self_signing"], "user_signing_keys": signing["user_signing"],
	}, nil
}

// shown is the device's identity with the name that its user has given it.
func (d *device) shown() object {
	shown := object{}
	for name, value := range d.keys.identity {
		shown[name] = value
	}
	if d.name != "" {
		shown["unsigned"] = object{"device_display_name": d.name}
	}
	return shown
}

// devicesChanged notes that others have to ask for the user's keys again.
func (s *Server) devicesChanged(own *user) {
	own.changed = s.next()
	s.tell()
}

func (s *Server) keyChanges(r *request) (any, error) {
	from, err := positionOf(r.query.Get("from"))
	if err != nil {
		return nil, err
	}
	to, err := positionOf(r.query.Get("to"))
	if err != nil {
		return nil, err
	}
	y := &syncing{Server: s, device: r.device, since: from.pos, upTo: to.pos}
	changed, left := y.deviceLists()
	return object{"changed": changed, "left": left}, nil
}
