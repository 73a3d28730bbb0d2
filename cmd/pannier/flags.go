package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/verify/signature"
)

// The flags of the commands. Each group is one struct that declares its flags and turns them
// into what the callee takes; a command's own struct embeds the groups that it has.

// systemKeys are where Red Hat's systems keep the release key. It is a candidate there, not
// trusted because of its place: its fingerprint decides.
var systemKeys = []string{"/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"}

// maxKeyFile bounds a --keyring file; the largest distribution keyrings have about 100 KiB.
const maxKeyFile = 4 << 20

// logFlags is what every command has.
type logFlags struct {
	verbose int
	file    string
}

func (f *logFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "v", Aliases: []string{"verbose"}, Count: &f.verbose,
			Usage: "more detail on stderr; give it twice for every request"},
		&cli.StringFlag{Name: "log-file", Destination: &f.file, TakesFile: true,
			Usage: "add to `FILE` what happens, with the time: lines of text, or JSON if its name ends in .json or .jsonl; with -v -v every request"},
	}
}

// level is from where on records are written that are written at all.
func (f *logFlags) level() slog.Level {
	if f.verbose > 1 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// handler writes to stderr what -v asks for.
func (f *logFlags) handler(c *console) slog.Handler {
	if f.verbose <= 0 { // the library counts from below
		return slog.DiscardHandler
	}
	opts := &slog.HandlerOptions{Level: f.level()}
	if c.events {
		return slog.NewJSONHandler(c, opts)
	}
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String(slog.TimeKey, a.Value.Time().Format(time.TimeOnly))
		}
		return a
	}
	return slog.NewTextHandler(c, opts)
}

// registryFlags is how registries are reached.
type registryFlags struct {
	authFile  string
	insecure  bool
	authority string
	giveUp    time.Duration
}

const defaultGiveUp = 5 * time.Minute

func (f *registryFlags) flags(giveUp time.Duration) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "registry-config", Aliases: []string{"a", "authfile"}, Destination: &f.authFile, TakesFile: true,
			Usage: "pull secret `FILE` (default: $LOCAL_SECRET_JSON, $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json)"},
		&cli.BoolFlag{Name: "insecure", Destination: &f.insecure,
			Usage: "allow plain http and unverified TLS (loopback addresses may use plain http without it)"},
		&cli.StringFlag{Name: "certificate-authority", Destination: &f.authority, TakesFile: true,
			Usage: "`FILE` with further certificate authorities to trust"},
		&cli.DurationFlag{Name: "give-up-after", Destination: &f.giveUp, Value: giveUp,
			Usage: "`DURATION` that nothing may move at a host that answered before, before the command gives up with its state saved (default: " + durationText(giveUp) + ")"},
	}
}

// durationText writes a duration as people do: 5m rather than 5m0s.
func durationText(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// options is shared by all clients that the command makes.
func (f *registryFlags) options(s *session) (remote.Options, error) {
	opts := remote.Options{
		Insecure:    f.insecure,
		Proxy:       http.ProxyFromEnvironment,
		GiveUpAfter: f.giveUp,
		UserAgent:   "pannier/" + buildVersion(),
		Logger:      s.log,
		OnWait:      s.progress.waiting,
	}
	if f.giveUp <= 0 {
		return opts, usagef(s.command, "--give-up-after must be more than nothing, as 30s or 10m")
	}
	if f.authority != "" {
		opts.CAFiles = []string{s.env.expandHome(f.authority)}
	}
	if f.authFile != "" {
		opts.AuthFiles, opts.AuthExplicit = []string{s.env.expandHome(f.authFile)}, true
	} else {
		opts.AuthFiles, opts.AuthExplicit = s.env.authFiles()
	}
	// What somebody named must be there; the other places are only looked at.
	named := map[string]string{"-a (--registry-config)": f.authFile, "--certificate-authority": f.authority}
	if f.authFile == "" {
		for _, variable := range []string{"LOCAL_SECRET_JSON", "REGISTRY_AUTH_FILE"} {
			if named[variable] = s.env(variable); named[variable] != "" {
				break // the first is the one that counts
			}
		}
	}
	for _, by := range slices.Sorted(maps.Keys(named)) {
		if err := s.env.checkNamed(by, named[by]); err != nil {
			return opts, usagef(s.command, "%v", err)
		}
	}
	return opts, nil
}

// checkNamed says which flag or variable names a file that is not there.
func (env environ) checkNamed(by, name string) error {
	if name == "" {
		return nil
	}
	_, err := os.Stat(env.expandHome(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s names %s, which does not exist", by, name)
	case err != nil:
		return fmt.Errorf("%s names %s: %w", by, name, err)
	}
	return nil
}

// trustFlags is what is trusted and what is not.
type trustFlags struct {
	keyrings cli.StringSlice
	stores   cli.StringSlice
	policy   string
}

func (f *trustFlags) keyFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "keyring", Destination: &f.keyrings, TakesFile: true,
		Usage: "`FILE` with public keys trusted to sign releases, beside Red Hat's; repeatable"}
}

