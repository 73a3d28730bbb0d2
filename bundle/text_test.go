package bundle_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/verify"
)

// releaseText is the release.txt of a sample release.
func releaseText(r *sample.Release) string {
	return fmt.Sprintf("Name:      %s\nDigest:    %s\nOS/Arch:   linux/%s\n\nPull From: %s@%[2]s\n",
		r.Version, r.Descriptor.Digest, release.GoArch(r.Arch), r.Repository)
}

func TestPackReleaseText(t *testing.T) {
	r21, r22 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r21, r22)
	dir := t.TempDir()
	file := func(name, text string) string {
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	text21, text22 := file("21", releaseText(r21)), file("22", releaseText(r22))
	wrongName := file("name", strings.Replace(releaseText(r21), "4.8.21", "4.8.20", 1))
	wrongRepo := file("repo", strings.Replace(releaseText(r21), "quay.io/openshift-release-dev", "quay.io/elsewhere", 1))
	other := file("other", strings.ReplaceAll(releaseText(r21), r21.Descriptor.Digest.String(), "sha256:"+zeros))

	for name, row := range map[string]struct {
		releases []string
		texts    []string
		want     error
	}{
		"agrees":                  {[]string{"4.8.21"}, []string{text21}, nil},
		"of two, in any order":    {[]string{"4.8.21", "4.8.22"}, []string{text22, text21}, nil},
		"of one of two":           {[]string{"4.8.21", "4.8.22"}, []string{text22}, nil},
		"of another release":      {[]string{"4.8.21"}, []string{text22}, bundle.ErrDisagree},
		"another version":         {[]string{"4.8.21"}, []string{wrongName}, bundle.ErrDisagree},
		"another repository":      {[]string{"4.8.21"}, []string{wrongRepo}, bundle.ErrDisagree},
		"another digest":          {[]string{"4.8.21"}, []string{other}, bundle.ErrDisagree},
		"another digest of two":   {[]string{"4.8.21", "4.8.22"}, []string{other, text22}, bundle.ErrDisagree},
		"of none of two":          {[]string{"4.8.22"}, []string{text21, text22}, release.ErrText},
		"no release.txt":          {[]string{"4.8.21"}, []string{file("junk", "hello")}, release.ErrText},
		"no file":                 {[]string{"4.8.21"}, []string{dir}, nil},
		"an address that is none": {[]string{"4.8.21"}, []string{"ftp://example/release.txt"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			opts := o.Options(trip.Drive(t), row.releases...)
			opts.Texts = row.texts
			_, err := bundle.Pack(t.Context(), opts)
			if bad := strings.HasPrefix(name, "no ") || strings.HasPrefix(name, "an "); row.want == nil && bad != (err != nil) || !errors.Is(err, row.want) && row.want != nil {
				t.Fatalf("%v", err)
			}
			if err != nil {
				if _, err := os.Lstat(opts.Media); err == nil {
					t.Error("MEDIA was made")
				}
				return
			}
			trip.Whole(t, opts.Media)
			in, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: opts.Media, Cache: t.TempDir(), Signatures: o.Verifier})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, rel := range in.Releases {
				if rel.Digests.ReleaseTxt == rel.Digest {
					n++
				}
			}
			if n != len(row.texts) {
				t.Errorf("%d releases have a release.txt that agrees, and %d were given", n, len(row.texts))
			}
		})
	}
}

// A sealed release is packed anew only if the release.txt that is named is not on the drive.
func TestPackReleaseTextLater(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	o.Pack(media, "4.8.21")
	name := filepath.Join(t.TempDir(), "release.txt")
	write(t, name, releaseText(r))
	opts := o.Options(media, "4.8.21")
	opts.Texts = []string{name}
	if trip.Pack(t, opts).Unchanged {
		t.Error("the release.txt was not taken")
	}
	if !trip.Pack(t, opts).Unchanged || !o.Pack(media, "4.8.21").Unchanged {
		t.Error("it was written again")
	}
	if got, _ := open(t, media).Contents.Document("4.8.21-x86_64", "release.txt"); string(got) != releaseText(r) {
		t.Errorf("on the drive: %q", got)
	}
	write(t, name, strings.ReplaceAll(releaseText(r), r.Descriptor.Digest.String(), "sha256:"+zeros))
	if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrDisagree) {
		t.Errorf("a release.txt that disagrees with a sealed release: %v", err)
	}
}

