package fakehs

import (
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

func (s *Server) listDevices(r *request) (any, error) {
	shown := []object{}
	for _, device := range r.device.user.devices {
		shown = append(shown, device.describe())
	}
	slices.SortFunc(shown, func(a, b object) int {
		return strings.Compare(string(a["device_id"].(id.DeviceID)), string(b["device_id"].(id.DeviceID)))
	})
	return object{"devices": shown}, nil
}

func (d *device) describe() object {
	return object{"device_id": d.id, "display_name": d.name, "last_seen_ip": "127.0.0.1", "last_seen_ts": d.seen}
}

func (s *Server) getDevice(r *request) (any, error) {
	device := r.device.user.devices[id.DeviceID(r.vars["device"])]
	if device == nil {
		return nil, notFound("no such device")
	}
	return device.describe(), nil
}

func (s *Server) putDevice(r *request) (any, error) {
	var asked struct {
		Name string `json:"display_name"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	device := r.device.user.devices[id.DeviceID(r.vars["device"])]
	if device == nil {
		return nil, notFound("no such device")
	}
	device.name = asked.Name
	s.devicesChanged(device.user)
	return object{}, nil
}

func (s *Server) deleteDevice(r *request) (any, error) {
	return s.deleteNamed(r, []id.DeviceID{id.DeviceID(r.vars["device"])})
}

func (s *Server) deleteDevices(r *request) (any, error) {
	var asked struct {
		Devices []id.DeviceID `json:"devices"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	return s.deleteNamed(r, asked.Devices)
}

func (s *Server) deleteNamed(r *request, names []id.DeviceID) (any, error) {
	var asked authData
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	if err := s.confirm(r.device.user, asked, "m.login.password"); err != nil {
		return nil, err
	}
	for _, name := range names {
		if device := r.device.user.devices[name]; device != nil {
			s.removeDevice(device)
		}
	}
	return object{}, nil
}
