package seal

// What an encrypted event's content may have, in bytes of canonical JSON before encryption. Megolm adds about a hundred, base64 a
// third, and the homeserver its part, until the whole is [wire.MaxEvent]. Values share an event up to MaxShared, which leaves room
// for any event's addresses: IDs and types of 255 bytes, and 20 events before it. Above maxAlone no homeserver takes the event, and in
// between the homeserver decides: with addresses of 20 to 30 bytes Dendrite 0.15.2 takes 48,366 and Synapse 1.160 48,348.
const (
	MaxShared = 45_000
	maxAlone  = 48_600
)

// How much is remembered.
const (
	maxOpened     = 16 << 20 // bytes of decrypted contents
	maxBrought    = 2 << 20  // bytes of encrypted events that the sync brought and nobody has asked for yet
	maxMissing    = 1024     // Megolm sessions and events that were waited for in vain
	maxReferences = 16       // references of one room to events that are to be looked at
	maxRefuted    = 1000     // and those that proved nothing
)

// aroundDuplicate is how many encrypted events around one are searched for another with the same ciphertext. Dendrite stores both
// at about the same time.
const aroundDuplicate = 50
