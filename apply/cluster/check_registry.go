package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"pannier/bundle/content"
	"pannier/bundle/objects"
)

const noRegistry = "no registry is named"

// checkPullSecret looks whether the nodes can log in at the registry. The secret itself is
// read, used and forgotten; nothing of it is told.
func checkPullSecret(ctx context.Context, in *inspection) Check {
	reg, ok := in.registry()
	if !ok {
		return skip(noRegistry)
	}
	var s secret
	if err := in.c.get(ctx, secrets, "openshift-config", "pull-secret", &s); err != nil && !isNotFound(err) {
		return unseen(err)
	}
	raw := s.Data[".dockerconfigjson"]
	key, err := credentialFor(raw, reg.String())
	if err != nil {
		return fail("the cluster's pull secret is not readable as JSON", "repair secret pull-secret in openshift-config")
	}
	remedy := "add an entry for " + reg.Registry + ": oc -n openshift-config get secret pull-secret, then oc set data secret/pull-secret -n openshift-config --from-file=.dockerconfigjson=FILE"
	text := "the cluster's pull secret has no entry for " + reg.String()
	if key != "" {
		text = "the cluster's pull secret has the entry " + quote(key)
	}
	switch {
	case in.opts.Pull != nil:
		if err := in.opts.Pull(ctx, raw); err != nil {
			return fail(text+"; reading from the registry with it failed: "+err.Error(), remedy)
		}
		return pass(text + "; reading from the registry with it works")
	case key == "":
		return warn(text+"; that is enough only if the registry lets anybody read", remedy)
	}
	return pass(text + "; it was not tried, since nodes know the registry by another name than this machine")
}

// credentialFor is the key of the entry that serves a repository: the longest that is it or
// stands above it.
func credentialFor(raw []byte, repository string) (string, error) {
	var doc struct {
		Auths map[string]struct {
			Auth     string `json:"auth"`
			Username string `json:"username"`
			Identity string `json:"identitytoken"`
			Token    string `json:"registrytoken"`
		} `json:"auths"`
	}
	if len(raw) == 0 {
		return "", nil
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", errors.New("invalid") // the text of the error may hold a part of the secret
	}
	best := ""
	for key, e := range doc.Auths {
		if e.Auth == "" && e.Username == "" && e.Identity == "" && e.Token == "" {
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "/"), "/v1"), "/v2")
		if (repository == name || strings.HasPrefix(repository, name+"/")) && len(key) > len(best) {
			best = key
		}
	}
	return best, nil
}

// covers reports whether an entry of registrySources means a repository.
func covers(entry, repository string) bool {
	host, _, _ := strings.Cut(repository, "/")
	return entry == repository || entry == host || nested(repository, entry)
}

func checkRegistrySources(ctx context.Context, in *inspection) Check {
	reg, ok := in.registry()
	if !ok {
		return skip(noRegistry)
	}
	conf, err := in.imageConfig(ctx)
	if err != nil {
		return unseen(err)
	}
	is := func(entry string) bool { return covers(entry, reg.String()) }
	src := conf.Spec.RegistrySources
	switch {
	case slices.ContainsFunc(src.Blocked, is):
		return fail("image.config/cluster blocks "+reg.Registry, "take it out of spec.registrySources.blockedRegistries")
	case len(src.Allowed) > 0 && !slices.ContainsFunc(src.Allowed, is):
		return fail("image.config/cluster allows only "+names(slices.Clone(src.Allowed)), "add "+reg.Registry+" to spec.registrySources.allowedRegistries")
	}
	return pass("image.config/cluster lets nodes use " + reg.Registry)
}

