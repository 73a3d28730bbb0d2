package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds one answer of the API server, in bytes.
const maxAnswer = 256 << 20

// pageSize is how many objects one page of a list holds.
const pageSize = 500

// resource names one kind of object to the API server.
type resource struct {
	group, version, name, kind string
}

// The fixed table of what pannier reads and writes.
var (
	configMaps       = resource{"", "v1", "configmaps", "ConfigMap"}
	secrets          = resource{"", "v1", "secrets", "Secret"}
	nodes            = resource{"", "v1", "nodes", "Node"}
	pods             = resource{"", "v1", "pods", "Pod"}
	icspResource     = resource{"operator.openshift.io", "v1alpha1", "imagecontentsourcepolicies", "ImageContentSourcePolicy"}
	idmsResource     = resource{"config.openshift.io", "v1", "imagedigestmirrorsets", "ImageDigestMirrorSet"}
	itmsResource     = resource{"config.openshift.io", "v1", "imagetagmirrorsets", "ImageTagMirrorSet"}
	clusterVersions  = resource{"config.openshift.io", "v1", "clusterversions", "ClusterVersion"}
	clusterOperators = resource{"config.openshift.io", "v1", "clusteroperators", "ClusterOperator"}
	imageConfigs     = resource{"config.openshift.io", "v1", "images", "Image"}
	proxies          = resource{"config.openshift.io", "v1", "proxies", "Proxy"}
	imagePolicies    = resource{"config.openshift.io", "v1", "clusterimagepolicies", "ClusterImagePolicy"}
	pools            = resource{"machineconfiguration.openshift.io", "v1", "machineconfigpools", "MachineConfigPool"}
	machineConfigs   = resource{"machineconfiguration.openshift.io", "v1", "machineconfigs", "MachineConfig"}
	mcoConfigs       = resource{"operator.openshift.io", "v1", "machineconfigurations", "MachineConfiguration"}
	etcdOperators    = resource{"operator.openshift.io", "v1", "etcds", "Etcd"}
	etcdBackups      = resource{"operator.openshift.io", "v1alpha1", "etcdbackups", "EtcdBackup"}
	cronJobs         = resource{"batch", "v1", "cronjobs", "CronJob"}
	budgets          = resource{"policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"}
	oldBudgets       = resource{"policy", "v1beta1", "poddisruptionbudgets", "PodDisruptionBudget"}
	requestCounts    = resource{"apiserver.openshift.io", "v1", "apirequestcounts", "APIRequestCount"}
	healthChecks     = resource{"machine.openshift.io", "v1beta1", "machinehealthchecks", "MachineHealthCheck"}
	routes           = resource{"route.openshift.io", "v1", "routes", "Route"}
	accessReviews    = resource{"authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"}
	subjectReviews   = resource{"authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"}
)

func (r resource) apiVersion() string {
	if r.group == "" {
		return r.version
	}
	return r.group + "/" + r.version
}

// String is the name that oc understands.
func (r resource) String() string {
	if r.group == "" {
		return r.name
	}
	return r.name + "." + r.group
}

