package fakehs

import (
	"encoding/json"
	"net/http"
	"slices"

	"maunium.net/go/mautrix/id"
)

// accountSlot is where account data is: of a room, or of the whole account where the room is "".
type accountSlot struct {
	room id.RoomID
	typ  string
}

// accountData is what a user has put somewhere.
type accountData struct {
	content json.RawMessage
	pos     int64
}

func (s *Server) getAccountData(r *request) (any, error) {
	own := r.device.user
	if r.vars["user"] != string(own.id) {
		return nil, forbid("Cannot get account data for other users.")
	}
	data := own.accounts[accountSlot{r.room(), r.vars["type"]}]
	if data == nil {
		return nil, notFound("Account data not found")
	}
	return data.content, nil
}

func (s *Server) putAccountData(r *request) (any, error) {
	own := r.device.user
	if r.vars["user"] != string(own.id) {
		return nil, forbid("Cannot add account data for other users.")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(r.body, &fields); err != nil {
		return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "account data is an object")
	}
	own.accounts[accountSlot{r.room(), r.vars["type"]}] = &accountData{r.body, s.next()}
	s.tell()
	return object{}, nil
}

func (s *Server) receipt(r *request) (any, error) {
	return object{}, s.markRead(r, r.event())
}

func (s *Server) readMarkers(r *request) (any, error) {
	var asked struct {
		Read    id.EventID `json:"m.read"`
		Private id.EventID `json:"m.read.private"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	for _, evt := range []id.EventID{asked.Read, asked.Private} {
		if evt != "" {
			if err := s.markRead(r, evt); err != nil {
				return nil, err
			}
		}
	}
	return object{}, nil
}

// markRead notes up to where a user has read a room.
func (s *Server) markRead(r *request, evt id.EventID) error {
	at, known := s.rooms[r.room()]
	if !known {
		return s.noRoom(r.room())
	}
	if read := at.events[evt]; read != nil {
		own := r.device.user
		own.read[at.id] = max(own.read[at.id], read.pos)
		own.readAt[at.id] = s.next()
		s.tell()
	}
	return nil
}

// accountTypes are the types of a room's account data, or the account's, in order.
func (u *user) accountTypes(room id.RoomID) []string {
	var types []string
	for at := range u.accounts {
		if at.room == room {
			types = append(types, at.typ)
		}
	}
	slices.Sort(types)
	return types
}

// unread is how many events of others the user has not read that push rules notify of: messages and encrypted events, unless they are
// notices in clear (rules .m.rule.message, .m.rule.encrypted, .m.rule.suppress_notices). To Dendrite those count that were redacted since.
func (s *Server) unread(at *room, own *user, upTo int64) int {
	count, read := 0, own.read[at.id]
	for i := len(at.log) - 1; i >= 0 && at.log[i].pos > read; i-- {
		evt := at.log[i]
		if evt.pos > upTo || evt.Sender == own.id || evt.StateKey != nil || evt.Type != "m.room.message" && evt.Type != "m.room.encrypted" {
			continue
		}
		if (evt.because == nil || s.mode == Linear) && textOf(evt.original, "msgtype") != "m.notice" && evt.isSeenBy(own.id) {
			count++
		}
	}
	return count
}
