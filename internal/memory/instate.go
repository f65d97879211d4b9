package memory

// InState is the memory in the room's state.
func (r Room) InState() Memory {
	if dict, ok := r.Layout.(OneDict); ok {
		return inDict{r, dict.Key}
	}
	return inEvents{r}
}
