package commit

// NewSeededReplica is [NewReplica] with other sources of random numbers, for its writer and for its repairs.
func NewSeededReplica(room Room, mode Mode, writer, repairs func() uint64) *Replica {
	r := NewReplica(room, mode)
	r.Writer.random, r.random = writer, repairs
	return r
}
