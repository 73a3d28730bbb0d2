package signature

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseClaims(t *testing.T) {
	d := wanted.String()
	atomic := func(critical, rest string) string { return `{"critical": {` + critical + `}` + rest + `}` }
	image := fmt.Sprintf(`"image": {"docker-manifest-digest": %q}`, d)
	const kind, identity = `"type": "atomic container signature"`, `"identity": {"docker-reference": "a/b:1"}`
	whole := kind + "," + image + "," + identity

	for _, c := range []struct {
		name, text string
		says       string // "" if it is accepted
	}{
		{"as Red Hat writes it", atomic(whole, `, "optional": {"creator": "Red Hat"}`), ""},
		{"with time, other order", `{"optional": {"timestamp": 1700000000}, "critical": {` + identity + "," + kind + "," + image + `}}` + " \n", ""},
		{"without optional", atomic(whole, ""), ""},
		{"optional null", atomic(whole, `, "optional": null`), ""},

		{"empty", "", "not one JSON value"},
		{"no object", `"critical"`, "not an object"},
		{"null", `null`, "not an object"},
		{"two values", atomic(whole, "") + "{}", "not one JSON value"},
		{"text behind", atomic(whole, "") + "x", "not one JSON value"},
		{"broken UTF-8", atomic(strings.Replace(whole, "a/b", "a/\xff", 1), ""), "not one JSON value"},
		{"unknown field", atomic(whole, `, "extra": 1`), `unknown field "extra"`},
		{"unknown field in critical", atomic(whole+`, "extra": 1`, ""), "unknown field"},
		{"unknown field in image", atomic(strings.Replace(whole, `"docker-m`, `"x": 1, "docker-m`, 1), ""), "unknown field"},
		{"unknown field in identity", atomic(strings.Replace(whole, `"docker-r`, `"x": 1, "docker-r`, 1), ""), "unknown field"},
		{"unknown field in optional", atomic(whole, `, "optional": {"x": 1}`), "unknown field"},
		{"other capitals", strings.Replace(atomic(whole, ""), "critical", "Critical", 1), "unknown field"},
		{"critical twice", atomic(whole, `, "critical": {`+whole+`}`), "stands twice"},
		{"digest twice", atomic(strings.Replace(whole, `{"docker-m`, `{"docker-manifest-digest": "x", "docker-m`, 1), ""), "stands twice"},
		{"twice by escape", atomic(whole+`, "ty\u0070e": "x"`, ""), "stands twice"},
		{"critical missing", `{"optional": null}`, "critical: malformed: missing"},
		{"type missing", atomic(image+","+identity, ""), "its type"},
		{"type of sigstore", strings.Replace(atomic(whole, ""), "atomic container", "cosign container image", 1), "its type"},
		{"type with a blank", strings.Replace(atomic(whole, ""), "signature\"", "signature \"", 1), "its type"},
		{"type null", strings.Replace(atomic(whole, ""), `"atomic container signature"`, "null", 1), "its type"},
		{"image missing", atomic(kind+","+identity, ""), "image: malformed: missing"},
		{"image a list", atomic(kind+","+identity+`, "image": []`, ""), "not an object"},
		{"digest missing", atomic(kind+","+identity+`, "image": {}`, ""), "docker-manifest-digest"},
		{"digest a number", atomic(kind+","+identity+`, "image": {"docker-manifest-digest": 1}`, ""), "not a string"},
		{"digest too short", strings.Replace(atomic(whole, ""), d, d[:20], 1), "no SHA-256"},
		{"digest in capitals", strings.Replace(atomic(whole, ""), d, "sha256:"+strings.ToUpper(d[7:]), 1), "no SHA-256"},
		{"SHA-512", strings.Replace(atomic(whole, ""), d, "sha512:"+d[7:]+d[7:], 1), "no SHA-256"},
		{"reference empty", strings.Replace(atomic(whole, ""), "a/b:1", "", 1), "docker-reference of 0 bytes"},
		{"reference missing", atomic(kind+","+image+`, "identity": {}`, ""), "docker-reference"},
		{"reference too long", strings.Replace(atomic(whole, ""), "a/b:1", strings.Repeat("a", 2000), 1), "2000 bytes"},
		{"creator a number", atomic(whole, `, "optional": {"creator": 1}`), "creator"},
		{"time a text", atomic(whole, `, "optional": {"timestamp": "now"}`), "timestamp"},
		{"time a fraction", atomic(whole, `, "optional": {"timestamp": 1.5}`), "timestamp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseClaims([]byte(c.text), typeAtomic)
			if c.says == "" {
				if err != nil || got.Digest != wanted || got.Reference != "a/b:1" {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %+v, error %v; want ErrMalformed saying %q", got, err, c.says)
			}
		})
	}
}
