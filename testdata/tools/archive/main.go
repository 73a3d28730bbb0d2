// Command archive packs the folders dist/OS-ARCH into dist/pannier_VERSION_OS_ARCH.tar.gz
// (.zip for Windows) and writes dist/SHA256SUMS. Two runs over equal binaries give equal
// bytes: entries are sorted, owned by nobody, and bear the time of the last commit.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Documents that travel beside the binary. Those that do not exist are left out.
var documents = []string{"CHANGELOG.md", "LICENSE", "README.md"}

type entry struct {
	name string // in the archive
	path string
	mode int64
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("archive: ")
	root := flag.String("root", ".", "root of the source tree")
	version := flag.String("version", "dev", "version for the names of the archives")
	flag.Parse()
	if err := run(*root, *version); err != nil {
		log.Fatal(err)
	}
}

func run(root, version string) error {
	dist := filepath.Join(root, "dist")
	folders, err := filepath.Glob(filepath.Join(dist, "*-*"))
	if err != nil {
		return err
	}
	stamp := commitTime(root)
	var sums []string
	for _, folder := range folders {
		goos, arch, _ := strings.Cut(filepath.Base(folder), "-")
		top := fmt.Sprintf("pannier_%s_%s_%s", version, goos, arch)
		entries, err := collect(root, folder, top)
		if err != nil {
			return err
		}
		name, write := top+".tar.gz", writeTar
		if goos == "windows" {
			name, write = top+".zip", writeZip
		}
		sum, err := writeFile(filepath.Join(dist, name), entries, stamp, write)
		if err != nil {
			return err
		}
		sums = append(sums, sum+"  "+name+"\n")
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	sort.Slice(sums, func(i, j int) bool { return sums[i][66:] < sums[j][66:] })
	return os.WriteFile(filepath.Join(dist, "SHA256SUMS"), []byte(strings.Join(sums, "")), 0o644)
}

// commitTime is SOURCE_DATE_EPOCH if set, else the time of the last commit, else a fixed day:
// never now, which would make each run differ. Zip knows no time before 1980.
func commitTime(root string) time.Time {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "-C", root, "log", "-1", "--format=%ct").Output()
		if err == nil {
			text = strings.TrimSpace(string(out))
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 315532800 {
		return time.Unix(n, 0).UTC()
	}
	return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
}

func collect(root, folder, top string) ([]entry, error) {
	binaries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, b := range binaries {
		entries = append(entries, entry{top + "/" + b.Name(), filepath.Join(folder, b.Name()), 0o755})
	}
	for _, d := range documents {
		path := filepath.Join(root, d)
		if _, err := os.Stat(path); err == nil {
			entries = append(entries, entry{top + "/" + d, path, 0o644})
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].name < entries[j].name })
	return entries, nil
}

func writeFile(path string, entries []entry, stamp time.Time, write func(io.Writer, []entry, time.Time) error) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if err := write(io.MultiWriter(f, h), entries, stamp); err != nil {
		f.Close()
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), f.Close()
}

func writeTar(w io.Writer, entries []entry, stamp time.Time) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(data)), ModTime: stamp, Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(data); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return gz.Close()
}

func writeZip(w io.Writer, entries []entry, stamp time.Time) error {
	zw := zip.NewWriter(w)
	zw.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestCompression)
	})
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: stamp}
		h.SetMode(os.FileMode(e.mode))
		f, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return zw.Close()
}
