package matrix

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/retry"
)

// judge tells whether a request that failed is worth another one: where no answer came, or a part of one, and where the answer says
// that the homeserver, or what stands before it, could not do it just now.
func judge(client *mautrix.Client, err error) retry.Verdict {
	var failed mautrix.HTTPError
	if !errors.As(err, &failed) || failed.Request == nil { // it was not sent
		return retry.Verdict{}
	}
	verdict := retry.Verdict{Why: Describe(err)}
	if isFinal(err) {
		return verdict
	}
	if failed.Response == nil {
		verdict.Again = true
		if errors.Is(failed.WrappedError, context.Canceled) { // by the client's RequestRetryTrigger, which asks for another at once
			verdict.Again, verdict.Asked = client.RequestRetryTrigger != nil, true
		}
		return verdict
	}
	switch status := failed.Response.StatusCode; {
	case status == http.StatusTooManyRequests:
		verdict.Again, verdict.Limited = !client.IgnoreRateLimit, true
	case isPassing(status):
		verdict.Again = true
	case status < 300 || status >= 400:
		verdict.Again = isBroken(failed.WrappedError)
	}
	verdict.After, verdict.Asked = retryAfter(failed)
	return verdict
}

// isPassing tells whether the status is that of a fault that may pass. From 520 to 530 are those of Cloudflare, which stands before
// many homeservers.
func isPassing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return status >= 520 && status <= 530
}

// isBroken tells whether an answer could not be read to its end, for another reason than its size.
func isBroken(err error) bool {
	return err != nil && !errors.Is(err, mautrix.ErrBodyReadReachedLimit) && !errors.Is(err, mautrix.ErrResponseTooLong)
}

// isFinal tells whether the client's transport has said that no other request can do better. Package session's says so when the homeserver has ended
// the client's session.
func isFinal(err error) bool {
	var final interface{ Final() bool }
	return errors.As(err, &final) && final.Final()
}

// retryAfter is how long the homeserver asks to wait. Synapse says so in a header, in whole seconds, and in the body, in milliseconds;
// Dendrite in the body alone. Since v1.10 of the specification the header counts (MSC4041).
func retryAfter(failed mautrix.HTTPError) (after time.Duration, asked bool) {
	text := strings.TrimSpace(failed.Response.Header.Get("Retry-After"))
	if date, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(date)), true
	}
	n, err := strconv.ParseFloat(text, 64)
	unit := time.Second
	if err != nil {
		if failed.RespError == nil {
			return 0, false
		}
		if n, asked = failed.RespError.ExtraData["retry_after_ms"].(float64); !asked {
			return 0, false
		}
		unit = time.Millisecond
	}
	if math.IsNaN(n) || n < 0 { // a homeserver can name any number
		return 0, false
	}
	return time.Duration(min(n, float64(longestAsked/unit)) * float64(unit)), true
}

// errorCode is what an error code looks like. Another is left out, for a homeserver could repeat a value there.
var errorCode = regexp.MustCompile(`^[A-Z][A-Z0-9_.]{0,60}$`)

// Describe says what became of a request, without the homeserver's own words, which could repeat a value.
func Describe(err error) string {
	var interrupted *retry.Interrupted
	var failed mautrix.HTTPError
	switch {
	case errors.As(err, &interrupted):
		return interrupted.Error()
	case !errors.As(err, &failed):
		return err.Error()
	case isFinal(err):
		return inner(failed.WrappedError)
	case failed.WrappedError != nil && failed.Response == nil:
		return "no answer: " + inner(failed.WrappedError)
	case failed.WrappedError != nil && (isBroken(failed.WrappedError) || failed.Response.StatusCode < 300):
		return "the answer could not be read: " + inner(failed.WrappedError)
	case failed.Response == nil:
		return failed.Message
	}
	text := fmt.Sprintf("HTTP %d", failed.Response.StatusCode)
	if failed.RespError != nil && errorCode.MatchString(failed.RespError.ErrCode) {
		text = fmt.Sprintf("%s (%s)", failed.RespError.ErrCode, text)
	}
	if failed.Response.StatusCode/100 == 3 {
		text += ", a redirect, which is not followed; the client's HomeserverURL must be where it leads"
	}
	return text
}

// inner is the text of an error beneath that of [net/url], up to what can be quoted from an answer.
func inner(err error) string {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	text, _, _ := strings.Cut(err.Error(), `"`)
	return text
}
