package fakehs

import (
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"
)

// encryption is what a sync says of keys and of what was sent to the device.
func (y *syncing) encryption() {
	keys := &y.device.keys
	y.resp["device_one_time_keys_count"] = keys.counts()
	y.resp["device_unused_fallback_key_types"] = keys.unused()
	if messages := y.device.received(y.since, y.upTo); len(messages) > 0 {
		y.resp["to_device"] = object{"events": messages}
		y.news = true
	}
	if y.initial {
		return
	}
	if changed, left := y.deviceLists(); len(changed)+len(left) > 0 {
		y.resp["device_lists"] = object{"changed": changed, "left": left}
		y.news = true
	}
}

// deviceLists are the users whose keys have changed, or are new to the device's user, and those who share no room with them any more.
func (y *syncing) deviceLists() (changed, left []id.UserID) {
	own := y.device.user
	changed, left = []id.UserID{}, []id.UserID{}
	shares := map[id.UserID]bool{own.id: true}
	fresh, gone := map[id.UserID]bool{}, map[id.UserID]bool{}
	for _, at := range y.roomsOf(own) {
		last := at.lastListed(y.upTo)
		if last == nil {
			continue
		}
		mine := last.resolved.get("m.room.member", string(own.id))
		if mine == nil {
			continue
		}
		joined := textOf(mine.Content, "membership") == "join"
		for _, evt := range last.resolved.sorted() {
			if evt.Type != "m.room.member" {
				continue
			}
			name, isNew := id.UserID(*evt.StateKey), evt.pos > y.since || mine.pos > y.since
			switch {
			case joined && textOf(evt.Content, "membership") == "join":
				shares[name] = true
				fresh[name] = fresh[name] || isNew
			case isNew && (evt.replacedMembership() == "join" || mine.replacedMembership() == "join"):
				gone[name] = true
			}
		}
	}
	for name := range shares {
		known := y.users[name]
		if fresh[name] && name != own.id || known != nil && known.changed > y.since && known.changed <= y.upTo {
			changed = append(changed, name)
		}
	}
	for name := range maps.Keys(gone) {
		if !shares[name] {
			left = append(left, name)
		}
	}
	slices.Sort(changed)
	slices.Sort(left)
	return changed, left
}
