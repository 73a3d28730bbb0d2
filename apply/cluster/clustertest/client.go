package clustertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Media types of a patch.
const (
	MergePatch = "application/merge-patch+json"
	JSONPatch  = "application/json-patch+json"
	applyPatch = "application/apply-patch+yaml"
)

// NotFound and others are what errors.Is finds in the answers of the server.
var (
	ErrNotFound  = errors.New("not found")
	ErrForbidden = errors.New("forbidden")
	ErrConflict  = errors.New("conflict") // also: exists already
	ErrInvalid   = errors.New("invalid")  // 400 and 422: refused by schema, rule or strict validation
)

// StatusError is an answer of the server that is no success.
type StatusError struct {
	Method, Path    string
	Code            int
	Reason, Message string // as the API gives them; Message is the body where it is no Status
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %s", e.Method, e.Path, e.Code, e.Reason, e.Message)
}

// Is knows the errors above by the status code.
func (e *StatusError) Is(target error) bool {
	switch e.Code {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusConflict:
		return target == ErrConflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return target == ErrInvalid
	case http.StatusInternalServerError:
		// How server-side apply refuses what the schema does not have.
		return target == ErrInvalid && strings.HasPrefix(e.Message, "failed to create typed patch object")
	}
	return false
}

// Client speaks to an API server as one user. It may be used from several goroutines.
// Paths are those of the API: /apis/config.openshift.io/v1/clusterversions/version.
type Client struct {
	Server string // https://127.0.0.1:23456

	token string
	http  *http.Client

	mu    sync.Mutex
	kinds map[string]kind // by apiVersion + "/" + kind
}

// kind is what discovery says of one.
type kind struct {
	plural     string
	namespaced bool
}

// Connect reads a kubeconfig that kubeplane or CreateUser wrote.
func Connect(kubeconfig string) (*Client, error) {
	raw, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	if len(c.Clusters) != 1 || len(c.Users) != 1 {
		return nil, fmt.Errorf("kubeconfig %s: want one cluster and one user", kubeconfig)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.Clusters[0].Cluster.CA) {
		return nil, fmt.Errorf("kubeconfig %s: no certificate in it", kubeconfig)
	}
	return &Client{
		Server: c.Clusters[0].Cluster.Server,
		token:  c.Users[0].User.Token,
		http:   &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
		kinds:  map[string]kind{},
	}, nil
}

// as is c with another token.
func (c *Client) as(token string) *Client {
	return &Client{Server: c.Server, token: token, http: c.http, kinds: map[string]kind{}}
}

// bearer is the token of a request.
func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// config is a kubeconfig. kubeplane writes it as JSON.
type config struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Token string `json:"token"`
	} `json:"user"`
}

type namedContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

// Do makes one request. A body of type []byte is sent as it is, nil is none, all else as
// JSON. An answer of 300 and above is a *StatusError, but for 429: the request is made again
// until ctx ends, since a server that has just started or learned of a CRD asks for it.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body any) ([]byte, error) {
	send, ok := body.([]byte)
	if body != nil && !ok {
		var err error
		if send, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	for {
		raw, err := c.do(ctx, method, path, contentType, send)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusTooManyRequests {
			return raw, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		e := &StatusError{Method: method, Path: path, Code: resp.StatusCode}
		var status struct{ Reason, Message string }
		if json.Unmarshal(raw, &status) == nil && status.Message != "" {
			e.Reason, e.Message = status.Reason, status.Message
		} else {
			e.Message = strings.TrimSpace(string(raw))
		}
		return nil, e
	}
	return raw, nil
}

func (c *Client) object(ctx context.Context, method, path, contentType string, body any) (Object, error) {
	raw, err := c.Do(ctx, method, path, contentType, body)
	if err != nil {
		return nil, err
	}
	return decode(raw)
}

// Get reads one object, or a list of them as an object.
func (c *Client) Get(ctx context.Context, path string) (Object, error) {
	return c.object(ctx, http.MethodGet, path, "", nil)
}

// List reads the objects of a collection.
func (c *Client) List(ctx context.Context, path string) ([]Object, error) {
	list, err := c.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	return list.Objects("items"), nil
}

// Create posts a new object. Unknown fields are refused.
func (c *Client) Create(ctx context.Context, o Object) (Object, error) {
	collection, err := c.collection(ctx, o)
	if err != nil {
		return nil, err
	}
	return c.object(ctx, http.MethodPost, collection+"?"+strict, "application/json", o)
}

// Apply makes the object be as o says, by server-side apply, whoever owned its fields before;
// o may be JSON or YAML text as []byte too. Unknown fields are refused. The status is not
// written: see PutStatus.
func (c *Client) Apply(ctx context.Context, object any) (Object, error) {
	var o Object
	switch v := object.(type) {
	case Object:
		o = v
	case []byte:
		list, err := Decode(v)
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("apply: want one object, not %d", len(list))
		}
		o = list[0]
	default:
		return nil, fmt.Errorf("apply: cannot apply a %T", object)
	}
	path, err := c.Path(ctx, o)
	if err != nil {
		return nil, err
	}
	return c.object(ctx, http.MethodPatch, path+"?force=true&"+strict, applyPatch, o)
}

