package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/remote"
)

// TargetError says why a registry, as it is now, will not take what is to be pushed. It wraps
// the registry's own error.
type TargetError struct {
	Err    error
	Remedy string // what to do about it
}

// Error implements error.
func (e *TargetError) Error() string { return e.Err.Error() }

// Unwrap returns the registry's error.
func (e *TargetError) Unwrap() error { return e.Err }

// Target finds out within moments whether a registry will take manifests of the media types
// named, and blobs, in a repository: what it says after hours of pushing it can say now. An
// upload is begun and cancelled, and manifests are put that cannot be stored, because what
// they name is missing; a registry that stores them all the same is asked to remove them.
// What an answer leaves open is left to be seen.
//
// Errors: a [*TargetError], or remote's where nothing can be found out.
func Target(ctx context.Context, repo *remote.Repository, mediaTypes []string) error {
	if err := repo.CheckPush(ctx); err != nil {
		return explain(ctx, repo, err)
	}
	for _, d := range []dialect{docker, oci} {
		if !slices.ContainsFunc(mediaTypes, d.has) {
			continue
		}
		desc, raw, _, err := tinyImage(d, false)
		if err != nil {
			return err
		}
		switch err = repo.PushManifest(ctx, desc, raw, desc.Digest.String()); judge(err) {
		case refused:
			return &TargetError{fmt.Errorf("%s manifests are not taken: %w", d.name, err), d.remedy}
		case barred:
			return explain(ctx, repo, err)
		}
		if err == nil {
			// It does not matter if it stays: it is no tag's, and the same bytes every time.
			_ = repo.DeleteManifest(ctx, desc.Digest)
		}
	}
	return nil
}

// explain adds what to do to a refusal that is about the repository or the account.
func explain(ctx context.Context, repo *remote.Repository, err error) error {
	if ctx.Err() != nil || !errors.Is(err, remote.ErrAuth) && !errors.Is(err, remote.ErrRefused) && !errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrNotRegistry) {
		return err
	}
	flavour := remote.FlavourUnknown
	if g, gerr := repo.Ping(ctx); gerr == nil {
		flavour = g.Flavour
	}
	_, path, _ := strings.Cut(repo.Endpoint(), "/")
	if text := createRemedy(flavour, path, err); text != "" {
		return &TargetError{err, text}
	}
	return err
}

// has reports whether a media type is of the dialect.
func (d dialect) has(mediaType string) bool { return mediaType == d.manifest || mediaType == d.list }

func projectOf(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

// createRemedy is advice for refusals that registries give where what must be made beforehand
// is not there: a project, an organization, a repository; "" for other refusals. Many say
// only "denied" then, as they say to an account without rights.
func createRemedy(flavour remote.Flavour, path string, err error) string {
	var e *remote.Error
	if !errors.As(err, &e) || strings.Contains(err.Error(), "token server") {
		return ""
	}
	if errors.Is(err, remote.ErrQuota) {
		return quotaRemedy(flavour, path)
	}
	denied := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	if !denied && e.Status != http.StatusNotFound && e.Code != "NAME_UNKNOWN" && e.Code != "NAME_INVALID" {
		return ""
	}
	create := creates(flavour, path)
	if denied {
		return create + " if it does not exist (several registries say only \"denied\" then); otherwise give the account of the pull secret the right to push there, or give another with -a"
	}
	return create + ", or choose another with REGISTRY/REPO"
}

// creates says what must be made at a registry before a path can be pushed to, in the words of
// the product.
func creates(flavour remote.Flavour, path string) string {
	first, depth := projectOf(path), strings.Count(path, "/")+1
	switch flavour {
	case remote.FlavourHarbor:
		return fmt.Sprintf("create the project %q in Harbor (repositories below it come by themselves; a robot account of the project is called robot$%s+NAME)", first, first)
	case remote.FlavourQuay:
		text := fmt.Sprintf("create the organization %q in Quay, with a robot account that may create repositories (%s+NAME), or let Quay do so (CREATE_NAMESPACE_ON_PUSH)", first, first)
		if depth > 2 {
			text += "; before 3.6 Quay takes paths of two segments only"
		}
		return text
	case remote.FlavourNexus:
		return "create a docker (hosted) repository in Nexus and use the port of its connector in REGISTRY; without path-based routing the repository's own name is no part of REPO"
	case remote.FlavourArtifactory:
		return fmt.Sprintf("create the local Docker repository %q in Artifactory: the first segment of the path is its key", first)
	case remote.FlavourGitLab:
		return fmt.Sprintf("create the GitLab project that %q lies in: REPO is its path, GROUP/PROJECT, or lies below it; the account needs the right write_registry there", path)
	case remote.FlavourECR:
		return fmt.Sprintf("create the repository %q (aws ecr create-repository --repository-name %s): ECR makes none by itself", path, path)
	case remote.FlavourOpenShift:
		return fmt.Sprintf("create the namespace %q, and use a path of two segments; better, use another registry: this one stops while its own cluster is updated", first)
	}
	return fmt.Sprintf("create the project, organization or repository %q at the registry", first)
}

func quotaRemedy(flavour remote.Flavour, path string) string {
	switch flavour {
	case remote.FlavourHarbor:
		return fmt.Sprintf("raise the storage quota of the project %q in Harbor, or remove what is not needed there and let garbage be collected", projectOf(path))
	case remote.FlavourQuay:
		return fmt.Sprintf("raise the storage quota of the organization %q in Quay, or remove what is not needed there", projectOf(path))
	}
	return "raise the quota, or free space at the registry (what was removed is often kept until garbage is collected)"
}

var (
	docker = dialect{"Docker schema 2", content.MediaTypeDockerManifest, content.MediaTypeDockerList, content.MediaTypeDockerConfig, content.MediaTypeDockerLayer,
		`let the registry take Docker schema 2 manifests, as release images are (zot: "http": {"compat": ["docker2s2"]} in its configuration, then restart it); they cannot be converted without changing the digests that the cluster asks for`}
	oci = dialect{"OCI", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip,
		"use a registry that takes OCI manifests (Quay from 3.6, Nexus from 3.71, Harbor from 2.0): sigstore signatures, which the cluster wants from 4.21 on, are of that kind"}
)
