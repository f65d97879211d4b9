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
	if fault.Kind == SyncSkips {
		whole = withoutRooms(whole)
	}
	t.syncs.add(whole)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(whole)), int64(len(whole))
	return resp, nil
}

// withoutRooms leaves the rooms out of a sync's answer. What goes to the device stays: a homeserver gives that once.
func withoutRooms(body []byte) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return body
	}
	delete(fields, "rooms")
	rest, err := json.Marshal(fields)
	if err != nil {
		return body
	}
	return rest
}