// checkCertificate compares the certificate that the registry shows with what nodes trust.
func checkCertificate(ctx context.Context, in *inspection) Check {
	reg, ok := in.registry()
	if !ok {
		return skip(noRegistry)
	}
	conf, err := in.imageConfig(ctx)
	if err != nil {
		return unseen(err)
	}
	insecure := slices.ContainsFunc(conf.Spec.RegistrySources.Insecure, func(e string) bool { return covers(e, reg.String()) })
	host, _, err := net.SplitHostPort(reg.Registry)
	address := reg.Registry
	if err != nil {
		host, address = strings.Trim(reg.Registry, "[]"), net.JoinHostPort(strings.Trim(reg.Registry, "[]"), "443")
	}
	shake := in.opts.Handshake
	if shake == nil {
		shake = handshake
	}
	state, err := shake(ctx, address)
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain) && insecure:
		return warn(reg.Registry+" speaks no TLS, and image.config/cluster lists it as insecure", "give the registry a certificate")
	case errors.As(err, &plain):
		return fail(reg.Registry+" speaks no TLS", "give the registry a certificate, or add it to spec.registrySources.insecureRegistries of image.config/cluster")
	case err != nil:
		return warn("the registry could not be reached by the name that the nodes use, from here: "+err.Error(), "check on a node: curl -v https://"+reg.Registry+"/v2/")
	case len(state.PeerCertificates) == 0:
		return warn("the registry shows no certificate", "")
	}
	roots, from, problem := in.trust(ctx, conf, reg.Registry)
	opts := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: in.now}
	for _, cert := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err = state.PeerCertificates[0].Verify(opts)
	switch {
	case err == nil:
		return pass("the certificate of " + reg.Registry + " is trusted (" + strings.Join(from, ", ") + ")")
	case insecure:
		return warn("the certificate of "+reg.Registry+" is not trusted, but image.config/cluster lists it as insecure: "+err.Error(), "let the cluster trust the registry's authority instead")
	case problem != nil:
		return warn("whether nodes trust the certificate of "+reg.Registry+" is not known: "+problem.Error(), "check on a node: curl -v https://"+reg.Registry+"/v2/")
	}
	return fail("nodes do not trust the certificate of "+reg.Registry+": "+err.Error(),
		fmt.Sprintf("oc -n openshift-config create configmap registry-ca --from-file=%s=CA.crt, then name it in spec.additionalTrustedCA of image.config/cluster", trustKey(reg.Registry)))
}

// trustKey is the key of a registry in the ConfigMap of authorities: no colons there.
func trustKey(registry string) string { return strings.ReplaceAll(registry, ":", "..") }

// trust collects what nodes trust for a registry. problem says what could not be read.
func (in *inspection) trust(ctx context.Context, conf *imageConfig, registry string) (roots *x509.CertPool, from []string, problem error) {
	roots, from = in.systemRoots(), []string{"system"}
	add := func(name string, keys ...string) {
		if name == "" {
			return
		}
		var cm configMap
		if err := in.c.get(ctx, configMaps, "openshift-config", name, &cm); err != nil {
			if !isNotFound(err) {
				problem = err
			}
			return
		}
		for _, key := range keys {
			if roots.AppendCertsFromPEM([]byte(cm.Data[key])) {
				from = append(from, "ConfigMap "+name)
			}
		}
	}
	add(conf.Spec.AdditionalTrustedCA.Name, registry, trustKey(registry))
	var proxy proxyConfig
	if err := in.c.get(ctx, proxies, "", "cluster", &proxy); err != nil && !isNotFound(err) {
		problem = err
	}
	add(proxy.Spec.TrustedCA.Name, "ca-bundle.crt")
	return roots, from, problem
}

// systemRoots are the authorities that a machine trusts of its own.
func (in *inspection) systemRoots() *x509.CertPool {
	if in.opts.Roots != nil {
		return in.opts.Roots.Clone()
	}
	if system, err := x509.SystemCertPool(); err == nil {
		return system
	}
	return x509.NewCertPool()
}

