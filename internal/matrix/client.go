package matrix

import (
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/meter"
)

// Client is a client that makes requests for the stores of one New, or for somebody else.
type Client struct {
	*mautrix.Client
	Meter *meter.Meter // of what is tried again; nil where nobody asks
}