func (f *trustFlags) flags(storeUsage string) []cli.Flag {
	return []cli.Flag{
		f.keyFlag(),
		&cli.StringSliceFlag{Name: "signature-store", Destination: &f.stores, Usage: storeUsage},
		&cli.StringFlag{Name: "signature-policy", Destination: &f.policy, Value: "require",
			Usage: "`POLICY` on releases without a signature of a trusted key: require (default) refuses them, warn takes them and says so"},
	}
}

// words are these flags as they were given, for a command that is suggested; without what in
// the address of a store is secret.
func (f *trustFlags) words() []string {
	var words []string
	for _, k := range f.keyrings.Value() {
		words = append(words, "--keyring", k)
	}
	for _, store := range f.stores.Value() {
		words = append(words, "--signature-store", redact(store))
	}
	if f.policy == "warn" {
		words = append(words, "--signature-policy", f.policy)
	}
	return words
}

// verifier reads the keyrings.
func (f *trustFlags) verifier(s *session) (*signature.Verifier, error) {
	if err := f.checkStores(s); err != nil {
		return nil, err
	}
	ring := signature.NewKeyring()
	for _, name := range f.keyrings.Value() {
		if err := s.env.checkNamed("--keyring", name); err != nil {
			return nil, usagef(s.command, "%v", err)
		}
		data, err := readFile(s.env.expandHome(name), maxKeyFile)
		if err == nil {
			err = ring.AddTrusted(name, data)
		}
		if err != nil {
			return nil, usagef(s.command, "--keyring %s: %v", name, err)
		}
	}
	return &signature.Verifier{Keyring: ring, SystemKeyFiles: systemKeys, Logger: s.log}, nil
}

func (f *trustFlags) policyValue(command string) (bundle.Policy, error) {
	switch f.policy {
	case "", "require":
		return bundle.PolicyRequire, nil
	case "warn":
		return bundle.PolicyWarn, nil
	}
	return 0, usagef(command, "--signature-policy is require or warn, not %q", f.policy)
}

// checkStores refuses a signature store that is no address and no folder: a typing error
// would pass for a store that has no signature.
func (f *trustFlags) checkStores(s *session) error {
	for _, store := range f.storeList(s.env) {
		if strings.Contains(store, "://") && !strings.HasPrefix(store, "file://") {
			continue
		}
		dir := strings.TrimPrefix(store, "file://")
		if err := s.env.checkNamed("--signature-store", dir); err != nil {
			return usagef(s.command, "%v; it is a folder laid out sha256=<hex>/signature-N, or an http(s) address", err)
		}
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			return usagef(s.command, "--signature-store names %s, which is no folder; it holds sha256=<hex>/signature-N", dir)
		}
	}
	return nil
}

// storeList returns the signature stores that were named; nil if none was.
func (f *trustFlags) storeList(env environ) []string {
	var stores []string
	for _, s := range f.stores.Value() {
		stores = append(stores, env.expandHome(s))
	}
	return stores
}

