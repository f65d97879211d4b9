package matrix

// How large the answers to requests may be, in bytes as they are read: without compression. A homeserver can send any number of them.
//
// An event has at most 65,536, and comes with those before it in its unsigned part, once on Dendrite and twice on Synapse. Dendrite
// spells some characters with six bytes that an event has with one.
const (
	MaxSmall = 512 << 10    // IDs, settings, and errors (mautrix.ErrorResponseSizeLimit)
	MaxEvent = 1 << 20      // an event, or what it is about
	MaxList  = 8 << 20      // what has many small parts, read as a whole
	MaxPage  = 16 << 20     // events, read one by one, and kept
	MaxWhole = 512 << 20    // all of a room, or of a backup, read one by one
	most     = 4 * MaxEvent // a part of an answer that is read part by part
	deep     = 1000         // how deep what is skipped may be nested
)
