package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/apply/preflight"
	"pannier/apply/serve"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/graph"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify/custody"
	"pannier/verify/signature"
)

// advice is what a person without internet needs beside an error's own words.
type advice struct {
	// code names the class for good: it is looked up years later and in other people's
	// scripts. The first digit is the subject, see subjects; a test keeps codes from being
	// given twice, changed or lost (testdata/codes.txt).
	code  string
	what  string // happened, in a few words without a full stop
	cause string // the likely one
	todo  string
	rerun string // whether running the same command again is safe, and what it does
}

const (
	rerunContinues = "safe, now or later: the same command continues where it stopped"
	rerunAfter     = "safe once that is done: the same command continues where it stopped"
	rerunSame      = "safe, but the outcome is the same until something is changed"
)

// subjects of codes, by their first digit. The exit code of a class is not part of its code:
// what a class means stays, how grave it is taken may change.
var subjects = []struct{ digit, name string }{
	{"1", "the command line and this machine"},
	{"2", "the drive"},
	{"3", "registries and the way to them"},
	{"4", "what is trusted, and why"},
	{"5", "the cluster"},
}

// catalogue holds the advice for each class of error. The first line that matches is given,
// so that the more telling classes stand first. A new line takes the next free code of its
// subject; docs/errors.md and testdata/codes.txt are brought up to date by
// "go test ./cmd/pannier -run TestErrorCodes -update".
var catalogue = []struct {
	is []error
	advice
}{
	{[]error{cluster.ErrLoopback}, advice{
		"P5001", "the registry has a loopback name, which nodes cannot use",
		"the registry is named as it is reached from here; on a node that name is the node itself",
		"give the name by which the nodes know the registry with --cluster-registry REGISTRY/REPO",
		"safe, nothing was changed",
	}},
	{[]error{apply.ErrElsewhere}, advice{
		"P5002", "the objects are for another registry",
		"the folder was written for another registry, or the nodes know this one by another name than is used here",
		"name the registry of the folder, or with --cluster-registry the name that the nodes use; or let unpack write the objects anew with --objects-dir",
		"safe, nothing was changed",
	}},
	{[]error{cluster.ErrConfig}, advice{
		"P5003", "the kubeconfig cannot be used",
		"the kubeconfig is not where it is looked for, cannot be read, or does not name that context",
		"give it with --kubeconfig FILE and --context NAME, or set KUBECONFIG; \"oc config get-contexts\" lists what there is",
		"safe, nothing was changed",
	}},
	{[]error{apply.ErrNotArrived}, advice{
		"P3001", "the registry does not hold the whole release",
		"the release was not unpacked into this registry as a whole, or the registry lost something: garbage collection, a full disk, another repository",
		"run \"pannier unpack MEDIA REGISTRY/REPO --check-all\": it pushes what is lacking",
		rerunAfter,
	}},
	{[]error{cluster.ErrGuard}, advice{
		"P5004", "the cluster is in no state to be updated",
		"the cluster, or the registry for it, is not ready for this update: each line above names one check with what to do about it",
		"settle those, look again with \"pannier preflight MEDIA REGISTRY/REPO\", then ask again; none of them can be switched off",
		"safe: nothing was asked of the cluster",
	}},
	{[]error{cluster.ErrPayload}, advice{
		"P5005", "the cluster refused the release",
		"the cluster looked at the release and refused it: it could not pull it or verify its signature, or one of its own preconditions failed; its message is above",
		"read the message; \"pannier preflight\" with --probe-nodes shows whether nodes can pull it; \"oc adm upgrade\" shows the conditions. The cluster goes on with the release that it runs",
		"safe: the request is withdrawn and made again",
	}},
	{[]error{cluster.ErrDegraded}, advice{
		"P5006", "a pool of nodes is degraded",
		"a node of the pool cannot take up its new configuration: it cannot be drained, a disk is full, or somebody changed a file on it",
		"oc describe mcp NAME, then the log of machine-config-daemon on the node that is named; the rollout goes on by itself once that is settled",
		"safe: it goes on following",
	}},
	{[]error{cluster.ErrStalled}, advice{
		"P5007", "the cluster takes too long",
		"an operator of the cluster does not do its part: it is not running, or hangs on something else",
		"oc get clusteroperators, and the operator's log; the objects and requests that were written stand",
		"safe: it goes on following",
	}},
	{[]error{cluster.ErrConflict}, advice{
		"P5008", "mirror sets that cannot stand together",
		"the cluster has mirror sets that cannot stand beside the new ones, which the machine-config operator would take up none of, or that hide them",
		"change or remove the object that is named above, or choose the other kind with --mirror-set; nothing of somebody else's is changed for you",
		rerunSame,
	}},
	{[]error{cluster.ErrForeign}, advice{
		"P5009", "an object of that name is somebody else's",
		"an object of that name exists that pannier did not make, and it says something else",
		"rename it, add to it by hand what is lacking, or label it app.kubernetes.io/managed-by=pannier to hand it over",
		rerunSame,
	}},
	{[]error{cluster.ErrForbidden}, advice{
		"P5010", "the cluster denies access",
		"the account of the kubeconfig may not do this in the cluster, or its token has expired",
		"log in as cluster-admin (\"oc login\", \"oc whoami\"), or have the permission granted that is named above",
		rerunAfter,
	}},
	{[]error{cluster.ErrUnreachable}, advice{
		"P5011", "the API server does not answer",
		"the API server is down or restarting, its name or address is not right, or a firewall or proxy stands between",
		"check --kubeconfig and --context (\"oc whoami --show-server\", \"curl -k SERVER/version\"), HTTPS_PROXY and NO_PROXY",
		rerunContinues,
	}},
	{[]error{cluster.ErrCluster, cluster.ErrRefused}, advice{
		"P5012", "the API server refused",
		"the API server understood and said no; its message is above",
		"read the message; if it speaks of a field or a kind, the cluster's version is one that this program does not know",
		rerunSame,
	}},
	{[]error{layout.ErrGone}, advice{
		"P2001", "the drive is gone",
		"the drive was unplugged, or its port, cable or reader failed",
		"plug it in, mount it (\"findmnt\" shows whether it is), run the same command again",
		rerunAfter,
	}},
	{[]error{bundle.ErrNoStore}, advice{
		"P4001", "no signature store answered",
		"no signature store answered: this machine has no way to the internet, its DNS does not know the name, or a proxy is needed",
		"check DNS (\"getent hosts HOST\"), HTTPS_PROXY and NO_PROXY; or give the signature with --signature-store DIR, laid out sha256=<hex>/signature-N",
		rerunContinues,
	}},
	{[]error{remote.ErrAuthFile}, advice{
		"P3002", "the pull secret cannot be used",
		"the pull secret is not what oc and podman write: it is cut short, was edited by hand, or is another file",
		"fetch it anew, or check it (\"python3 -m json.tool FILE\"); name another one with -a FILE",
		rerunAfter,
	}},
	{[]error{bundle.ErrVersion, store.ErrVersion}, advice{
		"P2002", "the drive has a newer format",
		"the drive was written by a newer pannier than this one",
		"use the pannier that wrote the drive, or a newer one; \"pannier version\" on the other machine says which it is",
		"safe, nothing was changed; the outcome is the same with this version",
	}},
	{[]error{bundle.ErrRecordsLost}, advice{
		"P2021", "the folder pannier of the drive is lost",
		"a power cut on a drive that lies about writing, a file system that was repaired, or somebody who removed it",
		"on the internet side pack the same releases onto it again (\"pannier pack RELEASE... MEDIA\"): what is right is kept; another copy of the drive is of use at once",
		"safe, nothing was changed; the outcome is the same until the drive has been packed onto again",
	}},
	{[]error{bundle.ErrNotBundle, layout.ErrNotLayout}, advice{
		"P2003", "the folder is no bundle",
		"the path is wrong, the drive is not mounted there, or the folder belongs to something else",
		"check the path and the mount (\"findmnt\", \"ls\"); to pack, name a new or an empty folder on the drive",
		"safe, nothing was changed",
	}},
	{[]error{bundle.ErrSupplement}, advice{
		"P2004", "a supplement is no drive for releases",
		"a supplement, which \"pannier pack --only\" makes, holds pieces that another drive has lost; releases have drives of their own",
		"name a new or an empty folder",
		"safe, nothing was changed",
	}},
	{[]error{bundle.ErrNoRelease}, advice{
		"P2005", "the drive does not hold that release",
		"the selection (--release, or OCP_RELEASE in the environment) names a release that this drive does not hold",
		"see what is there with \"pannier inspect MEDIA\" and select one of those",
		"safe, nothing was changed",
	}},
	{[]error{bundle.ErrConflict}, advice{
		"P2006", "the tag names another image already",
		"the same tag was packed from another source before, or the tag was moved at the registry since",
		"name the image by digest, or pack it onto another drive",
		rerunSame,
	}},
	{[]error{bundle.ErrSignature, signature.ErrUntrusted, signature.ErrMalformed, signature.ErrUnknownKey}, advice{
		"P4002", "the release is not signed by anybody trusted",
		"nobody who is trusted signed exactly this release: its signature is missing, or its key is not known here, or the image is not what it claims to be",
		"a release signed with your own key needs --keyring FILE on both sides, since trust never travels on the drive; a missing signature can be given with --signature-store DIR; otherwise ask where this image comes from before going on",
		rerunSame,
	}},
	{[]error{custody.ErrSignature}, advice{
		"P4009", "what was carried back is not signed as it should be",
		"a receipt or inventory was changed after it was signed, or nobody whom --trusted-signers names signed it",
		"ask whoever wrote the file for it again, with its fingerprint (ssh-keygen -lf KEY.pub); without --have everything is packed, and nothing depends on such a file",
		rerunSame,
	}},
	{[]error{bundle.ErrNoClient}, advice{
		"P3019", "the release has no such client",
		"the release has no clients for that platform: those for arm64 and for other systems came with later versions",
		"name other platforms with --with-clients, or all for those that there are; without it the same command seals the drive",
		rerunSame,
	}},
	{[]error{graph.ErrUnknown}, advice{
		"P3016", "the channel does not have that version",
		"the channel does not have that version for this architecture: it is of another channel, was never published or not yet, or there is a typing error",
		"compare the versions with the channel (stable, fast, candidate or eus, and the number behind it); name another one with --channel",
		rerunSame,
	}},
	{[]error{graph.ErrNoPath}, advice{
		"P3017", "no update leads there",
		"the update graph does not lead there, or not yet: updates that were found harmful are taken back, and new releases take weeks to become reachable",
		"choose a release among those that can be reached, or another --channel (fast, candidate); a version in between may need to be reached first",
		rerunSame,
	}},
	{[]error{graph.ErrGraph}, advice{
		"P3018", "this is no update graph",
		"the file or service does not give what update services give, or two that were named are of different architectures",
		"see what it is (the answer has \"nodes\" and \"edges\"); name another one with --graph",
		rerunSame,
	}},
	{[]error{bundle.ErrDisagree, release.ErrText}, advice{
		"P4006", "sources of the same release disagree",
		"two places that should tell of the same release do not: a file of another release or architecture was named, a mirror is stale, or somebody has exchanged an image",
		"compare the digests above with the one that the release's maker published; name the right file, or leave the comparison out with --release-txt none only once you know which of them is wrong",
		rerunSame,
	}},
	{[]error{bundle.ErrGraphDisagrees}, advice{
		"P4007", "the update graph names another release",
		"the file of --graph is stale, altered, or of another architecture; or the registry gives another image under that version than was published",
		"compare the digests above with the one that the release's maker published; if the release is right, fetch the graph anew or name another one with --graph; if it is not, do not pack it",
		rerunSame,
	}},
	{[]error{release.ErrNotRelease}, advice{
		"P4008", "the image is no release",
		"a component of a release, or some other image, was named where a release is wanted",
		"name the release: its version, as 4.8.21, or its own pull spec, as quay.io/openshift-release-dev/ocp-release:4.8.21-x86_64; to carry this image as it is, give it with --additional-image REF",
		rerunSame,
	}},
	{[]error{release.ErrPayload}, advice{
		"P4003", "the release image contradicts itself",
		"the release image was built or copied badly: what it says about itself is truncated or contradicts itself",
		"compare the release's digest with the one its maker published; fetch it from its origin, not from a mirror",
		rerunSame,
	}},
	{[]error{layout.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT}, advice{
		"P2007", "no space is left",
		"the drive, or the quota on it, is too small or full",
		"free space there or use a larger drive; \"pannier pack --dry-run\" says how much is needed",
		rerunAfter,
	}},
	{[]error{layout.ErrTooLarge, syscall.EFBIG}, advice{
		"P2008", "more than the file system can hold",
		"the file system of the drive has a limit that this release exceeds (FAT32: files below 4 GiB, about 10,900 of them in a folder)",
		"format the drive as exFAT, ext4, XFS or NTFS, and pack again",
		"safe, but it cannot succeed on this file system",
	}},
	{[]error{apply.ErrObjectsDir}, advice{
		"P1008", "the folder for the cluster objects cannot be written",
		"the folder of --objects-dir is on a write-protected drive, above it there is no folder, or this user may not write there",
		"name a folder on this machine's own disk with --objects-dir; without it the objects are printed",
		rerunAfter,
	}},
	{[]error{layout.ErrReadOnly, syscall.EROFS}, advice{
		"P2009", "the drive is write-protected",
		"the drive is write-protected: a switch on its side, a mount option, or a file system that was found damaged and made read-only",
		"remove the protection or mount it for writing (audit, inspect and unpack need no writing)",
		rerunAfter,
	}},
	{[]error{custody.ErrFull}, advice{
		"P2019", "the custody log is full",
		"pannier/custody.jsonl on the drive has grown to its limit, which takes years of use or somebody who filled it",
		"look at it (it is text); to begin a new one keep a copy elsewhere and remove it: nothing else on the drive depends on it",
		rerunAfter,
	}},
	{[]error{layout.ErrLocked}, advice{
		"P2010", "the drive is in use",
		"another pannier is working on this drive",
		"wait for it to finish; if there is none, it was on another machine: remove pannier/lock on the drive by hand",
		rerunAfter,
	}},
	{[]error{serve.ErrTaken}, advice{
		"P2016", "two images of the drive claim one name",
		"additional images from two hosts have the same path and tag, or the drive's list of tags was tampered with",
		"serve one release with --release; \"pannier inspect MEDIA\" shows the names; pack one of the two onto another drive",
		rerunSame,
	}},
	{[]error{parity.ErrVersion}, advice{
		"P2017", "the parity has a newer format",
		"the parity on the drive was written by a newer pannier than this one",
		"use the pannier that wrote the drive, or a newer one; what parity does not heal can be taken from another drive or a registry with --from",
		"safe, nothing was changed; the outcome is the same with this version",
	}},
	{[]error{parity.ErrLost, parity.ErrNotCovered, parity.ErrMap}, advice{
		"P2018", "parity cannot heal this",
		"more is damaged than the parity on the drive can reconstruct, or the parity is damaged itself, or the drive was packed without (--parity 0)",
		"\"pannier audit --repair MEDIA --from OTHER\" takes what is lost from another drive or a registry; with neither at hand, \"pannier audit --refetch-list FILE MEDIA\" says what to fetch again on the internet side",
		"safe: what is whole is not touched",
	}},
	{[]error{layout.ErrUnsafe}, advice{
		"P2011", "a link or device lies where a file belongs",
		"something else than a plain file lies where the drive's files belong; it may have been put there to mislead",
		"do not trust this drive before it is known how it came there; pack onto an empty folder",
		rerunSame,
	}},
	{[]error{bundle.ErrPresumed}, advice{
		"P2020", "the drive presumes what is not there",
		"the drive was packed with --have for a registry that was known to hold the rest; this is another registry or repository, or that one has lost something since (garbage collection)",
		"-v lists all that is missing, and \"pannier inspect MEDIA\" says what the drive was packed for: unpack to that, or together with an older drive that has the rest (pannier unpack MEDIA OLDER REGISTRY/REPO); else write \"pannier inventory REGISTRY/REPO\" anew and pack with --have of that, or without --have",
		"safe, nothing was changed",
	}},
	{[]error{bundle.ErrIncomplete}, advice{
		"P2012", "the folder of oc is not whole",
		"oc adm release mirror did not finish writing this folder, or it was not copied as a whole: links and empty folders get lost",
		"run it again with the same --to-dir, or take the folder over with \"pannier pack RELEASE MEDIA --adopt DIR\", which fetches what is missing",
		rerunAfter,
	}},
	{[]error{bundle.ErrUnsealed}, advice{
		"P2013", "the drive is not sealed",
		"packing onto this drive did not finish, or its seal was lost since",
		"run the same pack command again on the internet side until it says that the drive is sealed; what was sealed before is usable with --release; \"pannier audit MEDIA\" says whether a seal that was lost can be put back here, and what a later pack has left",
		"here only after pack has finished, or with --release of what is sealed; until then the outcome is the same",
	}},
	{[]error{bundle.ErrDamaged, store.ErrCorrupt, store.ErrByteOrder}, advice{
		"P2014", "the drive is damaged",
		"the drive, its adapter or the copy changed bytes since the drive was sealed",
		"try another port or reader; \"pannier audit MEDIA\" has the whole list and says what can be healed, and \"pannier audit --repair MEDIA\" heals it, with --from from another drive or a registry; or pack again with --verify on the internet side: only what is bad is fetched",
		"safe: what is whole is not touched",
	}},
	{[]error{errTool}, advice{
		"P4010", "the program cannot be taken along",
		"an archive of --tool-dir is not what SHA256SUMS beside it says, or holds no program: it was cut off, changed, or is of another version than the list",
		"fetch the archives and their SHA256SUMS anew into one folder, or make them with \"make dist\"; do not use the archive that is named above",
		"safe, nothing was written",
	}},
	{[]error{content.ErrDigest, content.ErrSize, content.ErrInvalid}, advice{
		"P4004", "bytes are not what their digest says",
		"the bytes are not those that the digest promises: a bad drive or copy, a proxy that rewrites answers, or a registry with a damaged store",
		"run \"pannier audit MEDIA\" to see whether the drive is whole; if it is, or while packing or mirroring, look at the registry or proxy",
		"safe: nothing that failed its digest is ever kept or pushed",
	}},
	{[]error{remote.ErrQuota}, advice{
		"P3014", "the registry has no room",
		"the registry's disk is full, or a quota of the project or organization there is",
		"raise the quota, or free space at the registry (what was removed is often kept until garbage is collected)",
		rerunContinues,
	}},
	{[]error{remote.ErrAuth}, advice{
		"P3003", "the registry denies access",
		"the user or password is wrong or has expired, no entry of the pull secret matches this host and path, or the account may not do this here",
		"check the entry for this host with -a FILE (run with -v to see which file and entry were used), and that the account may pull, or for unpack push, in this repository",
		rerunAfter,
	}},
	{[]error{remote.ErrCertificate}, advice{
		"P3004", "the certificate is not trusted",
		"the host's certificate was made by an authority that this machine does not know, is for another name, or has expired",
		"give the authority with --certificate-authority FILE, use the name that the certificate is for, or check this machine's clock; --insecure goes on without any of that",
		rerunAfter,
	}},
	{[]error{remote.ErrPlainHTTP}, advice{
		"P3005", "the registry speaks plain http",
		"the registry speaks plain http, which only loopback addresses may do",
		"give it a certificate, or allow it with --insecure",
		rerunAfter,
	}},
	{[]error{remote.ErrConfined}, advice{
		"P3006", "the registry leads to this machine itself",
		"the registry names a token server or another store on this machine or its local link, which a registry elsewhere has no business to do",
		"look at the registry's configuration: its token realm and its storage redirects must be names that reach it from here",
		rerunAfter,
	}},
	{[]error{remote.ErrNotRegistry}, advice{
		"P3007", "what answers is no registry",
		"something that is no registry answers there: a web console, a login page, a proxy",
		"check host and port (registries often listen on 5000, 8443 or 443), and whether a proxy stands between (HTTPS_PROXY, NO_PROXY)",
		rerunSame,
	}},
	{[]error{remote.ErrNotFound}, advice{
		"P3008", "the registry does not have it",
		"the name is not right, or that of a release in its version or architecture, or this registry has not got it",
		"check the spelling: of a release its version and architecture, of an image or repository its path; and that the registry was filled",
		rerunSame,
	}},
	{[]error{remote.ErrInterrupted}, advice{
		"P3009", "the host stopped answering",
		"the host answered at first and then stopped: a network that comes and goes, a busy registry, an idle limit of a proxy",
		"run the same command again when the network is back; --give-up-after gives it more patience",
		rerunContinues,
	}},
	{[]error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL}, advice{
		"P1003", "the address cannot be listened at",
		"another program listens at that address already, or this machine does not have it",
		"name another one with --listen, as 127.0.0.1:5001; \"ss -ltnp\" shows who listens",
		"safe, nothing was changed",
	}},
	{[]error{syscall.ECONNREFUSED}, advice{
		"P3010", "nothing listens on that port",
		"the host is there, and nothing listens on that port",
		"check that the registry runs, that the port is right (registries often listen on 5000, 8443 or 443), and that no firewall rejects it",
		rerunContinues,
	}},
	{[]error{remote.ErrUnreachable}, advice{
		"P3011", "the host cannot be reached",
		"the host name is wrong or not in DNS, the host is down, a firewall or proxy stands between, or what listens on that port is no registry",
		"check the name and the port, on which a registry must answer (often 5000, 8443 or 443; \"getent hosts HOST\", \"curl -v https://HOST/v2/\"), HTTPS_PROXY and NO_PROXY",
		rerunContinues,
	}},
	{[]error{remote.ErrRefused}, advice{
		"P3012", "the registry refused",
		"the registry understood and said no: a limit on size or paths, a project that does not exist, a policy, a full disk",
		"read its message above and its log at that time; create the project or repository, raise the limit, or free space there",
		rerunAfter,
	}},
	{[]error{cluster.ErrNotThere}, advice{
		"P3013", "the registry does not hold the release yet",
		"the release was not unpacked into this registry, or into another repository of it",
		"run \"pannier unpack MEDIA REGISTRY/REPO\" first",
		rerunAfter,
	}},
	{[]error{release.ErrReference, parity.ErrShare}, advice{
		"P1007", "a value is not written as it must be",
		"a release, an image, an architecture or a percentage is misspelt",
		"write it as the message says; --help of the command has examples",
		"safe, nothing was changed",
	}},
	{[]error{objects.ErrInvalid}, advice{
		"P1004", "a name or document is not well formed",
		"a name or a document is not written as it must be",
		"correct it as the message says",
		"safe, nothing was changed",
	}},
	{[]error{fs.ErrPermission}, advice{
		"P1005", "this user may not do that",
		"this user may not read or write there",
		"check owner and mode of the file named above, and how the drive is mounted",
		rerunAfter,
	}},
	{[]error{syscall.EIO}, advice{
		"P2015", "reading or writing the drive failed",
		"the drive or its connection fails: a read or a write did not get through",
		"try another port, cable or reader; read the kernel's messages (\"dmesg\"); check that it is mounted before running again (\"findmnt\"); if it stays, use another drive",
		rerunContinues,
	}},
	{[]error{fs.ErrNotExist}, advice{
		"P1006", "a file is not there",
		"the path is wrong, or the drive is not mounted",
		"check the path and the mount",
		rerunAfter,
	}},
}

