package matrix

import "time"

// How large the answers to requests may be, in bytes as they are read: without compression. A homeserver can send any number of them.
//
// An event has at most 65,536, and comes with those before it in its unsigned part, once on Dendrite and twice on Synapse. Dendrite
// spells some characters with six bytes that an event has with one.
const (
	MaxSmall   = 512 << 10    // IDs, settings, and errors (mautrix.ErrorResponseSizeLimit)
	MaxEvent   = 1 << 20      // an event, or what it is about
	MaxList    = 8 << 20      // what has many small parts, read as a whole
	MaxPage    = 16 << 20     // events, read one by one, and kept
	MaxAccount = 16 << 20     // account data of one type, which homeservers limit by what a request may have
	MaxWhole   = 512 << 20    // all of a room, or of a backup, read one by one
	most       = 4 * MaxEvent // a part of an answer that is read part by part
	deep       = 1000         // how deep what is skipped may be nested
)

// How far back a list of events is read. A homeserver can give a token for another page for ever.
const (
	maxPages = 10_000   // pages in all
	maxEmpty = 1000     // pages in turn without any event of the memory
	maxToken = 2 << 10  // bytes of a token
	maxHeld  = 32 << 20 // bytes of events that are held in memory together
)

// How many events a page asks for where people have talked for long, and how many of any type where that was for longer. Dendrite bounds
// the limit of a request by 100, but not that of its filter.
const (
	manyEvents = 1000
	anyEvents  = 500
)

// How much a page may have: so many events where fewer are asked for, as homeservers can give more than that, and so many bytes for
// each, up to [MaxPage].
const (
	maxPageEvents = 2000
	bytesOfEvent  = 256 << 10
)

// How much of a listing is held in memory at once, in bytes of events, to each of which eventCost is added.
const (
	maxListed = 32 << 20
	eventCost = 512
)

// timelineLimit is how many of the latest events a listing looks at beside the state, the most that Synapse gives by
// default. They cost something only where a later one has taken their place.
const timelineLimit = 100

// maxMembers is how many members a room may have in which values are encrypted. Homeservers list them in one answer.
const maxMembers = 50_000

// maxRedirects is how many redirects of a download are followed, as many as package http does by itself.
const maxRedirects = 10

// How often a request is made again, and with which waits, where neither the client nor the context says. The waits are what mautrix
// documents as the defaults of a client's DefaultHTTPBackoff and MaxHTTPBackoff.
const (
	defaultRetries = 3
	defaultPause   = 4 * time.Second
	defaultLongest = 10 * time.Minute
)

// How long a request is made again for what the homeserver does not find: Dendrite finds an event some milliseconds after it has
// acknowledged it, and under load much later. Each wait is three times as long as the one before it: 10, 30, 90 ms and so on.
const (
	lookAgain   = 400 * time.Millisecond  // for an event, unless the caller waits longer
	placeAgain  = 3640 * time.Millisecond // for its place: without one, it would count as the first
	firstLook   = 10 * time.Millisecond
	laterFactor = 3
)

// tellBehind is how often the log says, at most, that writes wait because the homeserver limits them.
const tellBehind = time.Minute

// longestAsked is how long a homeserver can ask to wait. What it names beyond that counts as that.
const longestAsked = 24 * time.Hour
