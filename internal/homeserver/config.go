package homeserver

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"text/template"
)

const (
	configFile = "dendrite.yaml"
	keyFile    = "signing.pem"
)

// Paths are relative to the server's folder, where Dendrite is started. SQLite writes to a database that
// nobody will read again after a crash, so it need not wait for the disk.
var configTemplate = template.Must(template.New(configFile).Parse(`version: 2
global:
  server_name: localhost
  private_key: ` + keyFile + `
  disable_federation: true
  jetstream: {in_memory: true, storage_path: .}
  report_stats: {enabled: false}
client_api:
  registration_disabled: false
  rate_limiting: {enabled: false}
media_api:
  base_path: media
  database: {connection_string: "file:media.db?{{.}}"}
user_api:
  bcrypt_cost: 4
  account_database: {connection_string: "file:account.db?{{.}}"}
federation_api:
  key_perspectives: []
  database: {connection_string: "file:federation.db?{{.}}"}
key_server:
  database: {connection_string: "file:key.db?{{.}}"}
room_server:
  database: {connection_string: "file:room.db?{{.}}"}
sync_api:
  database: {connection_string: "file:sync.db?{{.}}"}
  search: {enabled: false}
relay_api:
  database: {connection_string: "file:relay.db?{{.}}"}
mscs:
  database: {connection_string: "file:mscs.db?{{.}}"}
logging: [{type: std, level: warn}]
`))

func writeConfig(dir string) error {
	var config bytes.Buffer
	if err := configTemplate.Execute(&config, "_pragma=synchronous(0)"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), config.Bytes(), 0o600); err != nil {
		return err
	}

	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails, see crypto/rand
	key := pem.EncodeToMemory(&pem.Block{
		Type:    "MATRIX PRIVATE KEY",
		Headers: map[string]string{"Key-ID": "ed25519:roomkv"},
		Bytes:   seed,
	})
	return os.WriteFile(filepath.Join(dir, keyFile), key, 0o600)
}
