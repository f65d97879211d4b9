package roomkv

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Powerless implements [commit.Room].
func (p place) Powerless(ctx context.Context, user id.UserID) (since int64, err error) {
	at := p.roomState
	at.eventType = event.StateMember
	membership, err := at.get(ctx, user.String())
	if err != nil {
		return 0, err
	}
	var member event.MemberEventContent
	if membership != nil && (json.Unmarshal(membership.Content, &member) != nil || member.Membership != event.MembershipJoin) {
		return membership.Time, nil
	}
	at.eventType = event.StatePowerLevels
	levels, err := at.get(ctx, "")
	if err != nil || levels == nil {
		return 0, err
	}
	content, err := levelsOf(levels.Content)
	if err != nil || content.GetUserLevel(user) >= content.GetEventLevel(p.eventType) {
		return 0, nil
	}
	if content.CreateEvent, err = p.createEvent(ctx); err != nil || content.GetUserLevel(user) >= content.GetEventLevel(p.eventType) {
		return 0, err
	}
	return levels.Time, nil
}

// takesPower tells whether the event can have taken from somebody the power to write: other power levels than before, or somebody who has
// left. It tells from whom, which is empty where that can be several.
func takesPower(evt *event.Event) (from id.UserID, takes bool) {
	if isRooms(evt, event.StatePowerLevels) {
		return "", evt.Unsigned.ReplacesState != "" || evt.Unsigned.PrevContent != nil
	}
	membership, _ := evt.Content.Raw["membership"].(string)
	gone := membership == string(event.MembershipLeave) || membership == string(event.MembershipBan)
	if evt.Type.Type != event.StateMember.Type || evt.StateKey == nil || !gone {
		return "", false
	}
	return id.UserID(*evt.StateKey), true
}
