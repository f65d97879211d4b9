package commit_test

import "slices"

// checkWhole looks for a Transact that has changed some of its keys and not the others.
func (w *world) checkWhole(truth map[string][]string) {
	for _, o := range w.ops {
		if o.Kind != transact || w.redacted || slices.ContainsFunc(o.keys(), w.erased) {
			continue
		}
		for _, key := range o.keys() {
			if slices.Contains(truth[key], o.ID) != slices.Contains(truth[o.Key], o.ID) {
				w.fail("torn", "%s has changed %s and %s: %v and %v", o, o.Key, key, truth[o.Key], truth[key])
			}
		}
	}
}

// erased tells whether anything can have taken away what was under the key.
func (w *world) erased(key string) bool {
	return slices.ContainsFunc(w.on(key), (*op).erases)
}

// checkSerial looks for an order of all operations in which each Transact has found under all of its keys what was there at one moment. Values say
// in which order they were made, so that it is enough that no operation has to come before itself.
func (w *world) checkSerial(truth map[string][]string) {
	after := map[string][]string{} // by operation, those that come after it
	follow := func(list []string) {
		for i := 1; i < len(list); i++ {
			after[list[i-1]] = append(after[list[i-1]], list[i])
		}
	}
	for _, key := range w.keys() {
		if !w.erased(key) {
			follow(truth[key])
		}
	}
	for _, o := range w.ops {
		changed := slices.Contains(truth[o.Key], o.ID)
		if o.Kind != transact || !changed && !o.acknowledged() && !o.refused() || slices.ContainsFunc(slices.Concat(o.keys(), o.Reads), w.erased) {
			continue
		}
		found := func(saw map[string][]string) bool {
			return !slices.ContainsFunc(o.keys(), func(key string) bool {
				return changed && !slices.Equal(saw[key], truth[key][:slices.Index(truth[key], o.ID)])
			})
		}
		i := len(o.sawAll) - 1 // what it did before that did not count
		for i >= 0 && !found(o.sawAll[i]) {
			i--
		}
		if i < 0 {
			w.fail("serial", "%s has changed what it never found: %v, and it found %v", o, truth, o.sawAll)
			return
		}
		reads := o.Reads
		if !changed {
			reads = slices.Concat(o.keys(), o.Reads)
		}
		for _, key := range reads {
			saw, now := o.sawAll[i][key], truth[key]
			if len(saw) > len(now) || !slices.Equal(saw, now[:len(saw)]) {
				w.fail("serial", "%s has read of %s what never was: %v, and it is %v", o, key, saw, now)
				return
			}
			if n := len(saw); n > 0 {
				after[saw[n-1]] = append(after[saw[n-1]], o.ID)
			}
			if len(now) > len(saw) {
				after[o.ID] = append(after[o.ID], now[len(saw)])
			}
		}
	}
	const visiting, done = 1, 2
	walks := map[string]int{}
	var circle func(id string) bool
	circle = func(id string) bool {
		switch walks[id] {
		case visiting:
			return true
		case done:
			return false
		}
		walks[id] = visiting
		defer func() { walks[id] = done }()
		return slices.ContainsFunc(after[id], circle)
	}
	for id := range after {
		if circle(id) {
			w.fail("serial", "no order of operations explains what %s found: %v, %v", id, after, truth)
			return
		}
	}
}
