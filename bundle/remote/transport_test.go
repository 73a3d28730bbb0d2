package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pannier/bundle/content"
)

// testProxy is a forward proxy and a CONNECT proxy that knows hosts by a table.
type testProxy struct {
	*httptest.Server
	mu     sync.Mutex
	hosts  map[string]string // host:port -> address
	refuse int               // status for CONNECT, 0 lets through
	seen   []string
}

func newProxy(t *testing.T, hosts map[string]string) *testProxy {
	p := &testProxy{hosts: hosts}
	p.Server = serve(t, p.handle)
	return p
}

func (p *testProxy) handle(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.Host)
	to, refuse := p.hosts[r.Host], p.refuse
	p.mu.Unlock()
	if refuse != 0 {
		w.WriteHeader(refuse)
		return
	}
	if to == "" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if r.Method == http.MethodConnect {
		up, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			up.Close()
			return
		}
		go func() { io.Copy(up, buf); up.Close() }()
		go func() { io.Copy(down, up); down.Close() }()
		return
	}
	r.RequestURI, r.URL.Host = "", to
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

func (p *testProxy) use() func(*http.Request) (*url.URL, error) {
	u, _ := url.Parse(p.URL)
	u.User = url.UserPassword("proxyuser", "proxysecret")
	return http.ProxyURL(u)
}

