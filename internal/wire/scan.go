package wire

import (
	"strings"
	"unicode/utf8"
)

// scan reads a text that is canonical JSON already and that every homeserver hands back as it was: all that this package writes. It allocates
// nothing. It gives up on anything else, for which there are slower ways: on white space, on escapes in names and on others than the shortest
// ones, on names out of order, on numbers that are no safe integers, and on what nests deeper than maxDepth.
type scan struct {
	text string
	at   int
}

// isPlain tells whether the text is such a value.
func isPlain(text string) bool {
	s := scan{text: text}
	return s.value(0) && s.at == len(text) && utf8.ValidString(text)
}

// member is told a name of an object, what stands behind it, and where that ends.
type member func(name, value string, end int)

// membersOf gives the members of a text that is such an object. It has given some where the text is not.
func membersOf(text string, each member) bool {
	s := scan{text: text}
	return s.take('{') && s.members(0, each) && s.at == len(text) && utf8.ValidString(text)
}

func (s *scan) take(c byte) bool {
	if s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

// value reads a value inside of so many others.
func (s *scan) value(depth int) bool {
	switch {
	case s.take('"'):
		return s.literal()
	case s.take('{'):
		return depth < maxDepth && s.members(depth+1, nil)
	case s.take('['):
		return depth < maxDepth && s.elements(depth+1)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(s.text[s.at:], word) {
			s.at += len(word)
			return true
		}
	}
	return s.integer()
}

// members reads an object from behind its first brace on.
func (s *scan) members(depth int, each member) bool {
	if s.take('}') {
		return true
	}
	for last, first := "", true; ; first = false {
		begin := s.at + 1
		if !s.take('"') || !s.literal() {
			return false
		}
		name := s.text[begin : s.at-1]
		if strings.Contains(name, `\`) || name <= last && !first || !s.take(':') {
			return false
		}
		last, begin = name, s.at
		if !s.value(depth) {
			return false
		}
		if each != nil {
			each(name, s.text[begin:s.at], s.at)
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// elements reads an array from behind its first bracket on.
func (s *scan) elements(depth int) bool {
	if s.take(']') {
		return true
	}
	for s.value(depth) {
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
	return false
}

// literal reads a string from behind its first quotation mark on.
func (s *scan) literal() bool {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return true
		case c < ' ':
			return false
		case c == '\\':
			s.at++
			if s.at == len(s.text) || strings.IndexByte(`"\bfnrt`, s.text[s.at]) < 0 {
				return false
			}
		}
	}
	return false
}

func (s *scan) integer() bool {
	begin := s.at
	s.take('-')
	first := s.at
	for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at > first && (s.text[first] != '0' || s.at == first+1) && safeInteger(s.text[begin:s.at])
}
