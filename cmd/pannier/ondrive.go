package main

import (
	"path/filepath"
	"strings"

	"pannier/bundle/layout"
)

// keysOnDrive are those of the named key files that travel on one of the drives: they prove
// nothing of what travels with them.
func (s *session) keysOnDrive(names, media []string) (on []string) {
	for _, name := range names {
		file, err := real(s.env.expandHome(name))
		if err != nil {
			continue
		}
		for _, m := range media {
			if rel, err := filepath.Rel(driveRoot(m), file); err == nil && filepath.IsLocal(rel) {
				on = append(on, name)
				break
			}
		}
	}
	return on
}

// warnKeys warns of key files on the drives.
func (s *session) warnKeys(on []string) {
	if len(on) > 0 {
		s.console.warn("--keyring: %s", onDriveText(on))
	}
}

// onDriveText says what a key on the drive is worth.
func onDriveText(on []string) string {
	return strings.Join(on, ", ") + " lies on the drive itself, and whoever can change what is there can change the key too: take it from elsewhere"
}

// driveRoot is the top of the drive that MEDIA is on, if that is mounted just above it, as
// /media/usb for /media/usb/mirror; else MEDIA itself.
func driveRoot(media string) string {
	root, err := real(media)
	if err != nil {
		return media
	}
	parent := filepath.Dir(root)
	above := filepath.Dir(parent)
	at, err1 := layout.StatSpace(root)
	up, err2 := layout.StatSpace(parent)
	over, err3 := layout.StatSpace(above)
	mounted := err1 == nil && err2 == nil && err3 == nil && at.Device == up.Device && !up.SameDeviceAsRoot
	if mounted && (above == parent || over.Device != up.Device) {
		return parent
	}
	return root
}
