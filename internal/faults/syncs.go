package faults

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
)

// maxSyncs is how many answers of syncs are kept.
const maxSyncs = 4

// syncs are the last answers of syncs that a client was given, the oldest first.
type syncs struct {
	mu   sync.Mutex
	last [][]byte
}

// can tells whether there are answers enough for the kind. The first answer stays as it is: it says where the sync begins.
func (s *syncs) can(kind Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == SyncStale {
		return len(s.last) > 2
	}
	return len(s.last) > 0
}

func (s *syncs) add(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = append(s.last, body)
	s.last = s.last[max(0, len(s.last)-maxSyncs):]
}

// again is the answer that was the back-th before now.
func (s *syncs) again(back int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.last[len(s.last)-back])
}

// disturbSync answers a sync, and remembers the answer.
func (t *Transport) disturbSync(req *http.Request, body []byte, fault Fault) (*http.Response, error) {
	switch fault.Kind {
	case SyncRepeats:
		return answer(req, http.StatusOK, "application/json", string(t.syncs.again(1))), nil
	case SyncStale:
		return answer(req, http.StatusOK, "application/json", string(t.syncs.again(3))), nil
	case SyncTwice:
		resp, err := t.send(req.Context(), req, body)
		discard(resp)
		if err != nil {
			return nil, err
		}
	}
	resp, err := t.send(req.Context(), req, body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	whole, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if fault.Kind == SyncLimited {
		whole = limited(whole)
	}
	t.syncs.add(whole)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(whole)), int64(len(whole))
	return resp, nil
}

// limited cuts the timelines of a sync's answer, and says so. What was in them of the room's state is in the state then (Client-Server API,
// syncing).
func limited(body []byte) []byte {
	var fields, rooms, joined map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || json.Unmarshal(fields["rooms"], &rooms) != nil || json.Unmarshal(rooms["join"], &joined) != nil {
		return body
	}
	for id, text := range joined {
		var room map[string]json.RawMessage
		var state struct {
			Events []json.RawMessage `json:"events"`
		}
		var timeline struct {
			Events  []json.RawMessage `json:"events"`
			Limited bool              `json:"limited"`
			Before  string            `json:"prev_batch,omitempty"`
		}
		if json.Unmarshal(text, &room) != nil || json.Unmarshal(room["timeline"], &timeline) != nil || len(timeline.Events) == 0 {
			continue
		}
		_ = json.Unmarshal(room["state"], &state)
		state.Events = latest(append(state.Events, timeline.Events...))
		timeline.Events, timeline.Limited = []json.RawMessage{}, true
		room["state"], room["timeline"] = encode(state), encode(timeline)
		joined[id] = encode(room)
	}
	rooms["join"] = encode(joined)
	fields["rooms"] = encode(rooms)
	return encode(fields)
}

// latest are the last events of each type and state key.
func latest(events []json.RawMessage) []json.RawMessage {
	type slot struct{ eventType, stateKey string }
	seen, kept := map[slot]bool{}, []json.RawMessage{}
	for _, text := range slices.Backward(events) {
		var evt struct {
			Type     string  `json:"type"`
			StateKey *string `json:"state_key"`
		}
		if json.Unmarshal(text, &evt) != nil || evt.StateKey == nil || seen[slot{evt.Type, *evt.StateKey}] {
			continue
		}
		seen[slot{evt.Type, *evt.StateKey}] = true
		kept = append(kept, text)
	}
	slices.Reverse(kept)
	return kept
}

func encode(value any) json.RawMessage {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // what was decoded can be encoded
	}
	return text
}
