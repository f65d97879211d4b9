package commit

import "time"

// NewSeededReplica is [NewReplica] with other sources of random numbers, for its writer and for its repairs.
func NewSeededReplica(room Room, mode Mode, writer, repairs func() uint64) *Replica {
	r := NewReplica(room, mode)
	r.Writer.random, r.random = writer, repairs
	return r
}

// RivalsSince is since when an event of that time can have rivals, by a commit that began from what was all there was at a moment.
func RivalsSince(policy *Policy, sent int64, since time.Time) int64 {
	c := commit{Writer: &Writer{policy: policy}, since: since}
	return c.rivalsSince(sent, c.age())
}
