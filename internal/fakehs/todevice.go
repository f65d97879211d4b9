package fakehs

import (
	"encoding/json"

	"maunium.net/go/mautrix/id"
)

// toDevice is a message for one device.
type toDevice struct {
	pos     int64
	sender  id.UserID
	typ     string
	content json.RawMessage
}

func (s *Server) sendToDevice(r *request) (any, error) {
	var asked struct {
		Messages map[id.UserID]map[id.DeviceID]json.RawMessage `json:"messages"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	txn := r.URL.Path
	if r.device.done[txn] != nil {
		return object{}, nil
	}
	r.device.done[txn] = object{}
	for name, devices := range asked.Messages {
		owner := s.users[name]
		if owner == nil {
			continue
		}
		for deviceID, content := range devices {
			for _, device := range owner.devices {
				if deviceID == "*" || deviceID == device.id {
					device.inbox = append(device.inbox, toDevice{s.next(), r.device.user.id, r.vars["type"], content})
				}
			}
		}
	}
	s.tell()
	return object{}, nil
}

// received are the messages between two places. Those before are forgotten: the device has got them.
func (d *device) received(since, upTo int64) []object {
	var kept []toDevice
	var shown []object
	for _, message := range d.inbox {
		if message.pos <= since {
			continue
		}
		kept = append(kept, message)
		if message.pos <= upTo {
			shown = append(shown, object{"type": message.typ, "sender": message.sender, "content": message.content})
		}
	}
	d.inbox = kept
	return shown
}
