package fakehs

func (y *syncing) encryption() {}
