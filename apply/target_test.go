package apply_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"pannier/apply"
	"pannier/apply/preflight"
	"pannier/apply/trip"
	"pannier/bundle/remote"
)

// reply makes a registry answer as one of another make is documented to.
type reply struct {
	challenge string // of /v2/
	on        func(*http.Request) bool
	status    int
	body      string
}

func (a reply) before(w http.ResponseWriter, q *http.Request) bool {
	switch {
	case q.URL.Path == "/v2/" && a.challenge != "":
		w.Header().Set("Www-Authenticate", a.challenge)
		w.WriteHeader(http.StatusUnauthorized)
	case a.on(q):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		io.WriteString(w, a.body)
	default:
		return false
	}
	return true
}

func begins(q *http.Request) bool { return q.Method == http.MethodPost }

func putsDocker(q *http.Request) bool {
	return q.Method == http.MethodPut && strings.Contains(q.Header.Get("Content-Type"), "docker") && strings.Contains(q.URL.Path, "/manifests/")
}

// What a registry will not take it is asked before anything is sent, and what to do is said in
// its own words.
func TestTargetRefuses(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	origin.Pack(media, r.Reference())
	for name, row := range map[string]struct {
		reply
		is   error
		says []string
	}{
		"Harbor, no project": {reply{`Bearer realm="http://harbor.example/service/token",service="harbor-registry"`, begins, 404,
			`{"errors":[{"code":"NOT_FOUND","message":"project ocp4 not found"}]}`}, remote.ErrRefused, []string{"Harbor", `project "ocp4"`}},
		"Harbor, no project or no right": {reply{`Bearer realm="http://harbor.example/service/token",service="harbor-registry"`, begins, 403,
			`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`}, remote.ErrAuth, []string{"Harbor", "if it does not exist", "right to push"}},
		"Harbor, quota": {reply{`Bearer realm="http://harbor.example/service/token",service="harbor-registry"`, begins, 403,
			`{"errors":[{"code":"DENIED","message":"adding 1.0 KiB of storage resource, which when updated to current usage of 10.0 MiB will exceed the configured upper limit of 10.0 MiB."}]}`},
			remote.ErrQuota, []string{"Harbor", "quota"}},
		"Quay, no organization": {reply{`Bearer realm="https://quay.example/v2/auth",service="quay.example"`, begins, 404,
			`{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`}, remote.ErrRefused, []string{"Quay", `organization "ocp4"`}},
		"Nexus, no connector": {reply{`BASIC realm="Sonatype Nexus Repository Manager"`, begins, 404, `{}`}, remote.ErrRefused, []string{"docker (hosted)", "connector"}},
		"Artifactory, no repository": {reply{`Basic realm="Artifactory Realm"`, begins, 404,
			`{"errors":[{"code":"NAME_UNKNOWN","message":"Repository name not known to registry."}]}`}, remote.ErrRefused, []string{`local Docker repository "ocp4"`}},
		"GitLab, no project": {reply{`Bearer realm="https://git.example/jwt/auth",service="container_registry"`, begins, 403,
			`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`}, remote.ErrAuth, []string{"GitLab project", "write_registry"}},
		"ECR, no repository": {reply{`Basic realm="https://ecr.example/",service="ecr.amazonaws.com"`, begins, 404,
			`{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist in the registry"}]}`}, remote.ErrRefused, []string{"create-repository --repository-name ocp4/openshift4"}},
		"zot": {reply{"", putsDocker, 415, `{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{"mediaType":"docker"}}]}`},
			remote.ErrRefused, []string{"docker2s2"}},
		"somebody": {reply{"", begins, 400, `{"errors":[{"code":"NAME_INVALID","message":"no"}]}`}, remote.ErrRefused, []string{`"ocp4"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := trip.NewSite(t)
			site.Log.Before(row.before)
			res, err := apply.Unpack(t.Context(), site.Options(media))
			var target *preflight.TargetError
			if !errors.As(err, &target) || !errors.Is(err, row.is) {
				t.Fatalf("%v, want %v", err, row.is)
			}
			if row.is != remote.ErrAuth && errors.Is(err, remote.ErrAuth) {
				t.Errorf("it is no matter of the login: %v", err)
			}
			for _, want := range row.says {
				if !strings.Contains(target.Remedy, want) {
					t.Errorf("%q does not say %q", target.Remedy, want)
				}
			}
			for _, q := range site.Log.Take() {
				if q.Method == http.MethodPatch || q.Method == http.MethodPut && q.Manifest() == "" {
					t.Errorf("a blob was sent: %v", q)
				}
			}
			if res.Pushed.Blobs+res.Present.Blobs > 0 || len(res.Objects) > 0 {
				t.Errorf("%+v", res)
			}
			site.Log.Before(nil)
			site.Unpack(media)
			releaseArrived(t, site, r)
		})
	}
}

// Every repository that is lacking is named at once.
func TestTargetNamesAll(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	origin.Log.Take()
	site.Log.Before(reply{"", func(q *http.Request) bool {
		return q.Method == http.MethodPost && !strings.HasPrefix(q.URL.Path, "/v2/"+trip.Repository+"/blobs/")
	}, 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}`}.before)
	opts := site.Options()
	opts.RepoPerComponent = true
	_, err := apply.Mirror(t.Context(), origin.Mirror(r.Reference()), opts)
	for _, c := range r.Components {
		if err == nil || !strings.Contains(err.Error(), trip.Repository+"/"+c.Name) {
			t.Errorf("%s is not named: %v", c.Name, err)
		}
	}
	if blobs := reads(origin.Log.Take(), r); len(blobs) > 0 {
		t.Errorf("read %v", blobs)
	}
}

// A registry that has the release is only read: it may be closed to pushing by then.
func TestTargetNotTriedWithoutNeed(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	media := trip.Drive(t)
	origin.Pack(media, r.Reference())
	site.Unpack(media)
	site.Log.Before(reply{"", func(q *http.Request) bool { return q.Method != http.MethodGet && q.Method != http.MethodHead }, 405, ""}.before)
	site.Unpack(media)
}

// A quota that is reached on the way is told from a login that may not push.
func TestTargetFillsUp(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	media := trip.Drive(t)
	origin.Pack(media, r.Reference())
	for _, status := range []int{403, 412, 507} {
		site.Log.Before(reply{"", func(q *http.Request) bool {
			return q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/blobs/")
		}, status, `{"errors":[{"code":"DENIED","message":"Quota has been exceeded on namespace"}]}`}.before)
		_, err := apply.Unpack(t.Context(), site.Options(media))
		if !errors.Is(err, remote.ErrQuota) || errors.Is(err, remote.ErrAuth) {
			t.Errorf("%d: %v", status, err)
		}
	}
	site.Log.Before(nil)
	site.Unpack(media)
	releaseArrived(t, site, r)
}
