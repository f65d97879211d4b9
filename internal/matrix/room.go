package matrix

import (
	"context"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// Room is a room as one client sees it. Its methods ask the homeserver each time.
type Room struct {
	Client Client
	ID     id.RoomID
}

// Log is the context's logger or else the client's, as in mautrix.
func (r Room) Log(ctx context.Context) *zerolog.Logger { return Logger(ctx, &r.Client.Log) }

// Logger is the context's logger, or else that one, as in mautrix.
func Logger(ctx context.Context, otherwise *zerolog.Logger) *zerolog.Logger {
	if log := zerolog.Ctx(ctx); log.GetLevel() != zerolog.Disabled && log != zerolog.DefaultContextLogger {
		return log
	}
	return otherwise
}
