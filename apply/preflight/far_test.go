package preflight_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply/preflight"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
	"pannier/bundle/remote"
)

// farOptions asks whether media, "" for none, can be unpacked into host.
func farOptions(t *testing.T, host, media string) preflight.FarOptions {
	t.Helper()
	return preflight.FarOptions{
		Media: media, Destination: objects.Destination{Registry: host, Repository: trip.Repository},
		Client: client(t, remote.Options{Confined: true}, ""), Signatures: trip.Verifier(t, trip.Key()), Cache: t.TempDir(),
	}
}

// drive packs a release, and images beside it.
func drive(t *testing.T, refs ...string) string {
	t.Helper()
	o, _ := origin(t)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	for _, path := range refs {
		r := trip.Small(t, "4.8.22")
		if err := o.Registry.Load(r); err != nil {
			t.Fatal(err)
		}
		opts.Additional = append(opts.Additional, trip.Image(t, strings.Replace(path, "ORIGIN", o.Registry.Host, 1)))
	}
	trip.Pack(t, opts)
	return media
}

// oneOf answers like a registry of another make.
func oneOf(fn func(w http.ResponseWriter, r *http.Request) (code int, body string)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		code, body := fn(w, r)
		if code == 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
		return true
	}
}

func registryError(code string, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func isPut(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
}

// zot does not take Docker's types unless it is configured to.
func zot(_ http.ResponseWriter, r *http.Request) (int, string) {
	if isPut(r) && strings.Contains(r.Header.Get("Content-Type"), "docker") {
		return http.StatusUnsupportedMediaType, `{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{"mediaType":"` + r.Header.Get("Content-Type") + `"}}]}`
	}
	return 0, ""
}

// old is a registry from before OCI's types.
func old(_ http.ResponseWriter, r *http.Request) (int, string) {
	if isPut(r) && strings.Contains(r.Header.Get("Content-Type"), "oci") {
		return http.StatusBadRequest, registryError("MANIFEST_INVALID", "unsupported manifest media type")
	}
	return 0, ""
}

// quay says the same of a manifest that it does not like, whatever the reason is. keep says
// that nothing may be deleted, else it says that it does; strict that it takes none at all.
func quay(s *trip.Site, keep, strict bool) func(http.ResponseWriter, *http.Request) (int, string) {
	return func(_ http.ResponseWriter, r *http.Request) (int, string) {
		if r.Method == http.MethodDelete && !strings.Contains(r.URL.Path, "/uploads/") {
			if keep {
				return http.StatusMethodNotAllowed, registryError("UNSUPPORTED", "")
			}
			return http.StatusAccepted, ""
		}
		if !isPut(r) {
			return 0, ""
		}
		raw, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(raw)))
		m, err := content.ParseManifest(r.Header.Get("Content-Type"), raw)
		if err != nil || strict || !s.Registry.Has(trip.Repository, m.Config.Digest) {
			return http.StatusBadRequest, registryError("MANIFEST_INVALID", "manifest invalid")
		}
		return 0, ""
	}
}

// harbor has no project "ocp4"; hidden says that it does not say so.
func harbor(hidden bool) func(http.ResponseWriter, *http.Request) (int, string) {
	return func(_ http.ResponseWriter, r *http.Request) (int, string) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/v2/ocp4/"):
			return 0, ""
		case hidden:
			return http.StatusForbidden, registryError("DENIED", "requested access to the resource is denied")
		}
		return http.StatusNotFound, registryError("NAME_UNKNOWN", "project ocp4 not found")
	}
}

// limited is a proxy that lets no long body pass; it answers chunks with a status, or lets
// them pass for 0.
func limited(chunks int) func(http.ResponseWriter, *http.Request) (int, string) {
	return func(_ http.ResponseWriter, r *http.Request) (int, string) {
		switch {
		case r.ContentLength > 100<<20:
			return http.StatusRequestEntityTooLarge, ""
		case r.Method == http.MethodPatch:
			return chunks, ""
		}
		return 0, ""
	}
}

