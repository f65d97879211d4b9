package syncing

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Sync asks once what is new, as [mautrix.Client.FullSyncRequest] does, and leaves out events that cannot be read: one of them would fail the whole response,
// at each try again. A member of a room or a server that invites may have made them.
func Sync(ctx context.Context, client *mautrix.Client, req mautrix.ReqSync) (resp *mautrix.RespSync, err error) {
	resp, err = get[mautrix.RespSync](ctx, client, client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, req.BuildQuery()))
	if err == nil {
		err = whole(resp)
	}
	return resp, err
}

// Page asks once for a page of a room's events, as [mautrix.Client.Messages] does, and leaves out what [Sync] does.
func Page(ctx context.Context, client *mautrix.Client, room id.RoomID, from, to string, dir mautrix.Direction, limit int) (*mautrix.RespMessages, error) {
	query := map[string]string{"dir": string(dir), "from": from, "limit": strconv.Itoa(limit)}
	if to != "" {
		query["to"] = to
	}
	return get[mautrix.RespMessages](ctx, client, client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query))
}

var errUnreadable = errors.New("the homeserver's answer is not the JSON that was asked for")

// get reads an answer that has events, nil where it is null.
func get[T any](ctx context.Context, client *mautrix.Client, address string) (*T, error) {
	body, err := client.MakeFullRequest(ctx, mautrix.FullRequest{Method: http.MethodGet, URL: address, MaxAttempts: 1})
	if err != nil {
		return nil, err
	}
	var whole, rest *T
	if json.Unmarshal(body, &whole) == nil {
		return whole, nil
	}
	readable, left, err := readable(body, deepest)
	if err == nil {
		err = json.Unmarshal(readable, &rest)
	}
	if err != nil { // whose text can have a value
		return nil, errUnreadable
	}
	client.Log.Warn().Int("events", left).Msg("Events cannot be read, and are left out")
	return rest, nil
}

// deepest is how many objects there are around a list of events: the answer, rooms, join, a room and its timeline. What is deeper is not looked into, for each
// level is read anew.
const deepest = 5

// readable is an object without the events that mautrix cannot read, which are in lists of these names, and how many those are.
func readable(text []byte, levels int) (_ []byte, left int, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, 0, err
	}
	for name, value := range object {
		switch {
		case value[0] == '[' && (name == "events" || name == "chunk" || name == "state"):
			var events []json.RawMessage
			if err := json.Unmarshal(value, &events); err != nil {
				return nil, 0, err
			}
			all := len(events)
			events = slices.DeleteFunc(events, func(evt json.RawMessage) bool { return json.Unmarshal(evt, new(event.Event)) != nil })
			left += all - len(events)
			if object[name], err = json.Marshal(events); err != nil {
				return nil, 0, err
			}
		case value[0] == '{' && levels > 1:
			inner, less, err := readable(value, levels-1)
			if err != nil {
				return nil, 0, err
			}
			object[name], left = inner, left+less
		}
	}
	text, err = json.Marshal(object)
	return text, left, err
}