// TestNoAuthorizationForOtherHosts redirects to a subdomain, another port and another host.
func TestNoAuthorizationForOtherHosts(t *testing.T) {
	b, desc := randomBlob(1000)
	for _, to := range []string{"cdn01.quay.test", "quay.test:8080", "other.test"} {
		t.Run(to, func(t *testing.T) {
			var leaked []string
			cdn := serve(t, func(w http.ResponseWriter, r *http.Request) {
				for _, k := range []string{"Authorization", "Cookie", "Referer"} {
					if v := r.Header.Get(k); v != "" {
						leaked = append(leaked, k+" "+v)
					}
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			})
			reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if u, _, _ := r.BasicAuth(); u != "me" && r.URL.Path != "/v2/" {
					w.Header().Set("Www-Authenticate", `Basic realm="x"`)
					w.WriteHeader(401)
					return
				}
				http.Redirect(w, r, "http://"+to+"/blob?X-Signature=s3cret", http.StatusFound)
			})
			p := newProxy(t, map[string]string{"quay.test": hostOf(reg), to: hostOf(cdn)})
			r := newRepo(t, Options{Insecure: true, Proxy: p.use(), AuthFiles: []string{authFileFor(t, "quay.test", "me:p")}}, "quay.test/a/b")
			got, err := content.ReadAll(testContext(t), r, desc, 10000)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatal(err)
			}
			if len(leaked) > 0 {
				t.Errorf("leaked: %v", leaked)
			}
			var hosts []string
			for _, c := range r.c.Contacts() {
				hosts = append(hosts, c.Why+" "+c.Host)
				if c.Proxy != hostOf(p.Server) {
					t.Errorf("contact %+v, through the proxy %s", c, hostOf(p.Server))
				}
			}
			if want := []string{"redirect " + to, "registry quay.test"}; !slices.Equal(slices.Sorted(slices.Values(hosts)), want) {
				t.Errorf("contacts %v", hosts)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	p := newProxy(t, map[string]string{"example.com:443": hostOf(s)}) // the name in httptest's certificate
	start := time.Now()
	for name, row := range map[string]struct {
		opts Options
		repo string
		want error
	}{
		"unknown authority":             {Options{}, hostOf(s) + "/a", ErrCertificate},
		"authority given":               {Options{CAFiles: []string{ca}}, hostOf(s) + "/a", ErrNotFound},
		"insecure":                      {Options{Insecure: true}, hostOf(s) + "/a", ErrNotFound},
		"insecure for this host":        {Options{Insecure: true, InsecureHosts: []string{"127.0.0.1"}}, hostOf(s) + "/a", ErrNotFound},
		"insecure for another host":     {Options{Insecure: true, InsecureHosts: []string{"127.0.0.1:1"}}, hostOf(s) + "/a", ErrCertificate},
		"through CONNECT":               {Options{CAFiles: []string{ca}, Proxy: p.use()}, "example.com/a", ErrNotFound},
		"through CONNECT, no authority": {Options{Proxy: p.use()}, "example.com/a", ErrCertificate},
	} {
		_, err := newRepo(t, row.opts, row.repo).Resolve(testContext(t), "x")
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "proxysecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("permanent errors took %s", d)
	}
	if _, err := New(Options{CAFiles: []string{write(t, "x.pem", "nothing")}}); err == nil {
		t.Error("a CA file without certificates was taken")
	}
}

// TestOddAnswersOfAGoodHost asks a name with several machines behind it, one of which is set
// up wrongly, and a resolver that is away for a while: none of that is for good.
func TestOddAnswersOfAGoodHost(t *testing.T) {
	b, desc := randomBlob(1000)
	good := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(good.Close)
	plain := httptest.NewServer(good.Config.Handler)
	t.Cleanup(plain.Close)
	alert := httptest.NewUnstartedServer(good.Config.Handler)
	alert.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("no") }}
	alert.Config.ErrorLog = log.New(io.Discard, "", 0)
	alert.StartTLS()
	t.Cleanup(alert.Close)
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw})))
	for name, row := range map[string]struct {
		at    string // host:port that is dialled instead, "" fails to resolve
		first error  // what it is if the host never answered
	}{
		"plain http":          {hostOf(plain), ErrPlainHTTP},
		"TLS alert":           {hostOf(alert), ErrUnreachable},
		"DNS":                 {"", ErrUnreachable},
		"another certificate": {hostOf(good), ErrCertificate}, // for a name that it does not have
	} {
		for _, answered := range []bool{true, false} {
			c := newClient(t, Options{CAFiles: []string{ca}})
			dials := 0
			var d net.Dialer
			c.verified.DisableKeepAlives = true
			c.verified.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials++; answered && dials != 2 {
					return d.DialContext(ctx, network, hostOf(good))
				}
				if row.at == "" {
					return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: addr, IsTemporary: true}}
				}
				return d.DialContext(ctx, network, row.at)
			}
			c.verified.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error {
				if name == "another certificate" && (!answered || dials == 2) {
					return &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: good.Certificate(), Host: "example.com"}}
				}
				return nil
			}
			r, err := c.Repository("example.com/a/b") // the name in httptest's certificate
			if err != nil {
				t.Fatal(err)
			}
			if answered {
				if _, err := content.ReadAll(testContext(t), r, desc, 1<<20); err != nil {
					t.Fatal(err)
				}
			}
			_, err = content.ReadAll(testContext(t), r, desc, 1<<20)
			if answered && err != nil || !answered && !errors.Is(err, row.first) {
				t.Errorf("%s, answered before %v: %v", name, answered, err)
			}
			if answered && dials < 3 {
				t.Errorf("%s: only %d connections, it was not met", name, dials)
			}
		}
	}
}

func TestPlainHTTPNeedsPermission(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) })
	p := newProxy(t, map[string]string{"plain.test:5000": hostOf(s)})
	_, err := newRepo(t, Options{Proxy: p.use()}, "plain.test:5000/a").Resolve(testContext(t), "x")
	if !errors.Is(err, ErrPlainHTTP) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("without: %v", err)
	}
	_, err = newRepo(t, Options{Proxy: p.use(), Insecure: true}, "plain.test:5000/a").Resolve(testContext(t), "x")
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("with: %v", err)
	}
}

func TestProxyRefuses(t *testing.T) {
	for status, want := range map[int]error{407: ErrAuth, 403: ErrRefused, 502: ErrUnreachable} {
		p := newProxy(t, nil)
		p.refuse = status
		_, err := newRepo(t, Options{Proxy: p.use()}, "registry.test/a").Resolve(testContext(t), "x")
		if !errors.Is(err, want) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	closed := l.Addr().String()
	l.Close()
	for name, host := range map[string]string{"refused": closed, "no such name": "registry.invalid", "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := New(Options{}) // at the real pace
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Repository(host + "/a/b")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = r.Resolve(testContext(t), "x")
			if d := time.Since(start); !errors.Is(err, ErrUnreachable) || d > 20*time.Second {
				t.Errorf("after %s: %v", d, err)
			}
		})
	}
}

