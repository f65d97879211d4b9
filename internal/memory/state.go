package memory

// InState is the memory in the room's state.
func (r Room) InState() Memory {
	switch layout := r.Layout.(type) {
	case OneDict:
		return inDict{inState{r}}
	case Shards:
		return inShards{inState{r}, layout}
	default:
		return inEvents{inState{r}}
	}
}
