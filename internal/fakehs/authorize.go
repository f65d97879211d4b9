package fakehs

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"maunium.net/go/mautrix/id"
)

// authOf is the state that tells whether an event is allowed (Server-Server API, auth events selection).
func authOf(st *state, evt *pdu) []*pdu {
	at := []slot{{"m.room.create", ""}, {"m.room.power_levels", ""}, {"m.room.member", string(evt.Sender)}}
	if evt.Type == "m.room.member" && evt.StateKey != nil {
		at = append(at, slot{"m.room.join_rules", ""})
		if *evt.StateKey != string(evt.Sender) {
			at = append(at, slot{"m.room.member", *evt.StateKey})
		}
	}
	var found []*pdu
	for _, at := range at {
		if evt := st.get(at.eventType, at.stateKey); evt != nil {
			found = append(found, evt)
		}
	}
	return found
}

// authorize refuses what the state of a room does not allow (room versions, authorization rules).
func authorize(st *state, evt *pdu) error {
	if evt.Type == "m.room.create" {
		return nil
	}
	power := levelsIn(st)
	if evt.Type == "m.room.member" && evt.StateKey != nil {
		return authorizeMember(st, power, evt)
	}
	if st.membership(evt.Sender) != "join" {
		return forbid("User %s not in room %s", evt.Sender, evt.room.id)
	}
	if own, need := power.of(evt.Sender), power.toSend(evt.Type, evt.StateKey != nil); own < need {
		return forbid("You don't have permission to post that to the room. user_level (%d) < send_level (%d)", own, need)
	}
	if evt.StateKey != nil && strings.HasPrefix(*evt.StateKey, "@") && *evt.StateKey != string(evt.Sender) {
		return forbid("You are not allowed to set others state")
	}
	if evt.is("m.room.power_levels", "") {
		return authorizePower(power, evt)
	}
	return nil
}

// authorizeMember is authorize for a change of somebody's membership.
func authorizeMember(st *state, power *levels, evt *pdu) error {
	target := id.UserID(*evt.StateKey)
	was, self, sender := st.membership(target), target == evt.Sender, st.membership(evt.Sender)
	own := power.of(evt.Sender)
	switch becomes := textOf(evt.Content, "membership"); becomes {
	case "join":
		rule := ""
		if rules := st.get("m.room.join_rules", ""); rules != nil {
			rule = textOf(rules.Content, "join_rule")
		}
		creator := st.size == 1 && evt.Sender == evt.room.create.Sender // who joins it first of all
		switch {
		case !self:
			return forbid("Cannot force another user to join.")
		case was == "ban":
			return forbid("You are banned from this room")
		case creator || was == "join" || was == "invite" || rule == "public":
			return nil
		}
		return forbid("You are not invited to this room.")
	case "invite":
		switch {
		case sender != "join":
			return forbid("%s not in room %s.", evt.Sender, evt.room.id)
		case was == "join" || was == "ban":
			return forbid("%s is already in the room.", target)
		case own < or(power.Invite, 0):
			return forbid("You don't have permission to invite users")
		}
		return nil
	case "leave":
		switch {
		case self && (was == "join" || was == "invite" || was == "knock"):
			return nil
		case self || sender != "join":
			return forbid("%s not in room %s.", evt.Sender, evt.room.id)
		case was == "ban" && own < or(power.Ban, 50):
			return forbid("You cannot unban user %s.", target)
		case own < or(power.Kick, 50) || own <= power.of(target):
			return forbid("You cannot kick user %s.", target)
		}
		return nil
	case "ban":
		if sender != "join" || own < or(power.Ban, 50) || own <= power.of(target) {
			return forbid("You don't have permission to ban")
		}
		return nil
	default:
		return refuse(http.StatusBadRequest, "M_BAD_JSON", "unknown membership %q", becomes)
	}
}

// authorizePower is authorize for a change of power levels: nobody takes or gives power that they do not have.
func authorizePower(now *levels, evt *pdu) error {
	var then levels
	if err := json.Unmarshal(evt.Content, &then); err != nil {
		return refuse(http.StatusBadRequest, "M_BAD_JSON", "power levels are no numbers: %v", err)
	}
	if evt.room.version >= 10 && hasStringLevels(evt.Content) {
		return forbid("power levels are strings, which room version %d does not have", evt.room.version)
	}
	for _, creator := range now.creators {
		if _, ok := then.Users[creator]; ok {
			return refuse(http.StatusBadRequest, "M_BAD_JSON", "the creator %s has all power", creator)
		}
	}
	if now.none {
		return nil
	}
	own := now.of(evt.Sender)
	change := func(was, becomes *level) error {
		if (was == nil) == (becomes == nil) && (was == nil || *was == *becomes) {
			return nil
		}
		if was != nil && *was > own || becomes != nil && *becomes > own {
			return forbid("You don't have permission to change a power level above your own")
		}
		return nil
	}
	pairs := [][2]*level{{now.UsersDefault, then.UsersDefault}, {now.EventsDefault, then.EventsDefault}, {now.StateDefault, then.StateDefault},
		{now.Ban, then.Ban}, {now.Kick, then.Kick}, {now.Redact, then.Redact}, {now.Invite, then.Invite}}
	for name := range both(now.Events, then.Events) {
		pairs = append(pairs, [2]*level{at(now.Events, name), at(then.Events, name)})
	}
	for user := range both(now.Users, then.Users) {
		was, becomes := at(now.Users, user), at(then.Users, user)
		if user != evt.Sender && was != nil && *was >= own && (becomes == nil || *becomes != *was) {
			return forbid("You don't have permission to change the power level of %s", user)
		}
		pairs = append(pairs, [2]*level{was, becomes})
	}
	for _, pair := range pairs {
		if err := change(pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

func both[K comparable](a, b map[K]level) map[K]level {
	all := maps.Clone(a)
	if all == nil {
		all = map[K]level{}
	}
	maps.Copy(all, b)
	return all
}

func at[K comparable](levels map[K]level, name K) *level {
	if l, ok := levels[name]; ok {
		return &l
	}
	return nil
}

// hasStringLevels tells whether any level in the content is a string.
func hasStringLevels(content json.RawMessage) bool {
	var fields any
	if json.Unmarshal(content, &fields) != nil {
		return false
	}
	var has func(value any) bool
	has = func(value any) bool {
		switch value := value.(type) {
		case string:
			return true
		case map[string]any:
			for _, inner := range value {
				if has(inner) {
					return true
				}
			}
		}
		return false
	}
	return has(fields)
}
