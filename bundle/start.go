package bundle

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/objects"
	"pannier/store"
)

// startHere is START-HERE.txt: for a person who finds the drive and knows nothing of it.
func startHere(id digest.Digest, releases []store.Release, dest *objects.Destination) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("This drive carries OpenShift release images into a network without internet.")
	line("It was written by pannier. It is for the administrator of the cluster there.")
	line("")
	line("Bundle %s", id)
	line("")
	line("On it:")
	for _, r := range releases {
		line("  OpenShift %s for %s", r.Version, r.Arch)
		line("    %s@%s", r.Source, r.Descriptor.Digest)
	}
	if len(releases) == 0 {
		line("  images only, no release")
	}
	target := "REGISTRY/REPO"
	if dest != nil {
		target = dest.String()
	}
	line("")
	line("What to do, with the program pannier, from the folder that this file is in:")
	line("")
	line("  1. Prove that everything has arrived:")
	line("       pannier audit .")
	line("  2. Put it into the local registry:")
	line("       pannier unpack . %s", target)
	line("  3. Apply the objects that step 2 prints, and ask for the update with")
	line("     the command that it prints last.")
	line("")
	line("If the releases were signed with a key of your own, add --keyring FILE to both;")
	line("the key must reach you another way than on this drive.")
	line("")
	line("Audit again after every step of the way that copies or rewrites files: a")
	line("scanning kiosk, a copy to another drive, a burnt disc. A copy that looks whole")
	line("may not be; the audit reads every byte.")
	line("")
	line("Without pannier, this checks every file against the list made when the drive")
	line("was sealed (it finds damage, but not files that were added, and it does not")
	line("check the signature of the release):")
	line("  Linux, macOS:  sha256sum -c SHA256SUMS    (macOS: shasum -a 256 -c SHA256SUMS)")
	line("  Windows:       compare Get-FileHash -Algorithm SHA256 FILE with SHA256SUMS")
	line("")
	line("The folder is an OCI image layout: crane, oras, regctl and other tools read it")
	line("too. Nothing on this drive needs to be run, and nothing is secret.")
	return b.String()
}
