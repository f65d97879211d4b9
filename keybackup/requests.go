package keybackup

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

// get makes a request to read something. Where the answer is null it is the zero value.
func get[T any](ctx context.Context, client *mautrix.Client, url string) (read T, err error) {
	err = matrix.Get(ctx, matrix.Client{Client: client}, matrix.Request{Method: http.MethodGet, URL: url}, &read)
	return read, err
}

// send makes a request to change something. It fails where the answer is none of a homeserver's, as that of a captive portal.
func send(ctx context.Context, client *mautrix.Client, method, url string, body any) error {
	return matrix.Get(ctx, matrix.Client{Client: client}, matrix.Request{Method: method, URL: url, JSON: body}, &struct{}{})
}

func accountDataURL(client *mautrix.Client, name string) string {
	return client.BuildClientURL("v3", "user", client.UserID, "account_data", name)
}

// versionURL is that of the description of the account's backup.
func versionURL(client *mautrix.Client) string {
	return client.BuildClientURL("v3", "room_keys", "version")
}

// description is that of a backup.
type description = mautrix.RespRoomKeysVersion[backup.MegolmAuthData]

// keysURL is that of a backup's sessions, of a room and a session where they are given.
func keysURL(client *mautrix.Client, version id.KeyBackupVersion, at ...any) string {
	path := append(mautrix.ClientURLPath{"v3", "room_keys", "keys"}, at...)
	return client.BuildURLWithQuery(path, map[string]string{"version": string(version)})
}
