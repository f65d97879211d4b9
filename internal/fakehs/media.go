package fakehs

import "net/http"

// upload is what somebody has brought to the media repository.
type upload struct {
	contentType string
	body        []byte
}

func (s *Server) mediaConfig(*request) (any, error) { return object{"m.upload.size": s.upload}, nil }

func (s *Server) uploadMedia(r *request) (any, error) {
	if int64(len(r.body)) > s.upload {
		return nil, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "an upload may have %d bytes", s.upload)
	}
	name := s.text(24, letters)
	s.media[name] = upload{r.Header.Get("Content-Type"), r.body}
	return object{"content_uri": "mxc://" + s.name + "/" + name}, nil
}

func (s *Server) download(r *request) (any, error) {
	file, ok := s.media[r.vars["media"]]
	if !ok || r.vars["server"] != s.name {
		return nil, notFound("no such file")
	}
	return raw(file), nil
}

// RemoveMedia removes all that was uploaded, as an administrator would.
func (s *Server) RemoveMedia() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.media)
}
