package objects

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestDecode(t *testing.T) {
	type doc struct {
		Kind string            `json:"kind"`
		Data map[string]string `json:"data"`
	}
	want := doc{Kind: "ConfigMap", Data: map[string]string{"key": "a\nb\n"}}
	for name, text := range map[string]string{
		"yaml":           "kind: ConfigMap\nother: [1, 2]\ndata:\n  key: |\n    a\n    b\n",
		"json":           `{"kind":"ConfigMap","data":{"key":"a\nb\n"}}`,
		"with a marker":  "---\nkind: ConfigMap\ndata:\n  key: |\n    a\n    b\n",
		"a key twice":    "kind: Pod\nkind: ConfigMap\ndata:\n  key: |\n    a\n    b\n",
		"with a comment": "# text\nkind: ConfigMap\ndata: {key: \"a\\nb\\n\"}\n",
	} {
		var got doc
		if err := Decode([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		ref := fmt.Sprintf("*a%d,", i-1)
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(ref, 10), ","))
	}
	for name, text := range map[string]string{
		"a list":           "- kind: a\n",
		"broken":           "kind: [",
		"another type":     "kind: {a: b}\n",
		"aliases of alias": bomb,
		"too long":         "kind: " + strings.Repeat("a", MaxDocument),
	} {
		if err := Decode([]byte(text), new(doc)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, err)
		}
	}
}

