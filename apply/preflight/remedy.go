package preflight

import (
	"context"
	"errors"
	"net/http"
	"syscall"

	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// hostRemedy says what to do about an error of a registry or a store, by its kind.
func hostRemedy(err error) string {
	var e *remote.Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusRequestEntityTooLarge:
			return "raise the limit on request bodies in the registry or the proxy before it (nginx: client_max_body_size 0)"
		case http.StatusTooManyRequests:
			return "the host limits requests: wait, or ask its administrator for a higher limit"
		case http.StatusUnauthorized:
			return "give a pull secret that has an entry for " + e.Host + " with -a FILE; if one was given, its user or password is wrong or has expired: podman login --authfile FILE " + e.Host
		case http.StatusForbidden:
			return "the registry knows the account of the pull secret, and it may not do this here: have it granted for this path, or give another account with -a FILE"
		case http.StatusProxyAuthRequired:
			return "give the proxy's user and password in HTTPS_PROXY, or exempt the host in NO_PROXY"
		case http.StatusMethodNotAllowed:
			return "the registry is read-only, or a proxy before it lets no POST, PUT or PATCH pass: change that"
		case http.StatusInsufficientStorage:
			return "the registry's disk or quota is full: free space there"
		}
	}
	switch {
	case errors.Is(err, remote.ErrCertificate):
		return "give the authority that made the certificate with --certificate-authority FILE, use the name that the certificate is for, and check this machine's clock (date)"
	case errors.Is(err, remote.ErrPlainHTTP):
		return "give the registry a certificate, or allow plain http with --insecure"
	case errors.Is(err, remote.ErrNotRegistry):
		return "check host and port (registries often listen on 5000, 8443 or 443), and whether a proxy or login page stands between (HTTPS_PROXY, NO_PROXY)"
	case errors.Is(err, remote.ErrConfined):
		return "let the registry's token realm and its storage redirects be names that lead to them from here, not addresses of the local machine"
	case errors.Is(err, remote.ErrAuth):
		return "check the entry for this host and path in the pull secret given with -a, and that its account may do this here; log in anew if it has expired (podman login --authfile FILE HOST)"
	case errors.Is(err, remote.ErrNotFound):
		return "check the spelling of the name, the version and --arch"
	case errors.Is(err, remote.ErrUnreachable):
		return "check the name (getent hosts HOST), the port, the route and the firewall (curl -v https://HOST/v2/), and HTTPS_PROXY and NO_PROXY"
	case errors.Is(err, remote.ErrInterrupted):
		return "the host answered and then stopped: look at its log and its load, then run preflight again"
	case errors.Is(err, remote.ErrRefused):
		return "read the registry's message and its log at this time: a limit, a policy, a project that does not exist, or a full disk"
	}
	return "read the message; the log of the host at this time may tell more"
}

// driveRemedy says what to do about an error of the drive, by its kind.
func driveRemedy(err error) string {
	switch {
	case errors.Is(err, bundle.ErrVersion), errors.Is(err, store.ErrVersion):
		return "use the pannier that wrote this drive, or a newer one"
	case errors.Is(err, bundle.ErrNotBundle), errors.Is(err, layout.ErrNotLayout):
		return "check the path and whether the drive is mounted there (findmnt); to pack, name a new or an empty folder on the drive"
	case errors.Is(err, bundle.ErrNoRelease):
		return "see what is on the drive with pannier inspect, and name one of those"
	case errors.Is(err, bundle.ErrIncomplete):
		return "run oc adm release mirror again with the same --to-dir, or take the folder over with pannier pack --adopt where there is internet"
	case errors.Is(err, bundle.ErrUnsealed):
		return "run the same pack command again on the internet side until it says that the drive is sealed"
	case errors.Is(err, bundle.ErrConflict):
		return "name the image by digest, or pack it onto another drive"
	case errors.Is(err, bundle.ErrDamaged), errors.Is(err, store.ErrCorrupt):
		return "run pannier audit for the whole list; try another port or reader; then pack again where there is internet: only what is bad is fetched"
	case errors.Is(err, layout.ErrReadOnly), errors.Is(err, syscall.EROFS):
		return "remove the write protection: a switch on the drive, a mount option (mount -o remount,rw), or a file system that was found damaged and made read-only (dmesg)"
	case errors.Is(err, layout.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return "free space on the drive, or use a larger one"
	case errors.Is(err, layout.ErrTooLarge), errors.Is(err, syscall.EFBIG):
		return "format the drive as exFAT, ext4, XFS or NTFS"
	case errors.Is(err, layout.ErrLocked):
		return "wait until the other pannier has finished"
	case errors.Is(err, layout.ErrUnsafe):
		return "something other than plain files lies where the bundle's belong: find out how it came there, or use an empty folder"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "give this user the right to write there: look at owner and mode (ls -ld), or at the drive's mount options (uid=, umask=)"
	case errors.Is(err, syscall.EIO):
		return "the drive or its connection fails: try another port, cable or reader, read dmesg, and do not use this drive if it stays"
	case errors.Is(err, syscall.ENOENT):
		return "check the path and whether the drive is mounted there (findmnt)"
	}
	return "look at the mount (findmnt), at the folder's owner and mode (ls -ld), and at the kernel's messages (dmesg)"
}

// remedyFor says what to do about an error that may come from either.
func remedyFor(err error) string {
	var e *remote.Error
	switch {
	case errors.As(err, &e):
		return hostRemedy(err)
	case errors.Is(err, bundle.ErrSignature):
		return "give the key of a release of your own with --keyring FILE, or a missing signature with --signature-store"
	case errors.Is(err, release.ErrPayload):
		return "compare the release's digest with the one its maker published; fetch it from its origin, not from a mirror"
	case errors.Is(err, context.DeadlineExceeded):
		return "run preflight again when the network or the drive is less busy"
	}
	return driveRemedy(err)
}
