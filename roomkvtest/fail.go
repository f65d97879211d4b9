package roomkvtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// ErrLostAnswer is for a function of [Server.Fail]: the server does what the request asks for, and the client does not hear of it.
var ErrLostAnswer = errors.New("roomkvtest: the answer was lost")

// Fail has each request go through f, from now on until stop is called. What f returns is what becomes of the request:
//
//   - nil: the server answers it.
//   - A [mautrix.RespError] is the answer, such as mautrix.MForbidden or mautrix.MLimitExceeded.WithExtraField("retry_after_ms", 1000). Its status is 500
//     where it has none.
//   - [ErrLostAnswer]: the server does what the request asks for, and the client gets an error of the network.
//   - Any other error is an error of the network, and the server does not get the request.
//
// A client can ask from several goroutines at once, and f is called from as many. It may read the request's body. Of several such functions the latest is
// asked first, and the next one if it returns nil or ErrLostAnswer.
func (s *Server) Fail(f func(req *http.Request) error) (stop func()) {
	return s.fake.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		err := f(req)
		var refused mautrix.RespError
		switch {
		case err == nil:
			return next(req)
		case errors.Is(err, ErrLostAnswer):
			if resp, sent := next(req); sent == nil {
				_ = resp.Body.Close()
			}
			return nil, err
		case errors.As(err, &refused):
			return answer(req, refused)
		}
		return nil, err
	})
}

// answer is the response that says no.
func answer(req *http.Request, refused mautrix.RespError) (*http.Response, error) {
	body, err := json.Marshal(&refused)
	if err != nil {
		return nil, err
	}
	status := refused.StatusCode
	if status == 0 {
		status = http.StatusInternalServerError
	}
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	for name, value := range refused.ExtraHeader {
		header.Set(name, value)
	}
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}, nil
}
