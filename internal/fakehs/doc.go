// Package fakehs is a Matrix homeserver in memory, for tests. It stands behind an [http.RoundTripper], so that a test has a server of its own,
// in no time, beside any number of others, and also in the virtual time of [testing/synctest].
//
// It has two modes. [Linear] is what Dendrite 0.15.2 does: a user's writes to a room come one after the other, lists lag behind what is
// acknowledged, and list events of one depth in another order. [Forking] is what Synapse 1.160 does: writes at once fork, are listed by the
// depth that was chosen before they were stored, and state resolution picks the current one. In both, a writer whose power is taken while its
// event is on its way loses that event.
//
// It simplifies. There is one server and no federation. Events have neither hashes nor signatures, though their sizes count those. State
// resolution leaves the auth difference out. Of push rules it knows those that notify of messages. It does not rate what it is not asked to:
// profiles, presence, typing and receipts are accepted and mostly forgotten.
//
// [Server.Push] gives events to an application service in the order in which they were stored, as both do.
//
// What it does was measured on the two real servers. The table of behaviours in the conformance tests runs on it and on them, and keeps it
// honest: whoever changes something here adds a line there. Package roomkvtest hands it to the authors of bots: what its comment says of the server
// must stay true.
//
// A request that the server does not know is answered with 404 M_UNRECOGNIZED, and [Server.Complaints] has it.
package fakehs
