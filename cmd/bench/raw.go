//go:build linux

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// rawCommand makes this program one of the floors, in a process of its own: four connections
// that move each blob once and do nothing else, or the hash of the same files.
const rawCommand = "raw"

const rawConnections = 4

// raw runs "get|put|head HOST REPOSITORY LIST DIR" or "sha256|sums LIST DIR". LIST has a digest
// a line, and DIR the blobs by their hex digits.
func raw(args []string) error {
	if len(args) < 3 {
		return errors.New("get|put|head HOST REPOSITORY LIST DIR, or sha256|sums LIST DIR")
	}
	list, dir := args[len(args)-2], args[len(args)-1]
	digests, err := readList(list)
	if err != nil {
		return err
	}
	switch args[0] {
	case "sha256":
		return each(runtime.GOMAXPROCS(0), digests, func(d string) error { return rawHash(d, dir) })
	case "sums":
		return each(runtime.GOMAXPROCS(0), digests, func(d string) error { return rawSums(d, dir) })
	}
	if len(args) != 5 {
		return fmt.Errorf("%s HOST REPOSITORY LIST DIR", args[0])
	}
	c := newRawClient(args[1], args[2], dir)
	work := map[string]func(string) error{"get": c.get, "put": c.put, "head": c.head}[args[0]]
	if work == nil {
		return fmt.Errorf("unknown work %q", args[0])
	}
	return each(rawConnections, digests, work)
}

func each(n int, digests []string, work func(string) error) error {
	var g errgroup.Group
	g.SetLimit(n)
	for _, d := range digests {
		g.Go(func() error { return work(d) })
	}
	return g.Wait()
}

func readList(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		out = append(out, sc.Text())
	}
	return out, sc.Err()
}

func rawHash(d, dir string) error {
	f, err := os.Open(filepath.Join(dir, hexOf(d)))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(onlyWriter{h}, f, make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != hexOf(d) {
		return fmt.Errorf("%s hashes to %s", d, got)
	}
	return nil
}

// onlyWriter hides that a hash may read by itself.
type onlyWriter struct{ io.Writer }

func hexOf(d string) string { return strings.TrimPrefix(d, "sha256:") }

type rawClient struct {
	base, dir string
	http      http.Client
}

func newRawClient(host, repository, dir string) *rawClient {
	return &rawClient{
		base: "http://" + host + "/v2/" + repository + "/blobs/", dir: dir,
		http: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: rawConnections, WriteBufferSize: 1 << 18, ReadBufferSize: 1 << 18}},
	}
}

func (c *rawClient) want(resp *http.Response, err error, status int) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		return fmt.Errorf("%s %s: %s", resp.Request.Method, resp.Request.URL, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (c *rawClient) head(d string) error {
	resp, err := c.http.Head(c.base + d)
	return c.want(resp, err, http.StatusOK)
}

func (c *rawClient) get(d string) error {
	resp, err := c.http.Get(c.base + d)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", d, resp.Status)
	}
	f, err := os.Create(filepath.Join(c.dir, hexOf(d)))
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (c *rawClient) put(d string) error {
	f, err := os.Open(filepath.Join(c.dir, hexOf(d)))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return c.upload(d, f, fi.Size())
}

// upload puts a blob in two requests, as the distribution-spec's monolithic upload has it.
func (c *rawClient) upload(d string, body io.Reader, size int64) error {
	resp, err := c.http.Post(c.base+"uploads/", "", nil)
	if err := c.want(resp, err, http.StatusAccepted); err != nil {
		return err
	}
	to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("digest", d)
	to.RawQuery = q.Encode()
	return c.send(to, "application/octet-stream", body, size)
}

// manifest puts a manifest under a tag or digest.
func (c *rawClient) manifest(reference, mediaType string, body io.Reader, size int64) error {
	to, err := url.Parse(strings.TrimSuffix(c.base, "blobs/") + "manifests/" + reference)
	if err != nil {
		return err
	}
	return c.send(to, mediaType, body, size)
}

func (c *rawClient) send(to *url.URL, mediaType string, body io.Reader, size int64) error {
	req, err := http.NewRequest(http.MethodPut, to.String(), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", mediaType)
	resp, err := c.http.Do(req)
	return c.want(resp, err, http.StatusCreated)
}
