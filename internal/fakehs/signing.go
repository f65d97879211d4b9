package fakehs

import (
	"encoding/json"
	"net/http"

	"maunium.net/go/mautrix/id"
)

func (s *Server) uploadSigningKeys(r *request) (any, error) {
	var asked struct {
		authData
		Master      object `json:"master_key"`
		SelfSigning object `json:"self_signing_key"`
		UserSigning object `json:"user_signing_key"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	own := r.device.user
	if own.signing["master"] != nil { // neither server asks for anything the first time
		if err := s.confirm(own, asked.authData, "m.login.password"); err != nil {
			return nil, err
		}
	}
	if own.signing == nil {
		own.signing = map[string]object{}
	}
	for usage, key := range map[string]object{"master": asked.Master, "self_signing": asked.SelfSigning, "user_signing": asked.UserSigning} {
		if key != nil {
			own.signing[usage] = key
		}
	}
	s.devicesChanged(own)
	return object{}, nil
}

// uploadSignatures adds signatures to devices' keys and to cross-signing keys.
func (s *Server) uploadSignatures(r *request) (any, error) {
	var asked map[id.UserID]map[string]struct {
		Signatures map[string]map[string]any `json:"signatures"`
	}
	if err := json.Unmarshal(r.body, &asked); err != nil {
		return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "signatures cannot be read: %v", err)
	}
	for name, all := range asked {
		owner := s.users[name]
		if owner == nil {
			continue
		}
		for signed, by := range all {
			for _, key := range owner.signable(signed) {
				addSignatures(key, by.Signatures)
			}
		}
		s.devicesChanged(owner)
	}
	return object{"failures": object{}}, nil
}

// signable are the keys of that name, a device's ID or a public key.
func (u *user) signable(name string) []object {
	if device := u.devices[id.DeviceID(name)]; device != nil && device.keys.identity != nil {
		return []object{device.keys.identity}
	}
	var found []object
	for _, key := range u.signing {
		if keys, ok := key["keys"].(map[string]any); ok && keys["ed25519:"+name] != nil {
			found = append(found, key)
		}
	}
	return found
}

func addSignatures(key object, signatures map[string]map[string]any) {
	all, _ := key["signatures"].(map[string]any)
	if all == nil {
		all = map[string]any{}
	}
	for name, by := range signatures {
		known, _ := all[name].(map[string]any)
		if known == nil {
			known = map[string]any{}
		}
		for keyID, signature := range by {
			known[keyID] = signature
		}
		all[name] = known
	}
	key["signatures"] = all
}