// Classes that are told by other means than a sentinel.
var (
	usageAdvice = advice{
		"P1001", "the command line cannot be understood",
		"a flag, an argument or a variable is misspelt, is missing, or belongs to another command",
		"correct it as the message says; --help of the command has every flag and examples",
		"safe, nothing was changed",
	}
	interruptedAdvice = advice{
		"P1002", "interrupted",
		"Ctrl-C, a signal or a closed terminal ended the command; it saved its state first",
		"run the command that was printed",
		rerunContinues,
	}
	// unknownAdvice is given with errors that the catalogue does not know.
	unknownAdvice = advice{
		"P1000", "an error without a code of its own",
		"not known; the message says all there is",
		"run it again with -v -v for more detail",
		rerunContinues,
	}
	// missingSignature is for releases that nobody signed, as far as was found; the catalogue
	// has those whose signature is not trusted.
	missingSignature = advice{
		"P4005", "the release has no signature",
		"the release has no signature in the stores that answered, or in the folder or drive that it is taken from: it is too new or too old, or it is not an official release",
		"give the signature with --signature-store DIR, or another store's URL (with --adopt name the release too, as RELEASE MEDIA --adopt DIR: without it no store is asked); for a release of your own, sign it and give the key with --keyring FILE; --signature-policy warn carries it unsigned",
		rerunSame,
	}
	// targetAdvice is for registries that were asked first; what was found says what to do.
	targetAdvice = advice{
		"P3015", "the registry would not take what is to be pushed",
		"the registry, as it is now, does not take what is to be pushed; it was asked before anything was pushed",
		"the error says what is lacking there and how to settle it",
		rerunAfter,
	}
)