type farGuard struct {
	name string
	want
	options func(t *testing.T) preflight.FarOptions
}

func farGuards() []farGuard {
	fail, warn, pass, skip := preflight.Fail, preflight.Warn, preflight.Pass, preflight.Skip
	// site makes options for a registry that answers some requests in its own way.
	site := func(fn func(http.ResponseWriter, *http.Request) (int, string)) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			if fn != nil {
				s.Log.Before(oneOf(fn))
			}
			return farOptions(t, s.Registry.Host, "")
		}
	}
	fine := func(t *testing.T) preflight.FarOptions {
		return farOptions(t, trip.NewSite(t).Registry.Host, drive(t))
	}
	// damaged makes options with a drive to which something has happened.
	damaged := func(change func(t *testing.T, media string)) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			opts := fine(t)
			change(t, opts.Media)
			return opts
		}
	}
	with := func(change func(t *testing.T, o *preflight.FarOptions)) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			o := fine(t)
			change(t, &o)
			return o
		}
	}
	// secure is a registry with TLS, to clients made from o.
	secure := func(ca bool, o remote.Options, at time.Duration) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			r, err := olareg.Serve(olareg.Options{TLS: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			if ca {
				file := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(file, r.CA, 0o600); err != nil {
					t.Fatal(err)
				}
				o.CAFiles = []string{file}
			}
			opts := farOptions(t, r.Host, "")
			opts.Client = client(t, o, "")
			return opts.At(time.Now().Add(at))
		}
	}
	filled := func(fn func(http.ResponseWriter, *http.Request) (int, string)) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			media := drive(t)
			s.Unpack(media)
			if fn != nil {
				s.Log.Before(oneOf(fn))
			}
			return farOptions(t, s.Registry.Host, media)
		}
	}
	// presuming is a drive that holds only what a registry lacks, which has been given all before if there says so.
	presuming := func(there bool, fn func(http.ResponseWriter, *http.Request) (int, string)) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			o, rel := origin(t)
			opts := o.Options(trip.Drive(t), "4.8.21")
			if there {
				trip.Pack(t, opts)
				s.Unpack(opts.Media)
				opts.Media = trip.Drive(t)
			}
			to := objects.Destination{Registry: s.Registry.Host, Repository: trip.Repository}
			held := map[digest.Digest]int64{}
			for d, data := range rel.Blobs {
				held[d] = int64(len(data))
			}
			opts.Have = []bundle.Holdings{{Registry: to, Blobs: map[string]map[digest.Digest]int64{to.String(): held}}}
			trip.Pack(t, opts)
			if fn != nil {
				s.Log.Before(oneOf(fn))
			}
			return farOptions(t, s.Registry.Host, opts.Media)
		}
	}
	password := func(file string) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			o := site(func(w http.ResponseWriter, r *http.Request) (int, string) {
				if user, pw, _ := r.BasicAuth(); user != "robot" || pw != "right" {
					w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
					return http.StatusUnauthorized, registryError("UNAUTHORIZED", "authentication required")
				}
				return 0, ""
			})(t)
			name := filepath.Join(t.TempDir(), "auth.json")
			if err := os.WriteFile(name, []byte(strings.Replace(file, "HOST", o.Destination.Registry, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Client = client(t, remote.Options{AuthFiles: []string{name}, Confined: true}, "")
			return o
		}
	}
	// token is a registry that sends clients to a token server for a token.
	token := func(password string) func(t *testing.T) preflight.FarOptions {
		return func(t *testing.T) preflight.FarOptions {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, pw, _ := r.BasicAuth(); pw != "right" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				io.WriteString(w, `{"token":"good"}`)
			}))
			t.Cleanup(server.Close)
			o := site(func(w http.ResponseWriter, r *http.Request) (int, string) {
				if r.Header.Get("Authorization") != "Bearer good" {
					w.Header().Set("Www-Authenticate", `Bearer realm="`+server.URL+`/token",service="registry"`)
					return http.StatusUnauthorized, registryError("UNAUTHORIZED", "authentication required")
				}
				return 0, ""
			})(t)
			name := filepath.Join(t.TempDir(), "auth.json")
			text := fmt.Sprintf(`{"auths":{%q:{"username":"robot","password":%q}}}`, o.Destination.Registry, password)
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Client = client(t, remote.Options{AuthFiles: []string{name}, Confined: true}, "")
			return o
		}
	}
	return []farGuard{
		{"bundle", want{"bundle-readable", pass, nil, "images"}, fine},
		{"no bundle", want{"bundle-readable", fail, bundle.ErrNotBundle, ""}, with(func(t *testing.T, o *preflight.FarOptions) { o.Media = t.TempDir() })},
		{"index damaged", want{"bundle-readable", warn, nil, "index"}, damaged(damageIndex)},
		{"no drive", want{"bundle-readable", skip, nil, "no MEDIA"}, site(nil)},
		{"sealed", want{"bundle-sealed", pass, nil, "sealed"}, fine},
		{"unsealed", want{"bundle-sealed", fail, bundle.ErrUnsealed, ""}, damaged(unseal)},
		{"seal damaged", want{"bundle-sealed", fail, bundle.ErrDamaged, "seal-"}, damaged(func(t *testing.T, media string) { trip.Flip(t, sealOf(t, media), 20) })},
		{"release", want{"bundle-releases", pass, nil, "4.8.21-x86_64 (sha256:"}, fine},
		{"another release", want{"bundle-releases", fail, bundle.ErrNoRelease, "4.8.22"}, with(func(t *testing.T, o *preflight.FarOptions) { o.Releases = []string{"4.8.22"} })},
		{"all blobs", want{"bundle-blobs", pass, nil, "with their sizes"}, fine},
		{"a blob cut", want{"bundle-blobs", fail, bundle.ErrDamaged, "1 blob is not as recorded"}, damaged(func(t *testing.T, media string) { onBlob(t, media, func(p string) error { return os.Truncate(p, 3) }) })},
		{"a blob gone", want{"bundle-blobs", fail, bundle.ErrDamaged, "1 blob is not as recorded"}, damaged(func(t *testing.T, media string) { onBlob(t, media, os.Remove) })},
		{"signed", want{"bundle-signatures", pass, nil, "signed by"}, fine},
		{"key not known here", want{"bundle-signatures", fail, bundle.ErrSignature, "unverified"}, with(func(t *testing.T, o *preflight.FarOptions) { o.Signatures = trip.Verifier(t) })},
		{"key not known here, policy warn", want{"bundle-signatures", warn, bundle.ErrSignature, "unverified"}, with(func(t *testing.T, o *preflight.FarOptions) {
			o.Signatures, o.Policy = trip.Verifier(t), bundle.PolicyWarn
		})},
		{"loopback", want{"registry-name", warn, nil, "nodes cannot"}, site(nil)},
		{"loopback, nodes know another name", want{"registry-name", pass, nil, "registry.example:5000"}, func(t *testing.T) preflight.FarOptions {
			o := site(nil)(t)
			o.Cluster = &objects.Destination{Registry: "registry.example:5000", Repository: "ocp4/openshift4"}
			return o
		}},
		{"answers", want{"registry-api", pass, nil, "answers over http"}, site(nil)},
		{"web page", want{"registry-api", fail, remote.ErrNotRegistry, ""}, func(t *testing.T) preflight.FarOptions { return farOptions(t, web(t), "") }},
		{"nobody there", want{"registry-api", fail, remote.ErrUnreachable, ""}, func(t *testing.T) preflight.FarOptions { return farOptions(t, nobody(t), "") }},
		{"plain http", want{"registry-tls", warn, nil, "plain http"}, site(nil)},
		{"certificate", want{"registry-tls", pass, nil, "valid until"}, secure(true, remote.Options{}, -60*24*time.Hour)},
		{"certificate of nobody", want{"registry-tls", fail, remote.ErrCertificate, "valid until"}, secure(false, remote.Options{}, 0)},
		{"certificate not verified", want{"registry-tls", warn, nil, "not verified"}, secure(false, remote.Options{Insecure: true}, 0)},
		{"certificate expired", want{"registry-tls", warn, nil, "expired"}, secure(true, remote.Options{Insecure: true}, 200*365*24*time.Hour)},
		{"certificate expires soon", want{"registry-tls", warn, nil, "left"}, func(t *testing.T) preflight.FarOptions {
			o := secure(true, remote.Options{}, 0)(t)
			g, err := must(o.Client.Repository(o.Destination.String())).Ping(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return o.At(g.Certificates[0].NotAfter.Add(-10 * 24 * time.Hour))
		}},
		{"clock right", want{"registry-clock", pass, nil, "agrees"}, site(nil)},
		{"clock ten minutes off", want{"registry-clock", warn, nil, "ahead"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(late(10 * time.Minute))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"clock two hours off", want{"registry-clock", fail, nil, "behind"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(late(-2 * time.Hour))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"open to all", want{"registry-auth", pass, nil, "everybody"}, site(nil)},
		{"password right", want{"registry-auth", pass, nil, "auth.json"}, password(`{"auths":{"HOST":{"username":"robot","password":"right"}}}`)},
		{"password wrong", want{"registry-auth", fail, remote.ErrAuth, "auth.json"}, password(`{"auths":{"HOST":{"username":"robot","password":"wrong"}}}`)},
		{"password missing", want{"registry-auth", fail, remote.ErrAuth, "no entry"}, password(`{"auths":{"other.example":{"username":"robot","password":"right"}}}`)},
		{"helper missing", want{"registry-auth", fail, remote.ErrAuth, "helper"}, password(`{"credHelpers":{"HOST":"preflight-none"}}`)},
		{"token", want{"registry-auth", pass, nil, "accepts the login"}, token("right")},
		{"token server is told", want{"registry-api", pass, nil, "wants a token of 127.0.0.1"}, token("right")},
		{"token server is listed", want{"registry-hosts", pass, nil, "(token)"}, token("right")},
		{"token server refuses", want{"registry-auth", fail, remote.ErrAuth, "from the token server"}, token("wrong")},
		{"uploads", want{"registry-uploads", pass, nil, "1.0 GiB is let pass, and chunks are taken"}, site(nil)},
		{"uploads of what the drive has", want{"registry-uploads", pass, nil, "1.0 MiB is let pass"}, fine},
		{"bodies limited", want{"registry-uploads", warn, nil, "in chunks"}, site(limited(0))},
		{"bodies limited, no chunks", want{"registry-uploads", fail, remote.ErrRefused, "so are chunks"}, site(limited(http.StatusMethodNotAllowed))},
		{"no chunks", want{"registry-uploads", pass, nil, "begins anew"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodPatch && r.Header.Get("Content-Range") != "" {
				return http.StatusMethodNotAllowed, registryError("UNSUPPORTED", "")
			}
			return 0, ""
		})},
		{"nothing presumed", want{"registry-presumed", skip, nil, "all that its images need"}, fine},
		{"presumed", want{"registry-presumed", pass, nil, "are there"}, presuming(true, nil)},
		{"presumed elsewhere", want{"registry-presumed", fail, bundle.ErrPresumed, "not there"}, presuming(false, nil)},
		{"presumed and denied", want{"registry-presumed", warn, remote.ErrAuth, "could not be found out"}, presuming(true, func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/") {
				return http.StatusForbidden, registryError("DENIED", "denied")
			}
			return 0, ""
		})},
		{"referrers", want{"registry-referrers", pass, nil, "lists what refers"}, site(nil)},
		{"no referrers", want{"registry-referrers", pass, nil, "by their tags"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				return http.StatusNotFound, "404 page not found"
			}
			return 0, ""
		})},
		{"referrers denied", want{"registry-referrers", warn, remote.ErrAuth, "could not be found out"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				return http.StatusForbidden, registryError("DENIED", "requested access to the resource is denied")
			}
			return 0, ""
		})},
		{"referrers are a page", want{"registry-referrers", pass, nil, "by their tags"}, site(func(w http.ResponseWriter, r *http.Request) (int, string) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				w.Header().Set("Content-Type", "text/html")
				return http.StatusOK, "<html></html>"
			}
			return 0, ""
		})},
		{"empty repository", want{"registry-tags", pass, nil, ""}, site(nil)},
		{"release there already", want{"registry-tags", pass, nil, "of the drive's releases: 4.8.21-x86_64"}, filled(nil)},
		{"tags denied", want{"registry-tags", warn, remote.ErrAuth, ""}, site(harbor(true))},
		{"readable", want{"registry-pull", pass, nil, "were read"}, filled(nil)},
		{"redirect to a store that is away", want{"registry-pull", warn, nil, "cannot be read"}, filled(func(w http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
				w.Header().Set("Location", "http://"+r.Host+"/storage/away")
				return http.StatusTemporaryRedirect, ""
			}
			return 0, ""
		})},
		{"push", want{"registry-push", pass, nil, "begun and cancelled"}, site(nil)},
		{"push denied", want{"registry-push", fail, remote.ErrAuth, "403"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodPost {
				return http.StatusForbidden, registryError("DENIED", "denied")
			}
			return 0, ""
		})},
		{"read-only registry", want{"registry-push", fail, remote.ErrRefused, "405"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodPost {
				return http.StatusMethodNotAllowed, registryError("UNSUPPORTED", "read-only")
			}
			return 0, ""
		})},
		{"project there", want{"registry-project", pass, nil, "ocp4"}, site(nil)},
		{"project absent", want{"registry-project", fail, remote.ErrRefused, "does not exist"}, site(harbor(false))},
		{"project hidden", want{"registry-project", warn, remote.ErrAuth, "may not exist"}, site(harbor(true))},
		{"project readable only", want{"registry-project", pass, nil, "right to push"}, filled(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodPost {
				return http.StatusForbidden, registryError("DENIED", "denied")
			}
			return 0, ""
		})},
		{"depth", want{"registry-nesting", pass, nil, "2 segments"}, site(nil)},
		{"depth refused", want{"registry-nesting", fail, remote.ErrRefused, "NAME_INVALID"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if r.Method == http.MethodPost {
				return http.StatusBadRequest, registryError("NAME_INVALID", "invalid repository name")
			}
			return 0, ""
		})},
		{"depth of additional images refused", want{"registry-nesting", fail, remote.ErrAuth, "openshift-release-dev/ocp-release"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(status(http.StatusUnauthorized, "", "/v2/mirrored/"))
			o := farOptions(t, s.Registry.Host, drive(t, "ORIGIN/openshift-release-dev/ocp-release:4.8.22-x86_64"))
			o.Prefix = "mirrored"
			return o
		}},
		{"depth of additional images", want{"registry-nesting", pass, nil, "openshift-release-dev/ocp-release"}, func(t *testing.T) preflight.FarOptions {
			return farOptions(t, trip.NewSite(t).Registry.Host, drive(t, "ORIGIN/openshift-release-dev/ocp-release:4.8.22-x86_64"))
		}},
		{"takes Docker's", want{"registry-docker-manifests", pass, nil, "Docker schema 2"}, fine},
		{"zot", want{"registry-docker-manifests", fail, remote.ErrRefused, "415"}, site(zot)},
		{"zot, with a drive", want{"registry-docker-manifests", fail, remote.ErrRefused, "415"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(oneOf(zot))
			return farOptions(t, s.Registry.Host, drive(t))
		}},
		{"quay", want{"registry-docker-manifests", pass, nil, "it was removed again"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(oneOf(quay(s, false, false)))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"quay with images", want{"registry-docker-manifests", pass, nil, "holds one already"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Unpack(drive(t))
			s.Log.Before(oneOf(quay(s, false, false)))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"nothing may be deleted", want{"registry-docker-manifests", pass, nil, "it stays there"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(oneOf(quay(s, true, false)))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"takes none", want{"registry-docker-manifests", fail, remote.ErrRefused, "400"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(oneOf(quay(s, false, true)))
			return farOptions(t, s.Registry.Host, "")
		}},
		{"manifests denied", want{"registry-docker-manifests", fail, remote.ErrAuth, "manifest was not"}, site(func(_ http.ResponseWriter, r *http.Request) (int, string) {
			if isPut(r) {
				return http.StatusForbidden, registryError("DENIED", "denied")
			}
			return 0, ""
		})},
		{"takes OCI's", want{"registry-oci-manifests", pass, nil, "OCI"}, site(nil)},
		{"nothing of OCI on the drive", want{"registry-oci-manifests", skip, nil, "nothing on the drive"}, fine},
		{"from before OCI", want{"registry-oci-manifests", warn, remote.ErrRefused, "media type"}, site(old)},
		{"from before OCI, and the drive has such", want{"registry-oci-manifests", fail, remote.ErrRefused, "media type"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			s.Log.Before(oneOf(old))
			r := trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, LayerSize: 1 << 10, OCI: true})
			o := trip.NewOrigin(t, r)
			media := trip.Drive(t)
			o.Pack(media, "4.8.21")
			return farOptions(t, s.Registry.Host, media)
		}},
		{"hosts", want{"registry-hosts", pass, nil, "(registry)"}, site(nil)},
		{"nobody answers", want{"registry-hosts", fail, remote.ErrUnreachable, "no host answered"}, func(t *testing.T) preflight.FarOptions { return farOptions(t, nobody(t), "") }},
		{"by a proxy", want{"registry-hosts", warn, nil, "by proxy"}, func(t *testing.T) preflight.FarOptions {
			s := trip.NewSite(t)
			o := farOptions(t, s.Registry.Host, "")
			u, err := url.Parse("http://" + s.Registry.Host)
			if err != nil {
				t.Fatal(err)
			}
			o.Client = client(t, remote.Options{Proxy: func(*http.Request) (*url.URL, error) { return u, nil }}, "")
			return o
		}},
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// onBlob does something to one blob of a drive.
func onBlob(t *testing.T, media string, do func(path string) error) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(media, "blobs", "sha256", "*"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, n := range names {
		// The walk of a manifest that is gone would tell another story.
		if raw, err := os.ReadFile(n); err == nil && !strings.HasPrefix(string(raw), "{") {
			if err := do(n); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no blob")
}

// TestFar does for the far side what TestNear does, and sees that the drive stays as it is.
func TestFar(t *testing.T) {
	for _, g := range farGuards() {
		t.Run(g.row+"/"+g.name, func(t *testing.T) {
			t.Parallel()
			opts := g.options(t)
			var before map[string]trip.State
			if opts.Media != "" {
				before = trip.Tree(t, opts.Media)
			}
			r, err := preflight.Far(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			whole(t, r, preflight.FarNames())
			if err := g.judge(r); err != nil {
				t.Error(err)
				show(t, r)
			}
			if before != nil && !maps.Equal(before, trip.Tree(t, opts.Media)) {
				t.Error("the drive is not as it was")
			}
			if r, err = preflight.Far(t.Context(), opts.Without(g.row)); err != nil {
				t.Fatal(err)
			}
			if g.judge(r) == nil {
				t.Errorf("%s is switched off and nothing is missed", g.row)
			}
		})
	}
}

func TestFarGuardsAreAll(t *testing.T) {
	var all []want
	for _, g := range farGuards() {
		all = append(all, g.want)
	}
	covered(t, preflight.FarNames(), all)
}

// distribution is the reference registry, Debian's docker-registry, and the folder it writes.
func distribution(t *testing.T) (addr, data string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("docker-registry is not installed")
		}
		t.Skip("SKIPPED: docker-registry is not installed; olareg alone was asked")
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	addr = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	data = filepath.Join(dir, "data")
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", data, addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "serve", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return addr, data
}

// TestDistribution asks the reference registry, and looks what stays there: as it is, and
// through a proxy that makes every refusal of a manifest an ambiguous one, so that a whole
// image is pushed and removed.
func TestDistribution(t *testing.T) {
	for _, row := range []struct {
		name, docker string
		ambiguous    bool
	}{
		{"as it is", "missed only the config", false},
		{"ambiguous", "it was removed again", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			addr, data := distribution(t)
			if row.ambiguous {
				proxy := httputil.NewSingleHostReverseProxy(must(url.Parse("http://" + addr)))
				proxy.ModifyResponse = func(r *http.Response) error {
					if isPut(r.Request) && r.StatusCode >= 400 {
						r.Body.Close()
						body := registryError("MANIFEST_INVALID", "manifest invalid")
						r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
						r.Header.Set("Content-Length", fmt.Sprint(len(body)))
					}
					return nil
				}
				front := httptest.NewServer(proxy)
				t.Cleanup(front.Close)
				addr = front.Listener.Addr().String()
			}
			r, err := preflight.Far(t.Context(), farOptions(t, addr, ""))
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range []want{
				{"registry-push", preflight.Pass, nil, ""},
				{"registry-docker-manifests", preflight.Pass, nil, row.docker},
				{"registry-oci-manifests", preflight.Pass, nil, row.docker},
			} {
				if err := w.judge(r); err != nil {
					t.Error(err)
				}
			}
			// This registry keeps the folder of a cancelled upload for a week, and the
			// bytes of a deleted blob until its garbage is collected: what counts is
			// what is linked in the repository.
			tree := filepath.Join(data, "docker", "registry", "v2", "repositories", trip.Repository)
			filepath.WalkDir(tree, func(path string, e os.DirEntry, err error) error {
				if err == nil && e.Name() == "link" && !strings.Contains(path, "_uploads") {
					t.Errorf("the registry holds %s", path)
				}
				return nil
			})
			if _, err := os.Stat(tree); err != nil {
				t.Errorf("nothing was ever asked of it: %v", err)
			}
		})
	}
}

// A folder that oc adm release mirror wrote is a drive like another, but for its seal.
func TestFarFolderOfOC(t *testing.T) {
	rel := trip.Small(t, "4.8.21")
	dir := trip.OC(t, trip.OCOptions{}, rel)
	site := trip.NewSite(t)
	rows := func() map[string]preflight.Check {
		t.Helper()
		r, err := preflight.Far(t.Context(), farOptions(t, site.Registry.Host, dir))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]preflight.Check{}
		for _, c := range r.Checks {
			out[c.Name] = c
		}
		return out
	}
	got := rows()
	for _, name := range []string{"bundle-readable", "bundle-sealed", "bundle-releases", "bundle-blobs", "bundle-signatures"} {
		if got[name].Status != preflight.Pass {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	if err := errors.Join(os.Remove(trip.OCBlob(dir, rel.Descriptor.Digest)), os.Remove(trip.OCTag(dir, rel.Descriptor.Digest.String()))); err != nil {
		t.Fatal(err)
	}
	if c := rows()["bundle-sealed"]; c.Status != preflight.Fail || !errors.Is(c.Err, bundle.ErrIncomplete) {
		t.Errorf("%+v", c)
	}
}
