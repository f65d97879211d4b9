package memory

import (
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/policy"
	"github.com/roomkv/roomkv/internal/seal"
)

// Settings are what a store's options say of its memories.
type Settings struct {
	EventType string
	Layout    Layout
	Encrypt   bool // whether values are encrypted in encrypted rooms

	SingleWriter bool
	RedactOld    bool  // whether values that were overwritten are redacted
	MaxValue     int64 // in bytes, 0 where the homeserver says

	Secret   []byte         // of sealed keys, nil where they are not sealed
	MinTrust *id.TrustState // nil where any is enough
	KeyWait  time.Duration  // how long a read waits for a missing key
	Backup   seal.Backup    // nil where there is none

	Policy *policy.Policy // nil for the default
}
