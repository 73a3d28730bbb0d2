package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/objects"
	"pannier/store"
)

// startSign stands in every START-HERE.txt, and tells it from a file of that name that somebody
// else wrote.
const startSign = "It was written by pannier."

// startHere is START-HERE.txt: for a person who finds the drive and knows nothing of it. It
// depends on nothing but what is on the drive, so that packing nothing new changes nothing;
// when that was, the seal says.
func startHere(id digest.Digest, idx *ocispec.Index, releases []store.Release, dest *objects.Destination, tools map[string]digest.Digest) string {
	if slices.ContainsFunc(idx.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType == ArtifactSupplement }) {
		return startSupplement(id)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("This drive carries OpenShift release images into a network without internet.")
	line(startSign + " It is for the administrator of the cluster there.")
	line("")
	line("Bundle %s", id)
	line("This id stands for exactly the releases and images below, to the byte; not")
	line("for programs and attached files. Whoever packed the drive has it too: ask")
	line("for it another way than on the drive; \"pannier audit\" proves it.")
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
	if slices.ContainsFunc(idx.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType == ArtifactPresumes }) {
		line("")
		line("It does not hold all of that: what the registry on the other side was known to")
		line("hold already was left out. \"pannier inspect .\" says which registry that is, and")
		line("step 2 proves, before anything is pushed, that it holds the rest.")
	}
	startTools(line, tools)
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
	update := "the command \"oc adm upgrade\" that step 2 prints"
	if len(releases) > 1 {
		update = "the commands \"oc adm upgrade\" that step 2 prints, as it says there"
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
	startProof(line)
	line("The folder is an OCI image layout: crane, oras, regctl and other tools read")
	line("it too. Nothing on this drive runs by itself, and nothing is secret.")
	return b.String()
}

// startTools names the program on the drive, and what makes it trusted.
func startTools(line func(string, ...any), tools map[string]digest.Digest) {
	if len(tools) == 0 {
		return
	}
	line("")
	line("The program is on the drive:")
	for _, name := range slices.Sorted(maps.Keys(tools)) {
		line("  %s", name)
		line("    %s", tools[name])
	}
	line("Before you run it, compare its SHA-256 with the one that whoever packed the")
	line("drive tells you another way: who can change it can change this text too.")
	line("  Linux:    sha256sum FILE")
	line("  macOS:    shasum -a 256 FILE")
	line("  Windows:  Get-FileHash FILE")
	line("Then copy it to a folder of your own, make it executable (chmod +x, on Linux")
	line("and macOS), and type its path there where it says pannier below.")
}

// startProof says how the drive is checked without this program. Every way must come to
// WHOLE only if nothing is amiss: a line that is not understood, a file that is not there
// and a list or a seal that was cut short are failures too; the seal has the digest of the list.
// In PowerShell a statement that fails leaves its variable as it was, perhaps by another drive:
// what decides is emptied first, and Latin-1 keeps the bytes of the seal as they are.
func startProof(line func(string, ...any)) {
	line("Without pannier, this checks every file against the list that was made when")
	line("the drive was sealed, the list against the seal, and the seal against")
	line("itself. All is well only if the last line says WHOLE. It finds damage, but")
	line("not files that were added (attached ones and the custody log are not on the")
	line("list), nor what somebody did who made list and seal anew; and it does not")
	line("check the signature of the release. Type it in the folder that this file is")
	line("in.")
	line("  Linux:")
	startShell(line, "sha256sum", "sha256sum -c --strict --quiet SHA256SUMS")
	line("  macOS:")
	startShell(line, "shasum -a 256", "shasum -a 256 -c --strict SHA256SUMS >/dev/null")
	line("  Windows, in PowerShell:")
	line("    $bad = 1; $text = $own = $null")
	line("    foreach ($line in Get-Content SHA256SUMS) {")
	line("      $got = 'none'; $hash, $file = $line -split '  ', 2")
	line("      $got = (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash")
	line("      if ($got -ne $hash) { $bad++; \"BAD: $file\" }")
	line("    }; $bad--")
	line("    $list = (Get-FileHash -Algorithm SHA256 -LiteralPath SHA256SUMS).Hash")
	line("    $seal = (Get-Item pannier\\seal-*.json).FullName")
	line("    $latin = [Text.Encoding]::GetEncoding(28591)")
	line("    $text = $latin.GetString([IO.File]::ReadAllBytes($seal))")
	line("    $sum = [regex]::Match($text, '\"checksum\": \"sha256:(\\w{64})').Groups[1].Value")
	line("    $zero = $latin.GetBytes($text.Replace($sum, '0' * 64))")
	line("    $hash = [Security.Cryptography.SHA256]::Create().ComputeHash($zero)")
	line("    $own = [BitConverter]::ToString($hash) -replace '-'")
	line("    $sealed = $list -and $text -match \"sha256:$list\" -and $own -eq $sum")
	line("    if ($sealed -and $bad -eq 0) { 'WHOLE' } else { 'NOT WHOLE' }")
	line("")
}

// startShell is the proof for a shell with a program that takes sums. What the seal says of
// itself is its sum with zeros in its place (docs/format.md, "Checksum rule"). Of two seals
// none is right, and neither is a link in the place of a file.
func startShell(line func(string, ...any), sum, check string) {
	line(`    s=$(ls pannier/seal-*.json); h=$(%s SHA256SUMS | cut -c1-64)`, sum)
	line(`    c=$(sed -n 's/^  "checksum": "sha256:\([0-9a-f]*\)".*/\1/p' "$s")`)
	line(`    %s &&`, check)
	line(`    grep -q "sha256:$h\"" "$s" && [ -z "$(find . -type l)" ] &&`)
	line(`    [ "$(sed "s/$c/$(printf %%064d 0)/" "$s" | %s)" = "$c  -" ] &&`, sum)
	line(`    echo WHOLE || echo NOT WHOLE`)
}
