package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// DefaultSignatureStores are the public stores of release signatures.
var DefaultSignatureStores = []string{
	"https://storage.googleapis.com/openshift-release/official/signatures/openshift/release",
	"https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release",
}

const (
	maxSignature  = 50 << 10 // bytes of one message
	maxSignatures = 9        // messages of one digest in one store
)

// SignatureAnswer is what a signature store has for a digest. Nothing in it is verified.
type SignatureAnswer struct {
	Store    string   // as named, without user and password
	URL      string   // of the first message
	Status   string   // "found 2", "404", "not a signature", or "error: …"
	Messages [][]byte // OpenPGP packets, each at most 50 KiB
	Err      error    // why the store could not be asked, or not to the end; nil for a plain 404
}

// Signatures asks a store, an http(s) address or a local directory, for the messages that
// sign d: sha256=<hex>/signature-1 and so on, up to 9. No credential is sent. A store that
// cannot be asked is told in the answer; an error is returned only if ctx ended or store or
// d is malformed.
func (c *Client) Signatures(ctx context.Context, store string, d digest.Digest) (SignatureAnswer, error) {
	a := SignatureAnswer{Store: redactUser(store)}
	if err := content.CheckDigest(d); err != nil {
		return a, err
	}
	dir := "sha256=" + d.Encoded()
	var get func(n int) ([]byte, error)
	switch u, err := url.Parse(store); {
	case store == "":
		return a, errors.New("signature store: no address")
	case err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		u = u.JoinPath(dir, "signature-")
		a.URL = redactUser(u.String()) + "1"
		o := c.host(u.Host)
		client := &http.Client{Transport: &hop{c: c, origin: o, why: WhyStore}, CheckRedirect: c.checkRedirect(o)}
		get = func(n int) ([]byte, error) { return c.storeMessage(ctx, client, o, u, n) }
	case strings.Contains(store, "://") && !strings.HasPrefix(store, "file://"):
		return a, fmt.Errorf("signature store %s: neither http, https nor a directory", a.Store)
	default:
		root := strings.TrimPrefix(store, "file://")
		a.Store = root
		a.URL = filepath.Join(root, dir, "signature-1")
		if _, err := statDir(root); err != nil {
			a.Status, a.Err = "error: "+err.Error(), err
			return a, nil
		}
		get = func(n int) ([]byte, error) {
			raw, err := readBounded(filepath.Join(root, dir, fmt.Sprintf("signature-%d", n)), maxSignature)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, errNoMessage
			}
			return raw, err
		}
	}
	return a, collect(ctx, &a, get)
}

var (
	errNoMessage = errors.New("404")             // the list ends here
	errNotPGP    = errors.New("not a signature") // something else is there
)

// collect asks for one message after the other and writes down what came of it.
func collect(ctx context.Context, a *SignatureAnswer, get func(n int) ([]byte, error)) error {
	odd := false
	for n := 1; n <= maxSignatures; n++ {
		raw, err := get(n)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errNoMessage) {
			break
		}
		if err == nil && len(raw) == 0 {
			odd = true
			continue
		}
		if err == nil && !isOpenPGP(raw) {
			err = errNotPGP
		}
		if errors.Is(err, errNotPGP) {
			odd = true
			if isHTML("", raw) {
				break // the store says "not found" with a page and status 200
			}
			continue
		}
		if err != nil {
			if a.Err == nil {
				a.Err = err
			}
			if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrInterrupted) || errors.Is(err, ErrNotRegistry) {
				break
			}
			continue
		}
		a.Messages = append(a.Messages, raw)
	}
	switch {
	case len(a.Messages) > 0:
		a.Status = fmt.Sprintf("found %d", len(a.Messages))
	case a.Err != nil:
		a.Status = "error: " + a.Err.Error()
	case odd:
		a.Status = errNotPGP.Error()
	default:
		a.Status = errNoMessage.Error()
	}
	return nil
}

// isOpenPGP reports whether raw can begin with an OpenPGP packet (RFC 4880, 4.2). No text
// does.
func isOpenPGP(raw []byte) bool {
	return len(raw) > 0 && len(raw) <= maxSignature && raw[0]&0x80 != 0 && string(raw[:min(3, len(raw))]) != "\xef\xbb\xbf"
}

// storeMessage fetches signature-n; u ends in "signature-".
func (c *Client) storeMessage(ctx context.Context, client *http.Client, o *host, u *url.URL, n int) ([]byte, error) {
	target := *u
	target.Path += fmt.Sprint(n)
	target.RawPath = ""
	p := c.newPatience()
	p.giveUp = min(p.giveUp, c.timing.storeWait)
	for {
		raw, e := c.storeOnce(ctx, client, o, &target)
		if e == nil {
			return raw, nil
		}
		if len(e.kinds) == 1 && e.kinds[0] == errNoMessage {
			return nil, errNoMessage
		}
		if err := p.pause(ctx, e); err != nil {
			if e, ok := err.(*Error); ok {
				// Without the path to the message: it is the digest once more.
				e.Op = "ask signature store"
			}
			return nil, err
		}
	}
}

func (c *Client) storeOnce(ctx context.Context, client *http.Client, o *host, target *url.URL) ([]byte, *Error) {
	raw, contentType, e := c.getOnce(ctx, client, o, target, "", maxSignature)
	if e != nil {
		if e.Status == http.StatusNotFound {
			return nil, &Error{kinds: []error{errNoMessage}}
		}
		return nil, e
	}
	if isHTML(contentType, raw) && !isOpenPGP(raw) {
		return []byte("<"), nil // whatever the page says, it is one
	}
	return raw, nil
}

// statDir tells a directory that is not there from one that has nothing for a digest.
func statDir(name string) (fs.FileInfo, error) {
	info, err := os.Stat(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", name)
	}
	return info, err
}
