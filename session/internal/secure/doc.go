// Package secure sets up a bot's encryption and opens it: the crypto store, the recovery key, secret storage, cross-signing, the signature of the
// device, and the key backup.
//
// [Open] is a row of steps. Each looks first whether it is done, so a start that was killed at any moment is mended by the next one. What secret
// storage has under the recovery key is made before what is derived from it is published: the homeserver never has public keys whose private ones are
// lost.
package secure
