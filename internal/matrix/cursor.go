package matrix

import (
	"fmt"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// cursorPrefix tells a cursor from a homeserver's token. Tokens have no spaces, for they stand in URLs.
const cursorPrefix = "roomkv cursor "

// cursor is where a page of events begins: the homeserver's token, empty at the latest event, and how far back it is.
type cursor struct {
	pages int // before it
	empty int // of them, the last ones, without any event of the memory
	held  int // bytes of the events on them, unless they were let go
	token string
}

// cursorOf reads what next has given, or a token of the homeserver's as it is.
func cursorOf(text string) (c cursor) {
	ours, found := strings.CutPrefix(text, cursorPrefix)
	if parts := strings.SplitN(ours, " ", 4); found && len(parts) == 4 {
		_, _ = fmt.Sscan(ours, &c.pages, &c.empty, &c.held)
		c.token = parts[3]
		return c
	}
	return cursor{token: text}
}

func (c cursor) String() string {
	if c.token == "" {
		return ""
	}
	return fmt.Sprintf("%s%d %d %d %s", cursorPrefix, c.pages, c.empty, c.held, c.token)
}

// next is the cursor of the page after that at c, which has these events of the memory. It is empty where the homeserver names none.
func (c cursor) next(token string, events []*Event) string {
	c.pages++
	if c.empty++; len(events) > 0 {
		c.empty = 0
	}
	for _, evt := range events {
		c.held += evt.Size()
	}
	c.token = token
	return c.String()
}

// Token is the homeserver's token in a [Page.Next].
func Token(next string) string { return cursorOf(next).token }

// LetGo is a [Page.Next] for who no longer holds what was on the pages before it.
func LetGo(next string) string {
	c := cursorOf(next)
	c.held = 0
	return c.String()
}

// turn fails where no page is to be asked for any more.
func (c cursor) turn(room id.RoomID) (cursor, error) {
	switch {
	case c.pages >= maxPages:
		return c, fault.Of(fault.ErrCorrupt, nil, "cannot look back in %s: the homeserver lists no end of events, after %d pages", room, c.pages)
	case c.empty >= maxEmpty:
		return c, fault.Of(fault.ErrCorrupt, nil, "cannot look back in %s: the homeserver lists nothing of the memory on %d pages, and no end of them", room, c.empty)
	case c.held > maxHeld:
		return c, fault.Of(fault.ErrCorrupt, nil, "cannot look back in %s: the homeserver lists more than %d bytes of events of the memory", room, maxHeld)
	case len(c.token) > maxToken:
		return c, fault.Of(fault.ErrCorrupt, nil, "cannot look back in %s: the homeserver's token for a page has %d bytes", room, len(c.token))
	}
	return c, nil
}
