#!/usr/bin/env bash
# Runs this module's tests on a real Synapse that is in the hands of the tests' authorization server.
#
#   SYNAPSE_PYTHON=/path/to/venv/bin/python ./synapse.sh [arguments of go test]
#   SYNAPSE_ROOT=/path/to/root ./synapse.sh [arguments of go test]
#
# SYNAPSE_PYTHON is a Python that has Synapse 1.160 or later (pip install matrix-synapse), python3 where it is not set. With SYNAPSE_ROOT that Python is
# in a root filesystem of its own, for chroot, which takes an administrator. Nothing is left there afterwards.
set -euo pipefail
cd "$(dirname "$0")"

python=${SYNAPSE_PYTHON:-python3}
root=${SYNAPSE_ROOT:-}
inside=()
if [[ -n $root ]]; then inside=(chroot "$root"); fi

folder=$(mktemp -d "$root/tmp/authserver.XXXXXX")
data=${folder#"$root"} # the folder's name for Synapse
synapse=
finish() {
  if [[ -n $synapse ]]; then kill "$synapse" 2>/dev/null && wait "$synapse" || true; fi
  rm -rf "$folder"
}
trap finish EXIT

# Ports that are free now: of Synapse, and of the authorization server, which Synapse reads once.
read -r port auth < <(python3 -c '
import socket
all = [socket.socket() for _ in range(2)]
for one in all: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in all))')
secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

unlimited='per_second: 10000, burst_count: 10000'
cat >"$folder/homeserver.yaml" <<YAML
server_name: localhost
signing_key_path: $data/signing.key
media_store_path: $data/media
log_config: $data/log.yaml
report_stats: false
trusted_key_servers: []
database:
  name: sqlite3
  args: {database: $data/homeserver.db}
listeners:
  - port: $port
    type: http
    bind_addresses: [127.0.0.1]
    resources: [{names: [client]}]
enable_registration: false
password_config: {enabled: false}
matrix_authentication_service:
  enabled: true
  endpoint: http://127.0.0.1:$auth/
  secret: $secret
rc_message: {$unlimited}
rc_room_creation: {$unlimited}
YAML
cat >"$folder/log.yaml" <<YAML
version: 1
handlers:
  file: {class: logging.FileHandler, filename: $data/synapse.log}
root: {level: WARNING, handlers: [file]}
YAML

run=("${inside[@]}" "$python" -m synapse.app.homeserver --config-path "$data/homeserver.yaml")
"${run[@]}" --generate-keys >"$folder/console.log" 2>&1 || { cat "$folder/console.log" >&2; exit 1; }
"${run[@]}" >>"$folder/console.log" 2>&1 &
synapse=$!
for ((i = 0; ; i++)); do
  if python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/_matrix/client/versions')" 2>/dev/null; then break; fi
  if ((i == 240)) || ! kill -0 "$synapse" 2>/dev/null; then
    echo 'Synapse does not answer:' >&2
    tail -20 "$folder"/*.log >&2
    exit 1
  fi
  sleep 0.5
done

ROOMKV_SYNAPSE=http://127.0.0.1:$port ROOMKV_SYNAPSE_AUTH=127.0.0.1:$auth ROOMKV_SYNAPSE_SECRET=$secret go test -count=1 "$@" . && result=0 || result=$?
if ((result)); then tail -40 "$folder/synapse.log" >&2; fi
exit "$result"