// handshake connects without judging the certificate: that is done with what nodes trust.
func handshake(ctx context.Context, address string) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// checkMirrorSets looks for mirror sets that cannot stand together, among themselves and with
// the ones that the release needs.
func checkMirrorSets(ctx context.Context, in *inspection) Check {
	s, err := in.c.surroundings(ctx)
	if err != nil {
		return unseen(err)
	}
	all := s.all()
	for i, a := range all {
		for _, b := range all[i+1:] {
			for _, e := range a.entries {
				for _, f := range b.entries {
					if e.Source == f.Source && e.policy() != f.policy() {
						return fail(fmt.Sprintf("%s and %s disagree on mirrorSourcePolicy for %s: the machine-config operator takes up no mirror set at all", a, b, e.Source), "give both the same mirrorSourcePolicy")
					}
				}
			}
		}
	}
	var notes []string
	if t := in.opts.Target; t != nil && len(t.pairs()) > 0 {
		want := mirrorSet{kind: objects.IDMS, meta: meta{Name: objects.ReleaseName}}
		for _, p := range t.pairs() {
			want.entries = append(want.entries, mirrorEntry{Source: p.source, Mirrors: []string{p.mirror}})
		}
		_, covered := s.coveredBy(want)
		more, policy, hidden := s.collisions(want)
		if hidden != nil {
			return fail(hidden.Error(), "see the message")
		}
		if policy != nil && !covered {
			return fail(policy.Error(), "see the message")
		}
		if !covered {
			notes = more
		}
	}
	if len(s.sets[objects.ICSP]) > 0 && len(s.sets[objects.IDMS])+len(s.sets[objects.ITMS]) > 0 && !s.together() {
		notes = append(notes, "ImageContentSourcePolicy and younger mirror sets exist together; some clusters below 4.15 then take up none of them: see the log of the machine-config-controller")
	}
	if len(notes) > 0 {
		return warn(strings.Join(notes, "; "), "")
	}
	return pass(content.Plural(len(all), "mirror set", "mirror sets") + ", no conflict")
}

// checkSigstore asks for sigstore signatures at the mirror where the cluster, or the one that
// it is to become, will not run images without.
func checkSigstore(ctx context.Context, in *inspection) Check {
	t := in.opts.Target
	if t == nil {
		return skip("no release is named")
	}
	type policy struct {
		Metadata meta `json:"metadata"`
		Spec     struct {
			Scopes []string `json:"scopes"`
		} `json:"spec"`
	}
	all, err := list[policy](ctx, in.c, imagePolicies, "", "")
	if err != nil && !isNotFound(err) {
		return unseen(err)
	}
	var by []string
	for _, p := range all {
		if slices.ContainsFunc(p.Spec.Scopes, func(scope string) bool {
			return slices.ContainsFunc(t.Sources, func(s string) bool { return covers(scope, s) })
		}) {
			by = append(by, "ClusterImagePolicy "+p.Metadata.Name)
		}
	}
	if v, ok := parseVersion(t.Version); ok && !v.before(4, 21) {
		by = append(by, "the release itself, as all from 4.21 on")
	}
	if len(by) == 0 {
		return pass("nothing asks for sigstore signatures of this release")
	}
	if in.opts.Unsigned == nil {
		return skip("sigstore signatures are asked for by " + names(by) + "; the registry was not asked for them")
	}
	unsigned, err := in.opts.Unsigned(ctx)
	switch {
	case errors.Is(err, ErrNotThere):
		return skip("sigstore signatures are asked for by " + names(by) + "; the release is not at the registry yet, and unpack brings those that the drive has")
	case err != nil:
		return fail("the registry was asked for sigstore signatures: "+err.Error(), "run it again when the registry answers")
	case len(unsigned) > 0:
		return fail(fmt.Sprintf("sigstore signatures are asked for by %s, and the registry lacks those of %s", names(by), names(unsigned)), "pack the release again with a pannier that carries them, and unpack")
	}
	return pass("sigstore signatures are asked for by " + names(by) + ", and the registry has them")
}