func TestSlowFirstAnswer(t *testing.T) {
	// A registry that takes its time for the first answer is not taken for a dead one.
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			time.Sleep(300 * time.Millisecond)
		}
		w.WriteHeader(404)
	})
	c := newClient(t, Options{})
	c.timing.dial = 50 * time.Millisecond
	r, err := c.Repository(hostOf(s) + "/a")
	if err != nil {
		t.Fatal(err)
	}
	r.host.scheme = "http"
	if _, err := r.Resolve(testContext(t), "x"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestConfined(t *testing.T) {
	b, desc := randomBlob(1000)
	local := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
	_, port, _ := net.SplitHostPort(hostOf(local))
	var location string
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasPrefix(location, "realm "):
			w.Header().Set("Www-Authenticate", `Bearer realm="`+location[6:]+`"`)
			w.WriteHeader(401)
		default:
			http.Redirect(w, r, location, http.StatusTemporaryRedirect)
		}
	})
	p := newProxy(t, map[string]string{"registry.test": hostOf(reg)})
	// The registry is reached by proxy, so that only what it names can be local; other
	// hosts are dialled directly.
	proxy := func(r *http.Request) (*url.URL, error) {
		if r.URL.Host == "registry.test" {
			return p.use()(r)
		}
		return nil, nil
	}
	for _, to := range []string{"http://127.0.0.1:" + port + "/x", "http://localhost:" + port + "/x", "http://[::1]:" + port + "/x", "http://169.254.169.254/latest",
		"http://0.0.0.0:" + port + "/x", "http://[::ffff:127.0.0.1]:" + port + "/x", "http://[64:ff9b::7f00:1]:" + port + "/x"} {
		for _, kind := range []string{"", "realm "} {
			location = kind + to
			r := newRepo(t, Options{Insecure: true, Proxy: proxy, Confined: true}, "registry.test/a/b")
			_, err := content.ReadAll(testContext(t), r, desc, 10000)
			if !errors.Is(err, ErrConfined) || !errors.Is(err, ErrRefused) {
				t.Errorf("%s%s: %v", kind, to, err)
			}
			if n := len(r.c.Contacts()); n != 1 {
				t.Errorf("%s%s: contacts %v", kind, to, r.c.Contacts())
			}
		}
	}
	location = "http://127.0.0.1:" + port + "/x"
	// Not confined, or itself on this machine: allowed.
	for name, r := range map[string]*Repository{
		"not confined":       newRepo(t, Options{Insecure: true, Proxy: proxy}, "registry.test/a/b"),
		"the registry is so": newRepo(t, Options{Confined: true}, hostOf(reg)+"/a/b"),
	} {
		if _, err := content.ReadAll(testContext(t), r, desc, 10000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	_, desc := randomBlob(1000)
	var s *httptest.Server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/loop/"):
			http.Redirect(w, r, s.URL+r.URL.Path+"x", http.StatusFound)
		case r.Method == http.MethodPost:
			http.Redirect(w, r, s.URL+"/elsewhere", http.StatusMovedPermanently)
		default:
			http.Redirect(w, r, "ftp://h.example/x?sig=s3cret", http.StatusFound)
		}
	})
	c := newClient(t, Options{})
	for name, ask := range map[string]func(*Repository) error{
		"loop":   func(r *Repository) error { return second(r.Fetch(testContext(t), desc, 0)) },
		"ftp":    func(r *Repository) error { return second(r.Fetch(testContext(t), desc, 0)) },
		"method": func(r *Repository) error { return r.CheckPush(testContext(t)) },
	} {
		r, err := c.Repository(hostOf(s) + "/" + name + "/b")
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(r); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
