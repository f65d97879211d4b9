package session

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"

	"github.com/rs/zerolog"
)

// log is the logger that is given, or one that does nothing.
func (c Config) log() zerolog.Logger {
	switch {
	case c.Logger != nil:
		return *c.Logger
	case c.Slog != nil:
		return zerolog.New(&toSlog{c.Slog})
	}
	return zerolog.Nop()
}

// toSlog makes records of slog of zerolog's lines.
type toSlog struct{ to *slog.Logger }

// slogTrace is the level of what zerolog calls trace: as far below debug as that is below info.
const slogTrace = slog.LevelDebug - (slog.LevelInfo - slog.LevelDebug)

var slogLevels = map[zerolog.Level]slog.Level{
	zerolog.TraceLevel: slogTrace, zerolog.DebugLevel: slog.LevelDebug, zerolog.InfoLevel: slog.LevelInfo, zerolog.NoLevel: slog.LevelInfo,
	zerolog.WarnLevel: slog.LevelWarn, zerolog.ErrorLevel: slog.LevelError, zerolog.FatalLevel: slog.LevelError, zerolog.PanicLevel: slog.LevelError,
}

// Write implements [zerolog.LevelWriter].
func (w *toSlog) Write(line []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel implements [zerolog.LevelWriter].
func (w *toSlog) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	to, ctx := slogLevels[level], context.Background()
	if !w.to.Enabled(ctx, to) {
		return len(line), nil
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return 0, err
	}
	text, _ := fields[zerolog.MessageFieldName].(string)
	delete(fields, zerolog.MessageFieldName)
	delete(fields, zerolog.LevelFieldName)
	var attrs []slog.Attr
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		attrs = append(attrs, slog.Any(name, fields[name]))
	}
	w.to.LogAttrs(ctx, to, text, attrs...)
	return len(line), nil
}
