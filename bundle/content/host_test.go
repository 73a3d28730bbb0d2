package content

import "testing"

func TestCheckHost(t *testing.T) {
	for s, want := range map[string]string{
		"quay.io": "", "localhost:5000": "", "reg.example.com:1": "", "[::1]:65535": "", "[fe80::1]": "", "10.0.0.1:5000": "", "A-b": "",
		"":                             `"" is no host`,
		"a_b":                          `"a_b" is no host`,
		"-a":                           `"-a" is no host`,
		"a..b":                         `"a..b" is no host`,
		"a:":                           `"a:" is no host`,
		"a:b":                          `"a:b" is no host`,
		"u@a":                          `"u@a" is no host`,
		"::1":                          `"::1" is no host`,
		"[::1":                         `"[::1" is no host`,
		"a:0":                          "port 0 is none of 1 to 65535",
		"a:65536":                      "port 65536 is none of 1 to 65535",
		"[::1]:9999999999999999999999": "port 9999999999999999999999 is none of 1 to 65535",
	} {
		if err := CheckHost(s); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
}
