package wire

import (
	"encoding/json"
	"maps"
	"slices"
)

// Lease is the value under the key of a lease.
type Lease struct {
	Holder string `json:"holder"` // different for each lease, empty where it was released
	Fence  int64  `json:"fence"`  // how many leases there have been
	Until  int64  `json:"until"`  // when others may take it, in Unix milliseconds by the homeserver's clock
}

// Once is the value under the key of an event that one process deals with.
type Once struct {
	By string `json:"once"` // different for each call
}

// maxAgreed is more than such a value takes, in bytes.
const maxAgreed = 200

// IsAgreed tells whether a value is a [Lease] or a [Once]. Processes act on what they have found there, so that nobody else may bring back another.
func IsAgreed(value json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if len(value) > maxAgreed || json.Unmarshal(value, &fields) != nil {
		return false
	}
	var lease Lease
	var once Once
	switch names := slices.Sorted(maps.Keys(fields)); {
	case slices.Equal(names, []string{"fence", "holder", "until"}):
		return json.Unmarshal(value, &lease) == nil && lease.Fence > 0
	case slices.Equal(names, []string{"once"}):
		return json.Unmarshal(value, &once) == nil && once.By != ""
	}
	return false
}
