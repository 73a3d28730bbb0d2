package remote

import (
	"net/http"
	"testing"
)

func TestFlavour(t *testing.T) {
	for _, row := range []struct {
		host, header, value string
		want                Flavour
	}{
		{"reg", "Www-Authenticate", `Bearer realm="https://reg/service/token",service="harbor-registry"`, FlavourHarbor},
		{"reg", "Www-Authenticate", `Bearer realm="https://reg:8443/v2/auth",service="reg:8443"`, FlavourQuay},
		{"reg", "Www-Authenticate", `BASIC realm="Sonatype Nexus Repository Manager"`, FlavourNexus},
		{"reg", "Server", "Nexus/3.70.1-02 (OSS)", FlavourNexus},
		{"reg", "X-Jfrog-Version", "Artifactory/7.63.14", FlavourArtifactory},
		{"reg", "Www-Authenticate", `Basic realm="Artifactory Realm"`, FlavourArtifactory},
		{"reg", "Www-Authenticate", `Bearer realm="https://git.example/jwt/auth",service="container_registry"`, FlavourGitLab},
		{"reg", "Www-Authenticate", `Bearer realm="https://gitea.example/v2/token",service="container_registry",scope="*"`, FlavourUnknown},
		{"reg", "Www-Authenticate", `Bearer realm="https://apps.example/openshift/token"`, FlavourOpenShift},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com", "", "", FlavourECR},
		{"reg", "Www-Authenticate", `Basic realm="https://x/",service="ecr.amazonaws.com"`, FlavourECR},
		{"reg", "Docker-Distribution-Api-Version", "registry/2.0", FlavourUnknown},
		{"reg", "Www-Authenticate", `Basic realm="/v2/auth"`, FlavourUnknown},
		{"reg", "Www-Authenticate", `Bearer realm="://`, FlavourUnknown},
	} {
		h := http.Header{}
		if row.header != "" {
			h.Set(row.header, row.value)
		}
		if got := flavourOf(row.host, h); got != row.want {
			t.Errorf("%s %s %q: %q, want %q", row.host, row.header, row.value, got, row.want)
		}
	}
}
