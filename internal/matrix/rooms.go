package matrix

import (
	"context"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// RoomsWith lists the rooms in which the user is and in whose state is an event of the type that is wanted, by state key. It reads what an initial
// sync shows, which has the contents of these events too, and neither members nor any other state.
func RoomsWith(ctx context.Context, client Client, eventType event.Type, wants func(stateKey string) bool) (rooms []id.RoomID, err error) {
	lets := syncFilter(filter{"state": filter{"types": []string{eventType.Type}}, "timeline": filter{"types": []string{}, "limit": 0}})
	url := client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, map[string]string{"filter": lets, "set_presence": string(event.PresenceOffline)})
	err = Stream(ctx, client, url, MaxWhole, func(decoder *Decoder) error {
		rooms = nil
		join := Objects(func(room string, decoder *Decoder) error {
			found := false
			events := Events(func(evt *Event) error {
				found = found || evt != nil && evt.Type == eventType.Type && evt.StateKey != nil && wants(*evt.StateKey)
				return nil
			})
			err := Members{"state": Members{"events": events}.Read}.Read(decoder)
			if found {
				rooms = append(rooms, id.RoomID(room))
			}
			return err
		})
		return Members{"rooms": Members{"join": join}.Read}.Read(decoder)
	})
	slices.Sort(rooms)
	return slices.Compact(rooms), err
}
