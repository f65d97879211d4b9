//go:build !unix

package homeserver

// lockFile does nothing where the system has no flock: two builds at the same time then cost twice the work,
// and the rename at the end of each leaves one whole binary.
func lockFile(string) (unlock func(), err error) { return func() {}, nil }
