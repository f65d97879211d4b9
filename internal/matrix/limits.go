package matrix

// How large the answers to requests may be, in bytes as they are read: without compression. A homeserver can send any number of them.
//
// An event has at most 65,536, and comes with those before it in its unsigned part, once on Dendrite and twice on Synapse. Dendrite
// spells some characters with six bytes that an event has with one.
const (
	Small = 512 << 10 // IDs, settings, and errors (mautrix.ErrorResponseSizeLimit)
	Event = 1 << 20   // an event, or what it is about
	List  = 8 << 20   // what has many small parts, read as a whole
	Page  = 16 << 20  // events, read one by one, and kept
	Whole = 512 << 20 // all of a room, or of a backup, read one by one
	most  = 4 * Event // a part of an answer that is read part by part
	deep  = 1000      // how deep what is skipped may be nested
)