func (r resource) path(namespace, name string) string {
	p := "/apis/" + r.group + "/" + r.version
	if r.group == "" {
		p = "/api/" + r.version
	}
	if namespace != "" {
		p += "/namespaces/" + url.PathEscape(namespace)
	}
	p += "/" + r.name
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

// get reads one object into v.
func (c *Cluster) get(ctx context.Context, r resource, namespace, name string, v any) error {
	return c.read(ctx, "get", display(r, namespace, name), r.path(namespace, name), nil, v)
}

// exists asks whether the cluster serves a resource at all. It needs no permission to read
// objects: the list of a version's resources is open to everybody who may log in.
func (c *Cluster) exists(ctx context.Context, r resource) (bool, error) {
	var list struct {
		Resources []struct {
			Name string `json:"name"`
		} `json:"resources"`
	}
	path := "/apis/" + r.group + "/" + r.version
	if r.group == "" {
		path = "/api/" + r.version
	}
	err := c.read(ctx, "get", path, path, nil, &list)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, entry := range list.Resources {
		if entry.Name == r.name {
			return true, nil
		}
	}
	return false, nil
}

// list reads all objects of a resource, page by page. namespace "" is all of them.
func list[T any](ctx context.Context, c *Cluster, r resource, namespace, labels string) ([]T, error) {
	var all []T
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if labels != "" {
		query.Set("labelSelector", labels)
	}
	for range 1000 {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		err := c.read(ctx, "list", display(r, namespace, ""), r.path(namespace, ""), query, &page)
		if status(err) == http.StatusGone && query.Get("continue") != "" {
			all = nil // the pages were of a state that is gone: from the start
			query.Del("continue")
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Metadata.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
	return nil, fmt.Errorf("list %s: %w: it does not end", r, ErrRefused)
}

// read is a GET that is tried again for a few seconds where that may help.
func (c *Cluster) read(ctx context.Context, verb, what, path string, query url.Values, v any) error {
	for wait := 500 * time.Millisecond; ; wait *= 2 {
		_, err := c.do(ctx, http.MethodGet, verb, what, path, query, "", nil, v)
		if err == nil || !transient(err) || wait > 4*time.Second || ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// writeOptions are the query of every write: strict validation, so that nothing is pruned
// without a word.
func writeOptions(dryRun bool) url.Values {
	q := url.Values{"fieldManager": {FieldManager}, "fieldValidation": {"Strict"}}
	if dryRun {
		q.Set("dryRun", "All")
	}
	return q
}

// create makes one object; v, if not nil, receives it as the server keeps it.
func (c *Cluster) create(ctx context.Context, r resource, namespace, name string, object any, dryRun bool, v any) error {
	_, err := c.do(ctx, http.MethodPost, "create", display(r, namespace, name), r.path(namespace, ""), writeOptions(dryRun), "application/json", object, v)
	return err
}

// patch merges a JSON merge patch into one object.
func (c *Cluster) patch(ctx context.Context, r resource, namespace, name string, patch any, dryRun bool, v any) error {
	_, err := c.do(ctx, http.MethodPatch, "patch", display(r, namespace, name), r.path(namespace, name), writeOptions(dryRun), "application/merge-patch+json", patch, v)
	return err
}

func (c *Cluster) remove(ctx context.Context, r resource, namespace, name string) error {
	_, err := c.do(ctx, http.MethodDelete, "delete", display(r, namespace, name), r.path(namespace, name), nil, "", nil, nil)
	return err
}

func display(r resource, namespace, name string) string {
	s := r.String()
	if name != "" {
		s += "/" + name
	}
	if namespace != "" {
		s += " in " + namespace
	}
	return s
}

// do makes one request, and returns the server's Date.
func (c *Cluster) do(ctx context.Context, method, verb, what, path string, query url.Values, contentType string, body, v any) (date time.Time, err error) {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return date, fmt.Errorf("%s %s: %w", verb, what, err)
		}
		payload = bytes.NewReader(raw)
	}
	rctx, cancel := context.WithTimeout(ctx, c.timing.Request)
	defer cancel()
	req, err := http.NewRequestWithContext(rctx, method, strings.TrimSuffix(c.base.String(), "/")+path+encode(query), payload)
	if err != nil {
		return date, fmt.Errorf("%s %s: %w", verb, what, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return date, c.lost(ctx, verb, what, err)
	}
	defer resp.Body.Close()
	date, _ = http.ParseTime(resp.Header.Get("Date"))
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return date, c.lost(ctx, verb, what, err)
	}
	for _, w := range resp.Header.Values("Warning") {
		c.log.Debug("the API server warns", "request", verb+" "+what, "warning", w)
	}
	if resp.StatusCode >= 300 {
		return date, refusal(verb, what, resp.StatusCode, raw)
	}
	if len(raw) > maxAnswer {
		return date, fmt.Errorf("%s %s: %w: an answer of more than %d bytes", verb, what, ErrRefused, maxAnswer)
	}
	if v == nil {
		return date, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return date, fmt.Errorf("%s %s: %w: the answer of %s is not that of an API server: %w", verb, what, ErrUnreachable, c.server, err)
	}
	return date, nil
}

func encode(query url.Values) string {
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// lost is the error of a request that got no whole answer.
func (c *Cluster) lost(ctx context.Context, verb, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The URL is said without the query.
	return fmt.Errorf("%s %s: %w: %s: %w", verb, what, ErrUnreachable, c.server, bare(err))
}

// bare is the error of a request without its URL.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal reads the Status object of an answer; a proxy in between gives none.
func refusal(verb, what string, code int, raw []byte) error {
	e := &APIError{Verb: verb, Resource: what, Status: code}
	var s struct {
		Message string `json:"message"`
		Reason  string `json:"reason"`
	}
	if json.Unmarshal(raw, &s) == nil && s.Message != "" {
		e.Message, e.Reason = s.Message, s.Reason
		const strict = "strict decoding error: "
		if i := strings.Index(s.Message, strict); i > 0 {
			// Before it stands the whole object.
			e.Message = "this cluster's definition does not have what is written: " + s.Message[i+len(strict):]
		}
		return e
	}
	e.Message = http.StatusText(code)
	if text := strings.Join(strings.Fields(string(raw[:min(len(raw), 200)])), " "); text != "" {
		e.Message += ": " + text
	}
	return e
}

// sleep waits, and returns the cause if the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
