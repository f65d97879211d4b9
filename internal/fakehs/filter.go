package fakehs

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/id"
)

// filter is one of a sync (Client-Server API, filtering).
type filter struct {
	AccountData eventFilter `json:"account_data"`
	Presence    eventFilter `json:"presence"`
	Room        struct {
		Rooms        *[]id.RoomID `json:"rooms"`
		NotRooms     []id.RoomID  `json:"not_rooms"`
		IncludeLeave bool         `json:"include_leave"`
		State        eventFilter  `json:"state"`
		Timeline     eventFilter  `json:"timeline"`
		Ephemeral    eventFilter  `json:"ephemeral"`
		AccountData  eventFilter  `json:"account_data"`
	} `json:"room"`
}

// eventFilter says which events are wanted. No list wants all, an empty list none.
type eventFilter struct {
	Limit       *int         `json:"limit"`
	Types       *[]string    `json:"types"`
	NotTypes    []string     `json:"not_types"`
	Senders     *[]id.UserID `json:"senders"`
	NotSenders  []id.UserID  `json:"not_senders"`
	Rooms       *[]id.RoomID `json:"rooms"`
	NotRooms    []id.RoomID  `json:"not_rooms"`
	ContainsURL *bool        `json:"contains_url"`
	LazyMembers bool         `json:"lazy_load_members"`
}

// wantsRoom tells whether events of the room are wanted.
func (f *eventFilter) wantsRoom(room id.RoomID) bool {
	return (f.Rooms == nil || slices.Contains(*f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

// wantsType tells whether events of the type are wanted.
func (f *eventFilter) wantsType(eventType string) bool {
	is := func(pattern string) bool { return isLike(pattern, eventType) }
	return (f.Types == nil || slices.ContainsFunc(*f.Types, is)) && !slices.ContainsFunc(f.NotTypes, is)
}

// wants tells whether an event is wanted.
func (f *eventFilter) wants(evt *pdu) bool {
	return f.wantsRoom(evt.room.id) && f.wantsType(evt.Type) && (f.Senders == nil || slices.Contains(*f.Senders, evt.Sender)) &&
		!slices.Contains(f.NotSenders, evt.Sender)
}

// isLike tells whether a type is like a pattern, in which an asterisk stands for anything.
func isLike(pattern, eventType string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == eventType
	}
	escaped := strings.NewReplacer(`\`, `\\`, "?", `\?`, "[", `\[`, "/", "\x00").Replace(pattern)
	like, err := path.Match(escaped, strings.ReplaceAll(eventType, "/", "\x00"))
	return err == nil && like
}

func (s *Server) createFilter(r *request) (any, error) {
	if r.vars["user"] != string(r.device.user.id) {
		return nil, forbid("that is another user")
	}
	var read filter
	if err := r.read(&read); err != nil {
		return nil, err
	}
	text := r.body
	if len(text) == 0 {
		text = []byte("{}")
	}
	own := r.device.user
	number := slices.IndexFunc(own.filters, func(known json.RawMessage) bool { return bytes.Equal(known, text) })
	if number < 0 {
		number = len(own.filters)
		own.filters = append(own.filters, text)
	}
	return object{"filter_id": strconv.Itoa(number)}, nil
}

func (s *Server) getFilter(r *request) (any, error) {
	if r.vars["user"] != string(r.device.user.id) {
		return nil, forbid("that is another user")
	}
	return r.device.user.filter(r.vars["filter"])
}

func (u *user) filter(name string) (json.RawMessage, error) {
	number, err := strconv.Atoi(name)
	if err != nil || number < 0 || number >= len(u.filters) {
		return nil, notFound("no such filter")
	}
	return u.filters[number], nil
}

// readFilter reads the filter that a sync gives or names.
func (s *Server) readFilter(r *request) (*filter, error) {
	text := r.query.Get("filter")
	if text == "" {
		return &filter{}, nil
	}
	body := json.RawMessage(text)
	if !strings.HasPrefix(text, "{") {
		s.mu.Lock()
		defer s.mu.Unlock()
		var err error
		if body, err = r.device.user.filter(text); err != nil {
			return nil, err
		}
	}
	var read filter
	if err := json.Unmarshal(body, &read); err != nil {
		return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "the filter cannot be read: %v", err)
	}
	return &read, nil
}