// Of a multi release it may be of the list or of a child.
func TestPackReleaseTextMulti(t *testing.T) {
	r := trip.Make(t, sample.Options{Multi: true, Components: 3, LayerSize: 1 << 10, Archs: []string{"x86_64", "aarch64"}})
	o := trip.NewOrigin(t, r)
	name := filepath.Join(t.TempDir(), "release.txt")
	for _, d := range []string{r.Descriptor.Digest.String(), r.Children[1].Digest.String()} {
		write(t, name, strings.ReplaceAll(releaseText(r), r.Descriptor.Digest.String(), d))
		opts := o.Options(trip.Drive(t), "4.8.21-multi")
		opts.Texts = []string{name}
		trip.Pack(t, opts)
		trip.Whole(t, opts.Media)
		in, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: opts.Media, Cache: t.TempDir(), Signatures: o.Verifier})
		if err != nil || in.Releases[0].Digests.ReleaseTxt != r.Descriptor.Digest.String() {
			t.Errorf("%v: %+v", err, in)
		}
	}
}

// publicHosts stands for the hosts that releases come from: a proxy leads every connection to
// them to a server here, with a certificate for their names.
func publicHosts(t *testing.T, o *trip.Origin, hosts map[string]http.Handler) *remote.Client {
	t.Helper()
	quay := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: o.Registry.Host})
	quay.ErrorLog = log.New(io.Discard, "", 0)
	hosts["quay.io"] = quay
	ca, config := certificate(t, hosts)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if h := hosts[req.Host]; h != nil {
			h.ServeHTTP(w, req)
			return
		}
		http.NotFound(w, req)
	}))
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			to.Close()
			return
		}
		go func() { io.Copy(to, from); to.Close() }()
		go func() { io.Copy(from, to); from.Close() }()
	}))
	t.Cleanup(proxy.Close)
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := remote.New(remote.Options{
		CAFiles: []string{ca}, GiveUpAfter: 20 * time.Second,
		Proxy: func(*http.Request) (*url.URL, error) { return address, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certificate(t *testing.T, hosts map[string]http.Handler) (file string, config *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for h := range hosts {
		template.DNSNames = append(template.DNSNames, h)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return file, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// Unasked, release.txt is fetched only if release and signatures are from their public places;
// that it cannot be had is no failure, that it disagrees is one.
func TestPackReleaseTextByDefault(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	asked := ""
	answer := ""
	store := http.FileServer(http.Dir(o.Store))
	text := func(w http.ResponseWriter, req *http.Request) {
		asked += req.URL.Path + " "
		if answer == "" {
			http.NotFound(w, req)
			return
		}
		io.WriteString(w, answer)
	}
	mirror := http.NewServeMux()
	mirror.HandleFunc("/pub/openshift-v4/x86_64/clients/", text)
	client := publicHosts(t, o, map[string]http.Handler{
		"mirror.openshift.com":   mirror,
		"storage.googleapis.com": http.StripPrefix("/openshift-release/official/signatures/openshift/release", store),
	})
	pack := func(change func(*bundle.PackOptions)) (*bundle.PackResult, error) {
		asked = ""
		opts := o.Options(trip.Drive(t), "4.8.21")
		opts.Client, opts.Stores = client, nil
		if change != nil {
			change(&opts)
		}
		return bundle.Pack(t.Context(), opts)
	}
	const path = "/pub/openshift-v4/x86_64/clients/ocp/4.8.21/release.txt "

	res, err := pack(nil)
	if err != nil || asked != path || len(res.Notes) != 1 || res.Releases[0].Text != "" {
		t.Errorf("absent: %v, asked for %q: %+v", err, asked, res)
	}
	answer = "<html>log in</html>"
	if res, err := pack(nil); err != nil || asked != path || len(res.Notes) != 1 {
		t.Errorf("a page: %v, asked for %q: %+v", err, asked, res)
	}
	answer = releaseText(r)
	if res, err := pack(nil); err != nil || len(res.Notes) != 0 || !strings.HasSuffix(res.Releases[0].Text+" ", path) {
		t.Errorf("there: %v: %+v", err, res)
	}
	answer = strings.ReplaceAll(answer, r.Descriptor.Digest.String(), "sha256:"+zeros)
	if _, err := pack(nil); !errors.Is(err, bundle.ErrDisagree) {
		t.Errorf("another digest: %v", err)
	}
	if res, err := pack(func(o *bundle.PackOptions) { o.Texts = []string{} }); err != nil || asked != "" || len(res.Notes) != 0 {
		t.Errorf("none: %v, asked for %q: %+v", err, asked, res)
	}
	if res, err := pack(func(p *bundle.PackOptions) { p.Stores = []string{o.Store} }); err != nil || asked != "" || len(res.Notes) != 1 {
		t.Errorf("a store of one's own: %v, asked for %q: %+v", err, asked, res)
	}
	if res, err := pack(func(p *bundle.PackOptions) { p.Client = o.Client() }); err == nil && asked != "" {
		t.Errorf("a mirror: asked for %q: %+v", asked, res)
	}
}
