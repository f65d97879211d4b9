package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// AccountDataURL is that of what the client's user has in account data of a type: of a room or, where that is empty, of the whole account.
func AccountDataURL(client Client, room id.RoomID, dataType string) string {
	if room == "" {
		return client.BuildClientURL("v3", "user", client.UserID, "account_data", dataType)
	}
	return client.BuildClientURL("v3", "user", client.UserID, "rooms", room, "account_data", dataType)
}

// AccountData gives what the client's user has in account data of a type, as JSON text: of a room or, where that is empty, of the whole account. The
// answer that it is {} counts when it comes twice, for homeservers have given it where there was something.
//
// Errors: ErrNotFound where there is none, or {}, for Matrix cannot delete account data; ErrTooLarge; those of the request.
func AccountData(ctx context.Context, client Client, room id.RoomID, dataType string) (text json.RawMessage, err error) {
	for range 2 {
		text, err = Do(ctx, client, Request{Method: http.MethodGet, URL: AccountDataURL(client, room, dataType), Limit: MaxAccount})
		if err != nil || !isEmptyObject(text) {
			break
		}
	}
	of := client.UserID.String()
	if room != "" {
		of += " for " + room.String()
	}
	switch {
	case err == nil && isEmptyObject(text), errors.Is(err, mautrix.MNotFound):
		return nil, fault.Of(fault.ErrNotFound, err, "there is no account data %s of %s, or it is empty", dataType, of)
	case errors.Is(err, mautrix.ErrBodyReadReachedLimit):
		return nil, fault.Of(fault.ErrTooLarge, err, "the account data %s of %s has more than %d bytes", dataType, of, MaxAccount)
	case err != nil && room != "":
		return nil, Room{client, room}.Explain(ctx, "read account data", err)
	case err != nil:
		return nil, fault.Because(err, "cannot read the account data %s of %s: %s", dataType, of, Describe(err))
	}
	return text, nil
}

// isEmptyObject tells whether the JSON text is {}.
func isEmptyObject(text []byte) bool {
	var spelled bytes.Buffer
	return len(text) < 64 && json.Compact(&spelled, text) == nil && spelled.String() == "{}"
}
