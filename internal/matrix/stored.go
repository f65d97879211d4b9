package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// Where a pagination token of a homeserver that numbers the events that it stores has the number of one. What comes
// before it is the event's depth in the room's graph.
var (
	synapseToken  = regexp.MustCompile(`^t-?\d+-(-?\d+)(?:_.*)?$`)
	dendriteToken = regexp.MustCompile(`^t\d+_(\d+)$`)
	syncToken     = regexp.MustCompile(`^s(\d+)(?:_.*)?$`) // of both
)

// placeIn is the number in a token of one of the forms.
func placeIn(token string, forms ...*regexp.Regexp) (place int64, known bool) {
	for _, form := range forms {
		if match := form.FindStringSubmatch(token); match != nil {
			if place, err := strconv.ParseInt(match[1], 10, 64); err == nil {
				return place, true
			}
		}
	}
	return 0, false
}

// Where a list that goes back ends: Synapse gives the depth of the last event that is listed, Dendrite one less.
var (
	synapseEnd  = regexp.MustCompile(`^t(\d+)--?\d+(?:_.*)?$`)
	dendriteEnd = regexp.MustCompile(`^t(\d+)_\d+$`)
)

// depthBefore is the depth of the last event before the end of a list that goes back, 0 where the token does not tell.
func depthBefore(end string) int64 {
	if depth, known := placeIn(end, dendriteEnd); known {
		return depth + 1
	}
	depth, _ := placeIn(end, synapseEnd)
	return depth
}

// pageAfter is the token of the page after one that ends with this token. Dendrite's is one depth below the page's last event and 1,000 above its
// place (TopologyToken.Decrement in Dendrite's syncapi/types, v0.15.2), so that events of the same depth that were stored before it would be on
// no page. A list can begin behind any place within a depth.
func pageAfter(end string) string {
	depth, dendrite := placeIn(end, dendriteEnd)
	place, _ := placeIn(end, dendriteToken)
	if place -= dendriteAbove + 1; !dendrite || place < 0 {
		return end
	}
	return fmt.Sprintf("t%d_%d", depth+1, place)
}

// dendriteAbove is how far the place in such a token is above that of the page's last event.
const dendriteAbove = 1000

// PlaceOf is where the homeserver had stored the last event before a position in a sync, or in a list that goes back. It is 0 where the
// token does not tell.
func PlaceOf(token string) (place int64) {
	place, _ = placeIn(token, synapseToken, dendriteToken, syncToken)
	return place
}

// Surroundings are what a homeserver gives of the events around one: it, and at most one other.
type Surroundings struct {
	Start  string            `json:"start"`
	Before []json.RawMessage `json:"events_before"`
}

// Place is where the homeserver has stored the event among all others, of any room. It is not known where the token has
// another form than those of Synapse and Dendrite: to Matrix, tokens are opaque.
//
// Half of a limit of 1 is 0 events before and 1 after on Synapse, whose start then is the token of the event itself. On
// Dendrite the limit is for each side, and start is the token of what was stored before the event in this room. That
// orders events just as well.
func (s Surroundings) Place() (place int64, known bool) {
	if len(s.Before) > 0 {
		return placeIn(s.Start, dendriteToken)
	}
	return placeIn(s.Start, dendriteToken, synapseToken)
}

// Stored asks where the homeserver has stored an event that it has listed. Synapse lists events by their depth, which it
// chooses before it stores them: one that took long is listed before those that it has acknowledged meanwhile.
func (r Room) Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error) {
	around, err := r.Around(ctx, event)
	place, known = around.Place()
	return place, known, err
}

// Around asks for what the homeserver lists around an event. There is nothing where it does not give the event, or not any more.
func (r Room) Around(ctx context.Context, event id.EventID) (Surroundings, error) {
	// The response has the room's state too, of which nobody can want any that is not in this room. Synapse reads the
	// members all the same, unless they are to be lazy.
	filter, err := json.Marshal(map[string]any{"not_rooms": []id.RoomID{r.ID}, "lazy_load_members": true})
	if err != nil {
		return Surroundings{}, err
	}
	url := r.Client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", r.ID, "context", event},
		map[string]string{"limit": "1", "filter": string(filter)})
	var around Surroundings
	err = untilThere(ctx, placeAgain, func() error {
		return Get(ctx, r.Client, Request{Method: http.MethodGet, URL: url, Limit: MaxList}, &around)
	})
	if IsStatus(err, http.StatusNotFound) || IsStatus(err, http.StatusForbidden) { // purged since it was listed, or hidden
		return Surroundings{}, nil
	} else if err != nil {
		return Surroundings{}, r.Explain(ctx, "tell the order of events", err)
	}
	return around, nil
}
