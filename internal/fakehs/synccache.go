package fakehs

import (
	"encoding/json"
	"net/url"
	"slices"
	"time"
)

// cachedFor is how long Synapse gives a device that asks for the same sync again the same answer (sync_response_cache_duration).
const cachedFor = 2 * time.Minute

// syncCache are the last answers that a device was given to syncs, the oldest first.
type syncCache []cachedSync

type cachedSync struct {
	asked string
	text  json.RawMessage
	at    time.Time
}

// syncAsked is what two syncs of a device have in common that Synapse takes for the same.
func syncAsked(query url.Values) string {
	asked := url.Values{}
	for _, name := range []string{"timeout", "since", "filter", "full_state", "use_state_after"} {
		asked[name] = query[name]
	}
	return asked.Encode()
}

// find gives the answer to a sync, nil where there is none that is young enough.
func (c *syncCache) find(asked string) json.RawMessage {
	c.expire()
	if i := slices.IndexFunc(*c, func(known cachedSync) bool { return known.asked == asked }); i >= 0 {
		return (*c)[i].text
	}
	return nil
}

func (c *syncCache) add(asked string, text json.RawMessage) {
	c.expire()
	*c = append(*c, cachedSync{asked, text, time.Now()})
}

func (c *syncCache) expire() {
	old := 0
	for old < len(*c) && time.Since((*c)[old].at) > cachedFor {
		old++
	}
	*c = (*c)[old:]
}
