package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"pannier/bundle/content"
)

// DocumentOptions say how [Client.Document] asks. The zero value tries for half a minute.
type DocumentOptions struct {
	What  string // for messages: "release.txt"
	Limit int64  // bytes; must be given
	Once  bool   // one try, whatever goes wrong

	Accept string // media type that is asked for; "" leaves it to the host
}

// IsAddress reports whether a name of a document is an http(s) address rather than a file.
func IsAddress(name string) bool {
	u, err := url.Parse(name)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// Document reads a small public document: from an http(s) address, to which no credential is
// sent, or from a file. Nothing in it is verified. Errors are those of the file system, or
// [ErrNotFound], [ErrUnreachable], [ErrRefused] and their siblings, [ErrNotRegistry] for a web
// page, and content.ErrSize for what is longer than the limit.
func (c *Client) Document(ctx context.Context, name string, opts DocumentOptions) ([]byte, error) {
	if !IsAddress(name) {
		if strings.Contains(name, "://") && !strings.HasPrefix(name, "file://") {
			return nil, fmt.Errorf("%s: %s: neither http, https nor a file", opts.What, redactUser(name))
		}
		return readDocument(strings.TrimPrefix(name, "file://"), opts.Limit)
	}
	u, err := url.Parse(name)
	if err != nil {
		return nil, err // not reached: IsAddress has parsed it
	}
	o := c.host(u.Host)
	client := &http.Client{Transport: &hop{c: c, origin: o, why: WhyDocument}, CheckRedirect: c.checkRedirect(o)}
	p := c.newPatience()
	p.giveUp = min(p.giveUp, c.timing.storeWait)
	for {
		raw, contentType, e := c.getOnce(ctx, client, o, u, opts.Accept, opts.Limit)
		switch {
		case e == nil && int64(len(raw)) > opts.Limit:
			return nil, fmt.Errorf("%s: %s: %w: longer than %d bytes", opts.What, u.Redacted(), content.ErrSize, opts.Limit)
		case e == nil && isHTML(contentType, raw):
			return nil, &Error{Host: o.name, Op: "ask for " + opts.What, kinds: []error{ErrNotRegistry}, Err: errors.New("it answers with a web page")}
		case e == nil:
			return raw, nil
		}
		e.Op = "ask for " + opts.What
		if opts.Once {
			return nil, e
		}
		if err := p.pause(ctx, e); err != nil {
			return nil, err
		}
	}
}

// readDocument reads a plain file of bounded size.
func readDocument(name string, limit int64) ([]byte, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is no file", name)
	}
	raw, err := readBounded(name, limit)
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", name, content.ErrSize, limit)
	}
	return raw, nil
}

// getOnce asks an address once for at most limit bytes, and one more if there are.
func (c *Client) getOnce(ctx context.Context, client *http.Client, o *host, target *url.URL, accept string, limit int64) (raw []byte, contentType string, e *Error) {
	if err := c.gate(ctx, o); err != nil {
		return nil, "", &Error{Err: err}
	}
	w := newWatch(ctx, c.opts.StallAfter)
	defer w.end()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, "", &Error{Host: o.name, kinds: []error{ErrRefused}, Err: scrub(err)}
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	stop := c.watchSilence(w, o, target)
	w.arm()
	resp, err := client.Do(req)
	stop()
	if err != nil {
		return nil, "", c.classify(err, w.cause(), o)
	}
	x := &exchange{c: c, h: o, resp: resp, watch: w}
	defer x.close()
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(x, errorLimit))
		return nil, "", statusError(resp, raw, false, false)
	}
	if raw, err = io.ReadAll(io.LimitReader(x, limit+1)); err != nil {
		return nil, "", x.failure(err)
	}
	return raw, resp.Header.Get("Content-Type"), nil
}
