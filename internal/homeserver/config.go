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

// maxMedia is how large an upload may be, in bytes: Synapse's default. Dendrite's own is a fifth of it.
const maxMedia = 50 << 20

// ownName is the name of a server that no other server can reach.
const ownName = "localhost"

// Paths are relative to the server's folder, where Dendrite is started. SQLite writes to a database that
// nobody will read again after a crash of the machine, so it need not wait for the disk. JetStream's queues are on the disk, as in life:
// what Dendrite acknowledges can be in a queue alone, and a queue in memory would be lost when the server is killed. A server that
// federates talks to its peer of a Pair, which is on a loopback address and has a certificate that nobody vouches for.
var configTemplate = template.Must(template.New(configFile).Parse(`version: 2
global:
  server_name: {{.Name}}
  private_key: ` + keyFile + `
  disable_federation: {{not .Federates}}
  jetstream: {storage_path: .}
  report_stats: {enabled: false}
client_api:
  registration_disabled: false
  rate_limiting: {enabled: false}
media_api:
  base_path: media
  max_file_size_bytes: {{.MaxMedia}}
  database: {connection_string: "file:media.db?{{.SQLite}}"}
user_api:
  bcrypt_cost: 4
  account_database: {connection_string: "file:account.db?{{.SQLite}}"}
federation_api:
  key_perspectives: []
  deny_networks: []
  disable_tls_validation: true
  database: {connection_string: "file:federation.db?{{.SQLite}}"}
key_server:
  database: {connection_string: "file:key.db?{{.SQLite}}"}
room_server:
  database: {connection_string: "file:room.db?{{.SQLite}}"}
sync_api:
  database: {connection_string: "file:sync.db?{{.SQLite}}"}
  search: {enabled: false}
relay_api:
  database: {connection_string: "file:relay.db?{{.SQLite}}"}
mscs:
  database: {connection_string: "file:mscs.db?{{.SQLite}}"}
logging: [{type: std, level: warn}]
`))

// writeConfig writes what the server called name needs into dir. With any name but ownName it federates.
func writeConfig(dir, name string) error {
	var config bytes.Buffer
	err := configTemplate.Execute(&config, struct {
		Name, SQLite string
		Federates    bool
		MaxMedia     int
	}{name, "_pragma=synchronous(0)", name != ownName, maxMedia})
	if err != nil {
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
