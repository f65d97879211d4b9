package roomkv

import (
	"reflect"

	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/seal"
)

// mautrix warns of each event that it decrypts for which it has no Go type, and so of each value that the sync brings back. The map is
// not guarded: only the types that are known from the start can be put there.
func init() {
	for _, eventType := range []string{DefaultEventType, "dev.opsdroid.database", "opsdroid.database"} {
		event.TypeMap[seal.ContentType(eventType)] = reflect.TypeFor[struct{}]()
	}
}
