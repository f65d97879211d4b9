package memory

import (
	"encoding/json"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// Record is what a state event, or account data, says of one name.
type Record struct {
	Name      string
	Stored    json.RawMessage
	Event     id.EventID
	Sender    id.UserID
	Time      time.Time
	InAccount bool  // whether it is in account data
	Err       error // why the event could not be read; then nobody knows which names it has

	view *replica.View // which has it; nil for one that comes from elsewhere
}

// RecordOf is nil where the name is not in the view. Where the view has an error, so has the record.
func RecordOf(view *replica.View, name string) *Record {
	stored, ok := view.Names[name]
	if !ok && view.Err == nil {
		return nil
	}
	return &Record{Name: name, Stored: json.RawMessage(stored), Event: view.Event, Sender: view.Sender, Time: Time(view.Time), Err: view.Err, view: view}
}

// RecordsOf are the records of all names in the view that stand for keys, plain or sealed.
func RecordsOf(view *replica.View) []Record {
	if view.Err != nil {
		return []Record{*RecordOf(view, "")}
	}
	records := make([]Record, 0, len(view.Names))
	for name := range view.Names {
		if _, plain := wire.KeyOf(name); plain || wire.IsSealed(name) {
			records = append(records, *RecordOf(view, name))
		}
	}
	return records
}

// Time is when an event was sent, which its sender's homeserver chooses: a time that no date can name is the Unix epoch.
func Time(unixMilli int64) time.Time {
	if unixMilli < 0 || unixMilli > wire.MaxTime {
		unixMilli = 0
	}
	return time.UnixMilli(unixMilli)
}
