package matrix

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// Levels are the power level that it takes to send events of the type, and the level that the user has. They are not known where the
// homeserver does not say.
func (r Room) Levels(ctx context.Context, sends event.Type) (need, have int, known bool) {
	levels, err := r.PowerLevels(ctx)
	if err != nil {
		return 0, 0, false
	}
	_, err = r.maySend(ctx, levels, sends, r.Client.UserID)
	return levels.GetEventLevel(sends), levels.GetUserLevel(r.Client.UserID), err == nil
}

// maySend tells whether somebody has the power to send events of the type. It asks for the room's first event where the levels deny it.
func (r Room) maySend(ctx context.Context, levels *event.PowerLevelsEventContent, sends event.Type, user id.UserID) (may bool, err error) {
	has := func() bool { return levels.GetUserLevel(user) >= levels.GetEventLevel(sends) }
	if has() {
		return true, nil
	}
	levels.CreateEvent, err = r.createEvent(ctx)
	return err == nil && has(), err
}

// createEvent is the room's first event. Since room version 12 its creators have all power, and the levels do not say so.
func (r Room) createEvent(ctx context.Context) (*event.Event, error) {
	found, err := r.State(ctx, event.StateCreate, "")
	if err != nil {
		return nil, err
	}
	if found != nil {
		if create := found.Parsed(r.ID, event.StateCreate); create != nil {
			return create, nil
		}
	}
	return nil, fault.Of(fault.ErrCorrupt, nil, "%s has no event that tells who made it", r.ID)
}

// PowerLevels asks for the room's power levels.
func (r Room) PowerLevels(ctx context.Context) (*event.PowerLevelsEventContent, error) {
	body, err := r.Ask(ctx, MaxEvent, r.Client.BuildClientURL("v3", "rooms", r.ID, "state", event.StatePowerLevels.Type, ""))
	if err != nil {
		return nil, err
	}
	return levelsOf(body)
}

// levelsOf reads power levels. Up to room version 9 any of them can be a string, which mautrix does not read.
func levelsOf(body json.RawMessage) (*event.PowerLevelsEventContent, error) {
	var content any
	if err := json.Unmarshal(body, &content); err != nil {
		return nil, err
	}
	body, err := json.Marshal(numbers(content))
	if err != nil {
		return nil, err
	}
	var levels event.PowerLevelsEventContent
	return &levels, json.Unmarshal(body, &levels)
}

// numbers replaces the strings in a JSON value that are integers.
func numbers(value any) any {
	switch value := value.(type) {
	case string:
		if number, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil {
			return number
		}
	case map[string]any:
		for name, inner := range value {
			value[name] = numbers(inner)
		}
	}
	return value
}

// Powerless tells since when somebody has not had the power to send events of the type, or has not been in the room, in Unix milliseconds,
// by the time of the event that says so. It is 0 where they may send them.
func (r Room) Powerless(ctx context.Context, eventType event.Type, user id.UserID) (since int64, err error) {
	membership, err := r.State(ctx, event.StateMember, user.String())
	if err != nil {
		return 0, err
	}
	var member event.MemberEventContent
	if membership != nil && (json.Unmarshal(membership.Content, &member) != nil || member.Membership != event.MembershipJoin) {
		return membership.Time, nil
	}
	levels, err := r.State(ctx, event.StatePowerLevels, "")
	if err != nil || levels == nil {
		return 0, err
	}
	content, err := levelsOf(levels.Content)
	if err != nil { // levels that nobody can read take no power
		return 0, nil
	}
	if may, err := r.maySend(ctx, content, eventType, user); may || err != nil {
		return 0, err
	}
	return levels.Time, nil
}

// TakesPower tells whether the event can have taken from somebody the power to write: other power levels than before, or somebody who has
// left. It tells from whom, which is empty where that can be several.
func TakesPower(evt *event.Event) (from id.UserID, takes bool) {
	if IsRooms(evt, event.StatePowerLevels) {
		return "", evt.Unsigned.ReplacesState != "" || evt.Unsigned.PrevContent != nil
	}
	if evt.Type.Type != event.StateMember.Type || evt.StateKey == nil {
		return "", false
	}
	membership, _ := evt.Content.Raw["membership"].(string)
	gone := membership == string(event.MembershipLeave) || membership == string(event.MembershipBan)
	return id.UserID(*evt.StateKey), gone
}

// IsRooms is [Event.IsRooms] of an event of the sync.
func IsRooms(evt *event.Event, eventType event.Type) bool {
	return evt.Type.Type == eventType.Type && evt.StateKey != nil && *evt.StateKey == ""
}
