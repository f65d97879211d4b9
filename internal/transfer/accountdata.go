package transfer

import (
	"bytes"
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/dump"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// ImportAccountData stores the map that a client's user has in account data of a type, each name of which is a key: of a room or, where that is empty, of
// the whole account. What it has done is right beside an error too.
//
// Errors: ErrNotFound where there is none; ErrInvalidOption for an option that says how a file is read, where there is no type, and for a memory in account
// data; those of [Import].
func ImportAccountData(ctx context.Context, dst Destination, client matrix.Client, room id.RoomID, dataType, prefix string, options ImportOptions) (Imported, error) {
	switch {
	case options.Read != nil:
		return Imported{}, fault.Of(fault.ErrInvalidOption, nil, "account data is one JSON object, and takes neither ImportJSON nor ImportJSONLines")
	case dataType == "":
		return Imported{}, fault.Of(fault.ErrInvalidOption, nil, "the account data has no type")
	}
	text, err := matrix.AccountData(ctx, client, room, dataType)
	if err != nil {
		return Imported{}, err
	}
	var names map[string]json.RawMessage
	if json.Unmarshal(text, &names) == nil && names[wire.AccountName] != nil {
		return Imported{}, fault.Of(fault.ErrInvalidOption, nil, "the account data %s is a memory of roomkv's; Copy takes it from a store WithAccountDataFallback", dataType)
	}
	options.Read = dump.ReadObject
	return Import(ctx, dst, bytes.NewReader(text), prefix, options)
}
