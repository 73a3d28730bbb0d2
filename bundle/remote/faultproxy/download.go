package faultproxy

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// cutAt is where blobs break, in bytes.
const cutAt = 20_000

// Escapes is what a registry would like to have on a terminal: it clears the screen, rings,
// and turns the text around.
const Escapes = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202egood news"

// Downloads are the faults of registries that are read from.
func Downloads() []Fault {
	faults := []Fault{
		{Name: "cut after n bytes", Do: func(x *Exchange) { x.Part(x.Ask(), cutAt); x.Abort() }},
		{Name: "reset in the middle", Do: func(x *Exchange) {
			x.Part(x.Ask(), cutAt)
			time.Sleep(20 * time.Millisecond) // so that it arrives
			x.Reset()
		}},
		{Name: "stall in the middle", Do: func(x *Exchange) { x.Part(x.Ask(), 1000); x.Stall() }},
		{Name: "drip", Do: func(x *Exchange) { x.drip(x.Ask()) }},
		{Name: "throttle", Do: func(x *Exchange) { x.throttle(x.Ask()) }},
		{Name: "truncated, Content-Length right", Do: func(x *Exchange) { a := x.Ask(); x.Part(a, len(a.Body)/2); x.Abort() }},
		{Name: "truncated, Content-Length as short", Do: truncate},
		{Name: "Content-Length too large", Do: func(x *Exchange) {
			a := x.Ask()
			for k, v := range a.Header {
				x.W.Header()[k] = v
			}
			x.W.Header().Set("Content-Length", strconv.Itoa(len(a.Body)+1000))
			x.W.WriteHeader(a.Status)
			x.W.Write(a.Body)
			x.Flush()
			x.Abort()
		}},
		{Name: "another range", Do: broken(func(x *Exchange, a Answer) Answer {
			var first, last, total int
			fmt.Sscanf(a.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
			a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first+1, last, total))
			a.Body = a.Body[1:]
			return a
		})},
		{Name: "range of other bytes", Do: broken(func(x *Exchange, a Answer) Answer {
			a.Body = append([]byte("xx"), a.Body[:len(a.Body)-2]...)
			return a
		})},
		{Name: "range ignored", Do: broken(func(x *Exchange, _ Answer) Answer {
			x.R.Header.Del("Range")
			return x.Ask()
		})},
		{Name: "a byte too many", Do: func(x *Exchange) { a := x.Ask(); a.Body = append(a.Body, 'x'); x.Send(a) }},
		{Name: "no end", Do: func(x *Exchange) {
			a := x.Ask()
			a.Header.Del("Content-Length")
			for k, v := range a.Header {
				x.W.Header()[k] = v
			}
			x.W.WriteHeader(a.Status)
			for n := 0; n < maxAnswer && !x.Left(); n += len(a.Body) + 1 {
				x.W.Write(append(a.Body, 'x'))
			}
		}},
		{Name: "flipped bit", Do: flip},
		{Name: "web page", Do: func(x *Exchange) { x.Page(http.StatusOK) }},
		{Name: "error with escapes", Do: func(x *Exchange) { x.Say(http.StatusInternalServerError, "UNKNOWN", Escapes) }},
		{Name: "refusal with escapes", Do: func(x *Exchange) { x.Say(http.StatusBadRequest, Escapes, Escapes) }},
		{Name: "denied", Do: func(x *Exchange) { x.Say(http.StatusForbidden, "DENIED", "not for you") }},
		{Name: "gone", Do: func(x *Exchange) { x.Say(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown") }},
		{Name: "redirect loop", Do: func(x *Exchange) { http.Redirect(x.W, x.R, x.R.URL.Path, http.StatusTemporaryRedirect) }},
		{Name: "redirect to another scheme", Do: func(x *Exchange) { http.Redirect(x.W, x.R, "file:///etc/passwd", http.StatusTemporaryRedirect) }},
		{Name: "header without end", Do: func(x *Exchange) {
			for n := range 4000 {
				x.W.Header().Set(fmt.Sprintf("X-Filler-%d", n), strings.Repeat("x", 1000))
			}
			x.Page(http.StatusOK)
		}},
		{Name: "token expires in the middle", Options: Options{Tokens: true}, Do: func(x *Exchange) {
			x.Part(x.Ask(), cutAt)
			x.Expire()
			x.Abort()
		}},
		{Name: "address expires in the middle", Options: Options{Tokens: true, Redirect: true}, Do: func(x *Exchange) {
			x.Part(x.Ask(), cutAt)
			x.Expire()
			x.Abort()
		}},
		{Name: "address does not work", Options: Options{Tokens: true, Redirect: true}, Do: func(x *Exchange) {
			x.W.Header().Set("Content-Type", "application/xml")
			x.W.WriteHeader(http.StatusForbidden)
			io.WriteString(x.W, `<Error><Code>SignatureDoesNotMatch</Code></Error>`)
		}},
	}
	for i := range faults {
		faults[i].On = IsBlob
	}
	faults = append(faults, everywhere("blob", IsBlob)...)
	faults = append(faults, everywhere("manifest", IsManifest)...)
	return append(faults,
		Fault{Name: "manifest: cut", On: IsManifest, Do: func(x *Exchange) { a := x.Ask(); x.Part(a, len(a.Body)/2); x.Abort() }},
		Fault{Name: "manifest: flipped bit", On: IsManifest, Do: flip},
		Fault{Name: "manifest: web page", On: IsManifest, Do: func(x *Exchange) { x.Page(http.StatusOK) }},
		Fault{Name: "manifest: no end", On: IsManifest, Do: func(x *Exchange) {
			x.W.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			for n := 0; n < maxAnswer && !x.Left(); n += 1 << 16 {
				x.W.Write(make([]byte, 1<<16))
			}
		}},
		Fault{Name: "token: 503", Options: Options{Tokens: true}, On: isToken, Do: func(x *Exchange) { x.Say(http.StatusServiceUnavailable, "", "") }},
		Fault{Name: "token: no end", Options: Options{Tokens: true}, On: isToken, Do: func(x *Exchange) {
			io.WriteString(x.W, `{"token":"`)
			for n := 0; n < maxAnswer && !x.Left(); n += 1 << 16 {
				x.W.Write([]byte(strings.Repeat("x", 1<<16)))
			}
		}},
		Fault{Name: "TLS alert", Options: Options{TLS: true}, Shake: func(*Proxy) error { return errRefused }},
		Fault{Name: "reset before any answer", On: Any, Do: (*Exchange).Reset},
	)
}

func isToken(r *http.Request) bool { return r.URL.Path == "/token" }

// everywhere are the faults that any request can meet.
func everywhere(what string, on func(*http.Request) bool) []Fault {
	status := func(code int, retryAfter string) func(*Exchange) {
		return func(x *Exchange) {
			switch retryAfter {
			case "":
			case "date":
				x.W.Header().Set("Retry-After", time.Now().Add(time.Second).UTC().Format(http.TimeFormat))
			default:
				x.W.Header().Set("Retry-After", retryAfter)
			}
			x.Say(code, "", "")
		}
	}
	return []Fault{
		{Name: what + ": reset", On: on, Do: (*Exchange).Reset},
		{Name: what + ": stall", On: on, Do: (*Exchange).Stall},
		{Name: what + ": 429", On: on, Do: status(429, "")},
		{Name: what + ": 429, Retry-After seconds", On: on, Do: status(429, "1")},
		{Name: what + ": 429, Retry-After date", On: on, Do: status(429, "date")},
		{Name: what + ": 429, Retry-After a year", On: on, Do: status(429, "31536000")},
		{Name: what + ": 503", On: on, Do: status(503, "")},
		{Name: what + ": 500", On: on, Do: status(500, "")},
	}
}

// drip sends a, a byte at a time.
func (x *Exchange) drip(a Answer) {
	x.Part(a, 0)
	for i := range a.Body {
		if x.Left() {
			return
		}
		x.W.Write(a.Body[i : i+1])
		x.Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

// throttle sends a slowly, and yet fast enough to be waited for.
func (x *Exchange) throttle(a Answer) {
	x.Part(a, 0)
	for rest := a.Body; len(rest) > 0 && !x.Left(); {
		n := min(len(rest), 10_000)
		x.W.Write(rest[:n])
		x.Flush()
		rest = rest[n:]
		time.Sleep(10 * time.Millisecond)
	}
}

// truncate has the registry hold less than it should, and be honest about it.
func truncate(x *Exchange) {
	asked := x.R.Header.Get("Range")
	x.R.Header.Del("Range")
	a := x.Ask()
	a.Body = a.Body[:min(cutAt, len(a.Body)*9/10)]
	from := 0
	if fmt.Sscanf(asked, "bytes=%d-", &from); from >= len(a.Body) && asked != "" {
		x.Say(http.StatusRequestedRangeNotSatisfiable, "", "")
		return
	}
	if asked != "" {
		a.Status = http.StatusPartialContent
		a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(a.Body)-1, len(a.Body)))
		a.Body = a.Body[from:]
	}
	x.Send(a)
}

// broken breaks the first answer for a blob in the middle, and changes those for its rest.
func broken(change func(*Exchange, Answer) Answer) func(*Exchange) {
	return func(x *Exchange) {
		if x.R.Header.Get("Range") != "" {
			a := x.Ask()
			if a.Status == http.StatusPartialContent && len(a.Body) > 2 {
				a = change(x, a)
			}
			x.Send(a)
			return
		}
		if x.N > 0 {
			x.Send(x.Ask())
			return
		}
		a := x.Ask()
		x.Part(a, min(cutAt, len(a.Body)/2))
		time.Sleep(20 * time.Millisecond) // so that it arrives
		x.Abort()
	}
}

func flip(x *Exchange) {
	a := x.Ask()
	if len(a.Body) > 0 {
		a.Body[len(a.Body)/2] ^= 4
	}
	x.Send(a)
}
