package keybackup

import "time"

// batch is how many sessions SaveAll sends at once, about 1 KB each.
const batch = 100

// current is how long the homeserver's word counts that a version is the account's backup. A session that is in the backup is used for
// some time, and meanwhile another client can delete the backup, or put another one in its place.
const current = 5 * time.Minute

// keySize is the size of a backup's private key (Curve25519), and of secret storage's, in bytes.
const keySize = 32

// maxIterations bounds the work that a homeserver can ask for by secret storage's description of its passphrase. Element
// asks for 500,000 iterations of PBKDF2, which take about half a second.
const maxIterations = 10_000_000