// progressFlags is for commands that move bytes.
type progressFlags struct {
	mode string
	jobs int
}

func (f *progressFlags) flags(jobs string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "progress", Destination: &f.mode, Value: progressAuto,
			Usage: "`HOW` is auto (default: tty on a terminal, else plain), plain (a line every 30 seconds and at each phase), tty (bars), json (one event a line) or quiet; all on stderr"},
		&cli.IntFlag{Name: "jobs", Destination: &f.jobs, Usage: "`N` " + jobs, Action: checkJobs},
	}
}

// checkJobs looks at --jobs where it is given; without it each command has its own default.
func checkJobs(c *cli.Context, n int) error {
	if n < 1 || n > 256 {
		return usagef(c.Command.Name, "--jobs is a number from 1 to 256, not %d", n)
	}
	return nil
}

func (f *progressFlags) check(command string) error {
	if !slices.Contains(progressModes, f.mode) {
		return usagef(command, "--progress is one of %s, not %q", strings.Join(progressModes, ", "), f.mode)
	}
	return nil
}

// outputFlags is for commands that can print JSON.
type outputFlags struct{ output string }

func (f *outputFlags) flags(usage string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Destination: &f.output, Value: "text", Usage: usage},
	}
}

// json reports whether JSON is asked for.
func (f *outputFlags) json(command string) (bool, error) {
	switch f.output {
	case "text":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usagef(command, "--output is text or json, not %q", f.output)
}

// dryJSON is json for commands that print JSON in a dry run only.
func (f *outputFlags) dryJSON(command string, dry bool) (bool, error) {
	asked, err := f.json(command)
	if err == nil && asked && !dry {
		return false, usagef(command, "-o json goes with --dry-run here; --progress json gives events while it works")
	}
	return asked, err
}

// mirrorSetFlag is the kind of mirror set.
type mirrorSetFlag struct{ kind string }

func (f *mirrorSetFlag) flag() cli.Flag {
	return &cli.StringFlag{Name: "mirror-set", Destination: &f.kind, Value: "auto",
		Usage: "`KIND` is icsp (ImageContentSourcePolicy), idms (ImageDigestMirrorSet) or auto (default): icsp if the release can be reached from a version below 4.13, else idms"}
}

func (f *mirrorSetFlag) value(command string) (objects.Kind, error) {
	if f.kind == "auto" || f.kind == "" {
		return "", nil
	}
	kind, err := objects.ParseKind(f.kind)
	if err != nil || kind == objects.ITMS {
		return "", usagef(command, "--mirror-set is auto, icsp or idms, not %q", f.kind)
	}
	return kind, nil
}

// parseDestination reads REGISTRY/REPO from a flag or an argument.
func parseDestination(command, what, s string) (*objects.Destination, error) {
	d, err := objects.ParseDestination(s)
	if err != nil {
		return nil, usagef(command, "%s: %v", what, err)
	}
	return &d, nil
}

// parseMirrors reads FROM=TO of --registry-mirror.
func parseMirrors(command string, values []string) ([]remote.Mirror, error) {
	var mirrors []remote.Mirror
	for _, v := range values {
		m, err := remote.ParseMirror(v)
		if err != nil {
			return nil, usagef(command, "--registry-mirror: %v", err)
		}
		mirrors = append(mirrors, m)
	}
	return mirrors, nil
}

// parseReleaseSelection checks the values of --release: VERSION or VERSION-ARCH.
func parseReleaseSelection(command string, values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		ref, err := release.ParseReference(v, release.Defaults{})
		if err != nil || strings.Contains(v, "/") {
			return nil, usagef(command, "--release is VERSION or VERSION-ARCH, as 4.8.21 or 4.8.21-x86_64; not %q", v)
		}
		if arch, isArch := strings.CutPrefix(v, ref.Version+"-"); isArch && arch != "" {
			v = release.Tag(ref.Version, ref.Arch) // spelled as on the drive: amd64 is x86_64 there
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// readFile reads a file that must not be longer than limit.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: longer than %d bytes", name, limit)
	}
	return data, err
}
