package faults

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"
)

const gatewayPage = "<html>\r\n<head><title>Gateway</title></head>\r\n<body><center><h1>Gateway</h1></center></body>\r\n</html>\r\n"

// refusal is the answer of a homeserver or proxy that the fault stands for, nil where the fault is another.
func refusal(req *http.Request, fault Fault) *http.Response {
	const text, page = "application/json", "text/html"
	limited := `{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests"}`
	if fault.Kind == LimitedBody || fault.Kind == LimitedBoth {
		limited = fmt.Sprintf(`{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":%d}`, fault.Wait.Milliseconds())
	}
	switch fault.Kind {
	case Limited, LimitedBody:
		return answer(req, http.StatusTooManyRequests, text, limited)
	case LimitedHeader, LimitedBoth:
		resp := answer(req, http.StatusTooManyRequests, text, limited)
		resp.Header.Set("Retry-After", fmt.Sprint(math.Ceil(fault.Wait.Seconds()))) // in whole seconds, RFC 9110 section 10.2.3
		return resp
	case Timeout:
		return answer(req, http.StatusRequestTimeout, page, gatewayPage)
	case Internal:
		return answer(req, http.StatusInternalServerError, text, `{"errcode":"M_UNKNOWN","error":"Internal server error"}`)
	case BadGateway:
		return answer(req, http.StatusBadGateway, text, `{"errcode":"M_UNKNOWN","error":"Bad gateway"}`)
	case Unavailable:
		return answer(req, http.StatusServiceUnavailable, text, ``)
	case GatewayLate:
		return answer(req, http.StatusGatewayTimeout, page, gatewayPage)
	case Cloudflare:
		return answer(req, fault.Status, page, gatewayPage)
	case HTML:
		return answer(req, http.StatusOK, page, gatewayPage)
	case HTMLGateway:
		return answer(req, http.StatusBadGateway, page, gatewayPage)
	}
	return nil
}

// answer makes a response.
func answer(req *http.Request, status int, contentType, body string) *http.Response {
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {contentType}}, Request: req,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader([]byte(body))),
	}
}

// breakBody sends the request, and gives a body that does not come as it should.
func (t *Transport) breakBody(req *http.Request, body []byte, fault Fault) (*http.Response, error) {
	resp, err := t.send(req.Context(), req, body)
	if err != nil {
		return nil, err
	}
	whole, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	part := whole[:int(fault.Part*float64(len(whole)))]
	switch fault.Kind {
	case Truncated:
		resp.Body = &brokenBody{rest: part, err: io.EOF}
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
	case Reset:
		resp.Body = &brokenBody{rest: part, err: reset()}
	case SlowBody:
		resp.Body = &slowBody{transport: t, ctx: req.Context(), rest: whole, pause: fault.Wait / slowParts, part: len(whole)/slowParts + 1}
	}
	return resp, nil
}

// brokenBody ends with an error.
type brokenBody struct {
	rest []byte
	err  error
}

func (b *brokenBody) Read(to []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, b.err
	}
	n := copy(to, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *brokenBody) Close() error { return nil }

// slowParts is in how many parts a slow body comes.
const slowParts = 20

// slowBody pauses before each part.
type slowBody struct {
	transport *Transport
	ctx       context.Context
	rest      []byte
	pause     time.Duration
	part      int // in bytes
}

func (b *slowBody) Read(to []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	if err := b.transport.sleep(b.ctx, b.pause); err != nil {
		return 0, err
	}
	n := copy(to[:min(len(to), b.part)], b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *slowBody) Close() error { return nil }
