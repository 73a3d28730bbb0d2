// Command packages makes a deb and an rpm of every dist/linux-ARCH, with what dist/share
// holds beside the program: manual pages, completion, documents. It is a module of its own,
// for what the maker of packages needs is a lot. Two runs over equal files give equal bytes.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("packages: ")
	root := flag.String("root", ".", "root of the source tree")
	dist := flag.String("dist", "dist", "folder of the binaries, and of the packages")
	version := flag.String("version", "dev", "version, as git describes it")
	epoch := flag.Int64("epoch", 0, "time of all files, in seconds since 1970")
	flag.Parse()
	folders, err := filepath.Glob(filepath.Join(*dist, "linux-*"))
	if err != nil {
		log.Fatal(err)
	}
	for _, folder := range folders {
		for _, format := range []string{"deb", "rpm"} {
			if err := write(*root, *dist, folder, format, *version, time.Unix(*epoch, 0).UTC()); err != nil {
				log.Fatalf("%s of %s: %v", format, folder, err)
			}
		}
	}
}

func write(root, dist, folder, format, version string, stamp time.Time) error {
	arch := strings.TrimPrefix(filepath.Base(folder), "linux-")
	contents, err := contentsOf(root, dist, folder, format, stamp)
	if err != nil {
		return err
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "pannier", Arch: arch, Platform: "linux",
		Version: packageVersion(version), VersionSchema: "none", Release: "1",
		Section: "admin", Priority: "optional", License: "Apache-2.0",
		Maintainer:  "The pannier authors <pannier@localhost>",
		Description: "carry OpenShift releases across an air gap, and prove them whole\nOne static program: pack puts releases on a drive, audit proves the drive whole,\nunpack puts them into a disconnected registry.",
		MTime:       stamp,
		Overridables: nfpm.Overridables{
			Contents: contents,
			RPM:      nfpm.RPM{BuildHost: "localhost", Summary: "Carry OpenShift releases across an air gap, and prove them whole"},
		},
	})
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dist, "pannier_"+version+"_linux_"+arch+"."+format))
	if err != nil {
		return err
	}
	if err := packager.Package(info, f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// packageVersion makes a version that both kinds of package take: it begins with a digit and
// has no dash. What was never tagged is older than everything that was.
func packageVersion(version string) string {
	v := strings.ReplaceAll(strings.TrimPrefix(version, "v"), "-", "+")
	if v == "" || v[0] < '0' || v[0] > '9' || !strings.Contains(v, ".") {
		v = "0~" + v
	}
	return v
}

// contentsOf lists the files of a package.
func contentsOf(root, dist, folder, format string, stamp time.Time) (files.Contents, error) {
	var out files.Contents
	add := func(source, destination string, mode os.FileMode) {
		out = append(out, &files.Content{Source: source, Destination: destination,
			FileInfo: &files.ContentFileInfo{Mode: mode, MTime: stamp, Owner: "root", Group: "root"}})
	}
	link := func(target, destination string) {
		out = append(out, &files.Content{Source: target, Destination: destination, Type: files.TypeSymlink,
			FileInfo: &files.ContentFileInfo{MTime: stamp, Owner: "root", Group: "root"}})
	}
	add(filepath.Join(folder, "pannier"), "/usr/bin/pannier", 0o755)
	for _, name := range []string{"oc-pannier", "kubectl-pannier", "kubectl_complete-pannier"} {
		link("pannier", "/usr/bin/"+name)
	}
	share := filepath.Join(dist, "share")
	pages, err := filepath.Glob(filepath.Join(share, "man", "*.1.gz"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		add(page, "/usr/share/man/man1/"+filepath.Base(page), 0o644)
	}
	completion := filepath.Join(share, "completion")
	zsh := "/usr/share/zsh/vendor-completions/_pannier"
	if format == "rpm" {
		zsh = "/usr/share/zsh/site-functions/_pannier"
	}
	add(filepath.Join(completion, "pannier.zsh"), zsh, 0o644)
	const bash, fish = "/usr/share/bash-completion/completions/", "/usr/share/fish/vendor_completions.d/"
	add(filepath.Join(completion, "pannier.bash"), bash+"pannier", 0o644)
	add(filepath.Join(completion, "pannier.fish"), fish+"pannier.fish", 0o644)
	for _, name := range []string{"oc-pannier", "kubectl-pannier"} { // shells look for them by name
		link("pannier", bash+name)
		link("pannier.fish", fish+name+".fish")
	}
	for _, name := range []string{"README.md", "CHANGELOG.md"} {
		add(filepath.Join(root, name), "/usr/share/doc/pannier/"+name, 0o644)
	}
	add(filepath.Join(root, "LICENSE"), "/usr/share/doc/pannier/copyright", 0o644)
	return out, nil
}