func TestDocuments(t *testing.T) {
	docs, err := Documents([]byte("# only a comment\n---\na: 1\n---\n\n--- # c\nkey: |\n  -----BEGIN\n  ---\n...\n---\nb: 2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 3 {
		t.Fatalf("%d documents: %q", len(docs), docs)
	}
	for i, key := range []string{"a", "key", "b"} {
		got := map[string]any{}
		if err := Decode(docs[i], &got); err != nil {
			t.Errorf("document %d: %v", i, err)
		} else if _, ok := got[key]; !ok {
			t.Errorf("document %d: %v", i, got)
		}
	}
	if docs, err := Documents([]byte(`{"a":1}`)); err != nil || len(docs) != 1 {
		t.Errorf("JSON: %d documents, %v", len(docs), err)
	}
	if _, err := Documents(bytes.Repeat([]byte("---\na: 1\n"), maxDocuments+2)); !errors.Is(err, ErrInvalid) {
		t.Errorf("very many documents: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("kind: ConfigMap\ndata:\n  key: |\n    a\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? {a: b}\n: c\n<<: {d: e}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Documents(data)
		if err != nil {
			return
		}
		for _, doc := range append(docs, data) {
			var v struct {
				Kind       string            `json:"kind"`
				Data       map[string]string `json:"data"`
				BinaryData map[string][]byte `json:"binaryData"`
			}
			if err := Decode(doc, &v); err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestParseDestination(t *testing.T) {
	for text, want := range map[string]Destination{
		"reg:5000/ocp4/openshift4":      {"reg:5000", "ocp4/openshift4"},
		"registry.example/ocp4":         {"registry.example", "ocp4"},
		"127.0.0.1:5000/a_b/c__d-e.f":   {"127.0.0.1:5000", "a_b/c__d-e.f"},
		"[::1]:5000/ocp4/openshift4":    {"[::1]:5000", "ocp4/openshift4"},
		"Registry.Example:443/ocp4/x-y": {"Registry.Example:443", "ocp4/x-y"},
	} {
		got, err := ParseDestination(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%s comes back as %s", text, got)
		}
	}
	for text, why := range map[string]string{
		"":                                "repository is missing",
		"reg:5000":                        "repository is missing",
		"reg:5000/":                       "repository is missing",
		"reg:5000/a/":                     "slash",
		"https://reg:5000/a":              `"https://"`,
		"docker://reg:5000/a":             `"docker://"`,
		"reg:5000/a:tag":                  "tag",
		"reg:5000/a@sha256:abc":           "digest",
		"reg:5000/Upper":                  "lower case",
		"reg:5000/a//b":                   "no repository",
		"/a":                              "no host",
		"re g/a":                          "no host",
		"reg:port/a":                      "no host",
		"reg/a\nb":                        "no repository",
		"reg/" + strings.Repeat("a", 256): "no repository",
	} {
		if _, err := ParseDestination(text); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: error %v, want one about %s", text, err, why)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:5000": true, "a.localhost": true, "127.0.0.1": true, "127.9.9.9:80": true,
		"[::1]:5000": true, "::1": true, "::ffff:127.0.0.1": true, "0.0.0.0:5000": true,
		"registry.example": false, "10.0.0.1:5000": false, "localhost.example": false, "": false, "127.0.0.1.example": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestMirrorSet(t *testing.T) {
	dest, err := ParseDestination("reg.example:5000/ocp4/openshift4")
	if err != nil {
		t.Fatal(err)
	}
	mirrors := MirrorsTo(dest, "quay.io/openshift-release-dev/ocp-v4.0-art-dev", "quay.io/openshift-release-dev/ocp-release",
		"quay.io/openshift-release-dev/ocp-release", dest.String())
	for _, c := range []struct {
		kind Kind
		want string
	}{
		{ICSP, `apiVersion: operator.openshift.io/v1alpha1
kind: ImageContentSourcePolicy
metadata:
  labels:
    app.kubernetes.io/managed-by: pannier
  name: pannier-release
spec:
  repositoryDigestMirrors:
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-release
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-v4.0-art-dev
`},
		{IDMS, `apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata:
  labels:
    app.kubernetes.io/managed-by: pannier
  name: pannier-release
spec:
  imageDigestMirrors:
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-release
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-v4.0-art-dev
`},
		{ITMS, `apiVersion: config.openshift.io/v1
kind: ImageTagMirrorSet
metadata:
  labels:
    app.kubernetes.io/managed-by: pannier
  name: pannier-release
spec:
  imageTagMirrors:
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-release
  - mirrors:
    - reg.example:5000/ocp4/openshift4
    source: quay.io/openshift-release-dev/ocp-v4.0-art-dev
`},
	} {
		o, err := MirrorSet(c.kind, ReleaseName, mirrors)
		if err != nil {
			t.Fatalf("%s: %v", c.kind, err)
		}
		if string(o.YAML) != c.want {
			t.Errorf("%s:\n%s", c.kind, o.YAML)
		}
		if o.Kind != string(c.kind) || o.Name != ReleaseName || o.Namespace != "" || !strings.Contains(c.want, o.APIVersion) {
			t.Errorf("%s: %+v", c.kind, o)
		}
		kind, name, back, err := ParseMirrorSet(o.YAML)
		want := []Mirror{mirrors[1], mirrors[0]}
		if err != nil || kind != c.kind || name != ReleaseName || !reflect.DeepEqual(back, want) {
			t.Errorf("%s comes back as %s %s %+v, %v", c.kind, kind, name, back, err)
		}
	}
}

func TestMirrorSetMerges(t *testing.T) {
	o, err := MirrorSet(IDMS, "a.b-c", []Mirror{
		{"*.example.org", []string{"reg/x"}}, {"a.example", []string{"reg/2", "reg/1"}}, {"a.example", []string{"reg/1", "reg/3", "a.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, back, err := ParseMirrorSet(o.YAML)
	want := []Mirror{{"*.example.org", []string{"reg/x"}}, {"a.example", []string{"reg/2", "reg/1", "reg/3"}}}
	if err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestMirrorSetRefuses(t *testing.T) {
	good := Mirror{"quay.io/a/b", []string{"reg:5000/c"}}
	for _, c := range []struct {
		name    string
		object  string
		kind    Kind
		mirrors []Mirror
		want    error
	}{
		{"a tag in the source", "x", IDMS, []Mirror{{"quay.io/a/b:1", good.Mirrors}}, ErrInvalid},
		{"a digest in the source", "x", ICSP, []Mirror{{"quay.io/a/b@sha256:00", good.Mirrors}}, ErrInvalid},
		{"a scheme", "x", ICSP, []Mirror{{"https://quay.io/a/b", good.Mirrors}}, ErrInvalid},
		{"a slash at the end", "x", ICSP, []Mirror{{"quay.io/a/b/", good.Mirrors}}, ErrInvalid},
		{"upper case", "x", ICSP, []Mirror{{"quay.io/A", good.Mirrors}}, ErrInvalid},
		{"a line break", "x", ICSP, []Mirror{{"quay.io/a\n", good.Mirrors}}, ErrInvalid},
		{"a mirror with a tag", "x", IDMS, []Mirror{{good.Source, []string{"reg:5000/c:1"}}}, ErrInvalid},
		{"a mirror with a star", "x", IDMS, []Mirror{{good.Source, []string{"*.reg"}}}, ErrInvalid},
		{"an empty source", "x", IDMS, []Mirror{{"", good.Mirrors}}, ErrInvalid},
		{"upper case in the name", "X", IDMS, []Mirror{good}, ErrInvalid},
		{"a name of 254", strings.Repeat("a", 254), IDMS, []Mirror{good}, ErrInvalid},
		{"another kind", "x", "Pod", []Mirror{good}, ErrInvalid},
		{"nothing", "x", IDMS, nil, ErrNoMirror},
		{"only itself", "x", IDMS, []Mirror{{"a.example/b", []string{"a.example/b"}}}, ErrNoMirror},
	} {
		if _, err := MirrorSet(c.kind, c.object, c.mirrors); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPreferredKind(t *testing.T) {
	for _, c := range []struct {
		previous []string
		version  string
		want     Kind
	}{
		{nil, "4.8.21", ICSP},
		{[]string{"4.8.20"}, "4.9.0", ICSP},
		{[]string{"4.13.1", "4.12.60"}, "4.13.36", ICSP},
		{[]string{"4.13.1"}, "4.13.36", IDMS},
		{nil, "4.13.36", IDMS},
		{[]string{"4.13.0-rc.1"}, "4.14.0-ec.2", IDMS},
		{[]string{"nonsense", ""}, "4.20.0", IDMS},
		{[]string{"4.22.1"}, "5.0.0", IDMS},
		{nil, "", IDMS},
	} {
		if got := PreferredKind(c.previous, c.version); got != c.want {
			t.Errorf("%s after %v: %s", c.version, c.previous, got)
		}
	}
}

func TestInstallConfig(t *testing.T) {
	mirrors := []Mirror{{"quay.io/a/b", []string{"reg:5000/c"}}}
	for kind, want := range map[Kind]string{
		ICSP: "imageContentSources:\n- mirrors:\n  - reg:5000/c\n  source: quay.io/a/b\n",
		IDMS: "imageDigestSources:\n- mirrors:\n  - reg:5000/c\n  source: quay.io/a/b\n",
	} {
		if got, err := InstallConfig(kind, mirrors); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", kind, got, err)
		}
	}
	if _, err := InstallConfig(ITMS, mirrors); !errors.Is(err, ErrInvalid) {
		t.Errorf("ITMS: %v", err)
	}
}

func TestSignatureConfigMap(t *testing.T) {
	d := digest.FromString("release")
	name := "sha256-" + d.Encoded()
	var sigs [][]byte
	for i := range 11 {
		sigs = append(sigs, []byte{0xa3, 1, byte(i), 0xff})
	}
	o, err := SignatureConfigMap(d, "4.8.21", append(sigs, sigs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if o.APIVersion != "v1" || o.Kind != "ConfigMap" || o.Name != name || o.Namespace != SignatureNamespace {
		t.Errorf("%+v", o)
	}
	var doc struct {
		Metadata struct {
			Name, Namespace     string
			Labels, Annotations map[string]string
		}
		Data       map[string]string
		BinaryData map[string][]byte
	}
	if err := Decode(o.YAML, &doc); err != nil {
		t.Fatal(err)
	}
	if v, ok := doc.Metadata.Labels["release.openshift.io/verification-signatures"]; !ok || v != "" {
		t.Errorf("labels %v", doc.Metadata.Labels)
	}
	if len(doc.BinaryData) != 11 || len(doc.Data) != 0 || !bytes.Equal(doc.BinaryData[name+"-11"], sigs[10]) {
		t.Errorf("entries %v", doc.BinaryData)
	}
	back, err := ParseSignatureConfigMap(o.YAML)
	if err != nil || !reflect.DeepEqual(back, map[digest.Digest][][]byte{d: sigs}) {
		t.Errorf("comes back as %v, %v", back, err)
	}
	again, err := SignatureConfigMap(d, "4.8.21", sigs)
	if err != nil || !bytes.Equal(again.YAML, o.YAML) {
		t.Errorf("not the same twice: %v", err)
	}

	for name, c := range map[string]struct {
		d    digest.Digest
		sigs [][]byte
	}{
		"none":        {d, nil},
		"empty":       {d, [][]byte{{}}},
		"too large":   {d, [][]byte{bytes.Repeat([]byte{1}, 1<<19), bytes.Repeat([]byte{2}, 1<<19+1)}},
		"bad digest":  {"sha256:zz", sigs},
		"sha512":      {digest.NewDigestFromEncoded(digest.SHA512, strings.Repeat("ab", 64)), sigs},
		"path digest": {"sha256:../../x", sigs},
	} {
		if _, err := SignatureConfigMap(c.d, "", c.sigs); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseSignatureConfigMapOfOthers(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	text := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"mirrored-release-signatures","labels":{"release.openshift.io/verification-signatures":""}},
"binaryData":{"sha256-` + a.Encoded() + `":"AQ==","sha256-` + b.Encoded() + `-2":"Ag==","other":"Aw==","sha256-` + b.Encoded()[:63] + `x":"BA=="}}`
	got, err := ParseSignatureConfigMap([]byte(text))
	want := map[digest.Digest][][]byte{a: {{1}}, b: {{2}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"kind: Pod", "kind: ConfigMap", strings.Replace(text, `"AQ=="`, `"!"`, 1)} {
		if _, err := ParseSignatureConfigMap([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReleaseJSON(t *testing.T) {
	info := ReleaseInfo{
		Version: "4.8.21", Arch: "x86_64", Digest: digest.FromString("x"), Image: "reg/a@" + digest.FromString("x").String(),
		Tags: []string{"4.8.21-x86_64"}, Sources: []string{"quay.io/a/b"}, Previous: []string{"4.8.20"},
	}
	raw, err := ReleaseJSON(info)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseReleaseJSON(raw)
	if err != nil || !reflect.DeepEqual(back, []ReleaseInfo{info}) {
		t.Errorf("%+v, %v", back, err)
	}
	if empty, err := ReleaseJSON(); err != nil || !strings.Contains(string(empty), `"releases": []`) {
		t.Errorf("%s, %v", empty, err)
	}
	if _, err := ParseReleaseJSON([]byte(`{"releases":[{"digest":"../x"}]}`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad digest: %v", err)
	}
}

func TestParseKind(t *testing.T) {
	for text, want := range map[string]Kind{"icsp": ICSP, "IDMS": IDMS, "imagetagmirrorset": ITMS} {
		if got, err := ParseKind(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	if _, err := ParseKind("auto"); !errors.Is(err, ErrInvalid) {
		t.Errorf("auto: %v", err)
	}
}
