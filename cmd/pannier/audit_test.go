package main

import (
	"fmt"
	"strings"
	"testing"

	"pannier/bundle"
	"pannier/verify"
)

func TestFindingsText(t *testing.T) {
	var findings []verify.Finding
	for i := range 47 {
		findings = append(findings, verify.Finding{Kind: verify.KindMissing, Path: fmt.Sprintf("blobs/sha256/%d", i), Detail: "x", Awaited: 1 << 20})
	}
	for i := range 30 {
		findings = append(findings, verify.Finding{Kind: verify.KindCorrupt, Path: fmt.Sprintf("blobs/sha256/c%d", i), Detail: "x"})
	}
	text := findingsText(findings, false)
	if !strings.Contains(text, "missing: 47 blobs (47.0 MiB) not fetched yet") || !strings.Contains(text, "corrupt: and 10 more (-o json lists all)") ||
		strings.Count(text, "\n") != maxShown+2 {
		t.Errorf("%s", text)
	}
	if text = findingsText(findings, true); strings.Count(text, "\n") != len(findings) {
		t.Errorf("with -v: %s", text)
	}
}

func TestVouched(t *testing.T) {
	r := &verify.Report{Releases: []verify.Release{
		{Version: "4.8.21", Arch: "x86_64", Signature: bundle.SignatureVerified},
		{Version: "4.8.22", Arch: "x86_64", Signature: bundle.SignatureMissing},
	}}
	if got := vouched(r); !strings.Contains(got, "NOT verified") || !strings.Contains(got, "4.8.22-x86_64 (missing)") || strings.Contains(got, "4.8.21") {
		t.Error(got)
	}
	r.Releases = r.Releases[:1]
	if got := vouched(r); !strings.Contains(got, "every release is signed") {
		t.Error(got)
	}
}
