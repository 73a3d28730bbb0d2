package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/objects"
	"pannier/store"
)

// startHere is START-HERE.txt: for a person who finds the drive and knows nothing of it. It
// depends on nothing but what is on the drive, so that packing nothing new changes nothing;
// when that was, the seal says.
func startHere(id digest.Digest, idx *ocispec.Index, releases []store.Release, dest *objects.Destination) string {
	if slices.ContainsFunc(idx.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType == ArtifactSupplement }) {
		return startSupplement(id)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("This drive carries OpenShift release images into a network without internet.")
	line("It was written by pannier. It is for the administrator of the cluster there.")
	line("")
	line("Bundle %s", id)
	line("When it was packed, and by which version of pannier, is in the last of")
	line("pannier/seal-*.json.")
	line("")
	line("On it:")
	for _, r := range releases {
		line("  OpenShift %s for %s", r.Version, r.Arch)
		line("    %s", r.Source)
		line("    %s", r.Descriptor.Digest)
	}
	for _, d := range idx.Manifests {
		// Images of no release are named by their full reference.
		if name := d.Annotations[ocispec.AnnotationRefName]; strings.Contains(name, "/") {
			line("  the image %s", name)
			line("    %s", d.Digest)
		}
	}
	line("")
	line("What to do, with the program pannier, from the folder that this file is in:")
	line("")
	line("  1. Prove that everything has arrived:")
	line("       pannier audit .")
	line("  2. Put it into the local registry; FILE is a pull secret for it:")
	if dest == nil {
		line("       pannier unpack . REGISTRY/REPO -a FILE")
		line("     REGISTRY/REPO is like registry.example:5000/ocp4/openshift4.")
	} else {
		line("       pannier unpack . %s -a FILE", dest)
	}
	line("     To save the objects that it prints, add --objects-dir DIR, with DIR a")
	line("     folder that is not on this drive.")
	line("  3. Apply the objects of step 2, those and no others: the files in")
	line("     pannier/objects are for reading.")
	update := "the command that step 2 prints last"
	if len(releases) > 1 {
		update = "the commands that step 2 prints last, as it says there"
	}
	line("  4. Ask the cluster for the update with\n     %s.", update)
	line("")
	line("\"pannier preflight\" says what is not ready yet; \"pannier apply\" and")
	line("\"pannier upgrade\" do steps 3 and 4 with their checks.")
	line("")
	line("If step 1 says that the drive is damaged, mount it for writing and type:")
	line("       pannier audit --repair .")
	line("")
	line("If the releases were signed with a key of your own, add --keyring FILE to")
	line("both; the key must reach you another way than on this drive.")
	line("")
	line("The folder pannier/clients, if there is one, has oc and openshift-install")
	line("for the platforms that are named there, out of the release itself. Once")
	line("the audit has proved them, copy and run them (on Linux and macOS after")
	line("chmod +x).")
	line("")
	line("Audit again after every step of the way that copies or rewrites files: a")
	line("scanning kiosk, a copy to another drive, a burnt disc. A copy that looks")
	line("whole may not be; the audit reads every byte.")
	line("")
	line("Without pannier, this checks every file against the list made when the drive")
	line("was sealed. It finds damage, but not files that were added, and it does not")
	line("check the signature of the release.")
	line("  Linux:    sha256sum -c --quiet SHA256SUMS && echo whole")
	line("  macOS:    shasum -a 256 -c SHA256SUMS")
	line("  Windows, in PowerShell:")
	line("    $n = 0; $bad = 0")
	line("    foreach ($line in Get-Content SHA256SUMS) {")
	line("      $n++; $hash, $file = $line -split '  ', 2")
	line("      $got = (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash")
	line("      if ($got -ne $hash) { $bad++; \"BAD: $file\" }")
	line("    }")
	line("    if ($n -gt 0 -and $bad -eq 0) { \"whole\" } else { \"NOT WHOLE\" }")
	line("")
	line("The folder is an OCI image layout: crane, oras, regctl and other tools read")
	line("it too. Nothing on this drive needs to be run, and nothing is secret.")
	return b.String()
}
