package faultproxy

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Limit is the longest body, in bytes, that passes the fault "413".
const Limit = 400 << 10

// Uploads are the faults of registries that are written to.
func Uploads() []Fault {
	faults := everywhere("begin", method(http.MethodPost))
	faults = append(faults, everywhere("put", isPut)...)
	faults = append(faults, everywhere("manifest put", isManifestPut)...)
	moved := func(change func(x *Exchange, l *url.URL) string) func(*Exchange) {
		return func(x *Exchange) {
			a := x.Ask()
			if l, err := url.Parse(a.Header.Get("Location")); err == nil && a.Status == http.StatusAccepted {
				a.Header.Set("Location", change(x, l))
				if a.Header.Get("Location") == "" {
					a.Header.Del("Location")
				}
			}
			x.Send(a)
		}
	}
	begin := method(http.MethodPost)
	return append(faults,
		Fault{Name: "answer to put lost", On: isPut, Do: func(x *Exchange) { x.Ask(); x.Abort() }},
		Fault{Name: "put kept by nobody", On: isPut, Do: func(x *Exchange) {
			io.Copy(io.Discard, x.R.Body)
			x.Say(http.StatusCreated, "", "")
		}},
		Fault{Name: "put cut in the middle", On: isWholePut, Do: func(x *Exchange) {
			io.CopyN(io.Discard, x.R.Body, Limit)
			x.Abort()
		}},
		Fault{Name: "put stalls in the middle", On: isWholePut, Do: func(x *Exchange) {
			io.CopyN(io.Discard, x.R.Body, 1000)
			x.Stall()
		}},
		Fault{Name: "digest invalid", On: isPut, Do: func(x *Exchange) {
			io.Copy(io.Discard, x.R.Body)
			x.Say(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		}},
		Fault{Name: "put refused with escapes", On: isPut, Do: func(x *Exchange) {
			io.Copy(io.Discard, x.R.Body)
			x.Say(http.StatusForbidden, "DENIED", Escapes)
		}},
		Fault{Name: "413", On: uploads(http.MethodPut, http.MethodPatch), Do: func(x *Exchange) {
			if x.R.ContentLength > Limit {
				x.Page(http.StatusRequestEntityTooLarge)
				return
			}
			x.Send(x.Ask())
		}},
		Fault{Name: "413, then the upload is forgotten", On: uploads(http.MethodPut, http.MethodPatch), Do: func(x *Exchange) {
			switch {
			case x.R.ContentLength > Limit:
				x.Page(http.StatusRequestEntityTooLarge)
			case x.R.Method == http.MethodPatch:
				io.Copy(io.Discard, x.R.Body)
				x.Say(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
			default:
				x.Send(x.Ask())
			}
		}},
		Fault{Name: "413, then the offset is forgotten", On: uploads(http.MethodPut, http.MethodPatch, http.MethodGet), Do: func(x *Exchange) {
			switch {
			case x.R.ContentLength > Limit:
				x.Page(http.StatusRequestEntityTooLarge)
			case x.R.Method == http.MethodPatch && !strings.HasPrefix(x.R.Header.Get("Content-Range"), "0-"):
				io.Copy(io.Discard, x.R.Body)
				x.Say(http.StatusInternalServerError, "", "")
			case x.R.Method == http.MethodGet:
				a := x.Ask()
				a.Header.Set("Range", "0-0")
				x.Send(a)
			default:
				x.Send(x.Ask())
			}
		}},
		Fault{Name: "token expires in the middle of put", Options: Options{Tokens: true}, On: isWholePut, Do: func(x *Exchange) {
			if x.p.Fired() > 2 { // all uploads share the token: a storm proves nothing more
				x.Send(x.Ask())
				return
			}
			io.CopyN(io.Discard, x.R.Body, 1000)
			x.Expire()
			x.Abort()
		}},
		Fault{Name: "Location absolute", On: begin, Do: moved(func(x *Exchange, l *url.URL) string { return x.p.base() + l.String() })},
		Fault{Name: "Location relative to the request", On: begin, Do: moved(func(x *Exchange, l *url.URL) string {
			return "./" + l.Path[strings.LastIndexByte(l.Path, '/')+1:] + "?" + l.RawQuery
		})},
		Fault{Name: "Location with state", On: begin, Do: moved(func(x *Exchange, l *url.URL) string {
			q := l.Query()
			q.Set("_state", "a+b/c==&d")
			return l.Path + "?" + q.Encode()
		})},
		Fault{Name: "Location at another host", Options: Options{Tokens: true, Redirect: true}, On: begin, Do: moved(func(x *Exchange, l *url.URL) string {
			return x.p.store.URL + l.String()
		})},
		Fault{Name: "Location missing", On: begin, Do: moved(func(*Exchange, *url.URL) string { return "" })},
		Fault{Name: "Location of another scheme", On: begin, Do: moved(func(*Exchange, *url.URL) string { return "file:///etc/passwd" })},
		Fault{Name: "web page for uploads", On: IsUpload, Do: func(x *Exchange) { x.Page(http.StatusOK) }},
		Fault{Name: "claims to have every blob", On: method(http.MethodHead), Do: func(x *Exchange) {
			_, d, ok := strings.Cut(x.R.URL.Path, "/blobs/")
			if a := x.Ask(); !ok || a.Status == http.StatusOK {
				x.Send(a)
				return
			}
			x.W.Header().Set("Content-Type", "application/octet-stream")
			x.W.Header().Set("X-Digest", d) // none that counts
			x.W.WriteHeader(http.StatusOK)
		}},
	)
}

func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == m && (IsUpload(r) || m == http.MethodHead)
	}
}

func uploads(methods ...string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		for _, m := range methods {
			if r.Method == m {
				return IsUpload(r)
			}
		}
		return false
	}
}

func isPut(r *http.Request) bool { return r.Method == http.MethodPut && IsUpload(r) }

// isWholePut is a PUT that has the blob with it; one that ends an upload in chunks has not.
func isWholePut(r *http.Request) bool { return isPut(r) && r.ContentLength > 0 }

func isManifestPut(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
}
