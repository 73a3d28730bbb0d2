package remote

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Flavour is the product that a registry is, where it says so. It is good for words, what the
// product calls a thing and where it is created; what a registry can do is tried and not
// concluded from its name.
type Flavour string

// Flavours that are told apart, each by what it answers to /v2/ or by its name.
const (
	FlavourUnknown     Flavour = ""
	FlavourHarbor      Flavour = "Harbor"
	FlavourQuay        Flavour = "Quay"
	FlavourNexus       Flavour = "Nexus"
	FlavourArtifactory Flavour = "Artifactory"
	FlavourGitLab      Flavour = "GitLab"
	FlavourECR         Flavour = "ECR"
	FlavourOpenShift   Flavour = "OpenShift's internal registry"
)

var ecrHost = regexp.MustCompile(`(?i)^[0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9.-]+(:[0-9]+)?$`)

// flavourOf reads an answer of host to /v2/.
func flavourOf(host string, h http.Header) Flavour {
	scheme, params, _ := strings.Cut(h.Get("Www-Authenticate"), " ")
	realm, service := param(params, "realm"), param(params, "service")
	path := ""
	if u, err := url.Parse(realm); err == nil && strings.EqualFold(scheme, "bearer") {
		path = u.Path
	}
	switch {
	case ecrHost.MatchString(host), service == "ecr.amazonaws.com":
		return FlavourECR
	case service == "harbor-registry", strings.HasPrefix(realm, "harbor-registry"):
		return FlavourHarbor
	case h.Get("Gitlab-Container-Registry-Version") != "", strings.HasSuffix(path, "/jwt/auth"):
		return FlavourGitLab
	case strings.HasPrefix(h.Get("Server"), "Nexus/"), strings.HasPrefix(realm, "Sonatype Nexus"):
		return FlavourNexus
	case h.Get("X-Artifactory-Id") != "", h.Get("X-Jfrog-Version") != "", strings.HasPrefix(realm, "Artifactory"):
		return FlavourArtifactory
	case strings.HasSuffix(path, "/openshift/token"):
		return FlavourOpenShift
	case path == "/v2/auth":
		return FlavourQuay
	}
	return FlavourUnknown
}

// param reads a quoted parameter of a challenge.
func param(params, name string) string {
	_, rest, ok := strings.Cut(params, name+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