// Patch changes an object by a merge patch: a null removes a field.
func (c *Client) Patch(ctx context.Context, path string, patch any) (Object, error) {
	return c.object(ctx, http.MethodPatch, path+"?"+strict, MergePatch, patch)
}

// PatchStatus is Patch of the status alone: the patch is what stands below "status".
func (c *Client) PatchStatus(ctx context.Context, path string, status any) (Object, error) {
	return c.Patch(ctx, path+"/status", Object{"status": status})
}

// PutStatus replaces the whole status of an object.
func (c *Client) PutStatus(ctx context.Context, path string, status any) (Object, error) {
	return c.replace(ctx, path, "/status", func(o Object) Object {
		o["status"] = status
		return o
	})
}

// replace writes what change makes of the live object, again if another was faster.
func (c *Client) replace(ctx context.Context, path, subresource string, change func(Object) Object) (Object, error) {
	for {
		live, err := c.Get(ctx, path)
		if err != nil {
			return nil, err
		}
		o, err := c.object(ctx, http.MethodPut, path+subresource+"?"+strict, "application/json", change(live))
		if !errors.Is(err, ErrConflict) {
			return o, err
		}
	}
}

// Delete removes an object, or with the path of a collection all in it.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.Do(ctx, http.MethodDelete, path, "", nil)
	return err
}

// strict is the query of every write. What the field manager is called must not look like
// the product.
const strict = "fieldValidation=Strict&fieldManager=clustertest"

// Path is where the API has the object, by its apiVersion, kind, namespace and name.
func (c *Client) Path(ctx context.Context, o Object) (string, error) {
	collection, err := c.collection(ctx, o)
	if err != nil {
		return "", err
	}
	if o.Name() == "" {
		return "", fmt.Errorf("a %s without a name", o.Text("kind"))
	}
	return collection + "/" + url.PathEscape(o.Name()), nil
}

func (c *Client) collection(ctx context.Context, o Object) (string, error) {
	version, name := o.Text("apiVersion"), o.Text("kind")
	base := "/apis/" + version
	if !strings.Contains(version, "/") {
		base = "/api/" + version
	}
	k, err := c.kind(ctx, base, version, name)
	if err != nil {
		return "", err
	}
	if !k.namespaced {
		return base + "/" + k.plural, nil
	}
	if o.Namespace() == "" {
		return "", fmt.Errorf("%s %s: no namespace", name, o.Name())
	}
	return base + "/namespaces/" + url.PathEscape(o.Namespace()) + "/" + k.plural, nil
}

// kind asks discovery, once for each kind that is there.
func (c *Client) kind(ctx context.Context, base, version, name string) (kind, error) {
	key := version + "/" + name
	c.mu.Lock()
	k, ok := c.kinds[key]
	c.mu.Unlock()
	if ok {
		return k, nil
	}
	list, err := c.Get(ctx, base)
	if err != nil {
		return kind{}, fmt.Errorf("kind %s of %s: %w", name, version, err)
	}
	for _, r := range list.Objects("resources") {
		if r.Text("kind") != name || strings.Contains(r.Text("name"), "/") {
			continue
		}
		namespaced, _ := r["namespaced"].(bool)
		k := kind{plural: r.Text("name"), namespaced: namespaced}
		c.mu.Lock()
		c.kinds[key] = k
		c.mu.Unlock()
		return k, nil
	}
	return kind{}, fmt.Errorf("kind %s of %s: %w", name, version, ErrNotFound)
}
