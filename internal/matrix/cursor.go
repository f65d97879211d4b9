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

// next is the cursor of the page after the one at c, which had these events. It is empty where the homeserver gave no token.
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

// LetGo is a [Page.Next] for a caller that holds none of the events before it in memory any more, so that they no longer count.
func LetGo(next string) string {
	c := cursorOf(next)
	c.held = 0
	return c.String()
}

// check fails with [fault.ErrCorrupt] where a homeserver has no business to name another page.
func (c cursor) check(room id.RoomID) error {
	why := ""
	switch {
	case c.pages >= maxPages:
		why = fmt.Sprintf("lists no end of events, after %d pages", c.pages)
	case c.empty >= maxEmpty:
		why = fmt.Sprintf("lists nothing of the memory on %d pages, and no end of them", c.empty)
	case c.held > maxHeld:
		why = fmt.Sprintf("lists more than %d bytes of events of the memory", maxHeld)
	case len(c.token) > maxToken:
		why = fmt.Sprintf("gives a token for a page that has %d bytes", len(c.token))
	default:
		return nil
	}
	return fault.Of(fault.ErrCorrupt, nil, "cannot look back in %s: the homeserver %s", room, why)
}