// adviceFor returns the advice for one error.
func adviceFor(err error) advice {
	var usage *usageError
	var refused *bundle.SignatureError
	var target *preflight.TargetError
	switch {
	case errors.As(err, &usage):
		return usageAdvice
	case errors.Is(err, errInterrupted):
		return interruptedAdvice
	case errors.As(err, &refused) && refused.Verdict.Status == bundle.SignatureMissing:
		return missingSignature
	case errors.As(err, &target):
		a := targetAdvice
		a.todo = target.Remedy
		return a
	}
	for _, line := range catalogue {
		for _, target := range line.is {
			if errors.Is(err, target) {
				return line.advice
			}
		}
	}
	return unknownAdvice
}

// allAdvice returns every class, by its code, with the exit code of each.
func allAdvice() []classified {
	all := []classified{
		{unknownAdvice, exitError}, {usageAdvice, exitUsage}, {interruptedAdvice, exitInterrupted},
		{missingSignature, exitCode(bundle.ErrSignature)}, {targetAdvice, exitCode(remote.ErrRefused)},
	}
	for _, line := range catalogue {
		all = append(all, classified{line.advice, exitCode(line.is[0])})
	}
	slices.SortFunc(all, func(a, b classified) int { return strings.Compare(a.code, b.code) })
	return all
}

// classified is a class of errors with the exit code that it has alone.
type classified struct {
	advice
	exit int
}
