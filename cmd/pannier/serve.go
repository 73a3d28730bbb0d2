package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/apply/serve"
	"pannier/bundle/content"
	"pannier/bundle/objects"
)

type serveFlags struct {
	logFlags
	trustFlags

	fromDir    cli.StringSlice
	releases   cli.StringSlice
	authority  string
	listen     string
	repository string

	tls      bool
	tlsCert  string
	tlsKey   string
	tlsNames cli.StringSlice
	tlsSave  string
}

const defaultListen = "127.0.0.1:5000"

func (s *session) serveCommand() *cli.Command {
	f := &serveFlags{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "listen", Destination: &f.listen, Value: defaultListen,
			Usage: "`ADDRESS` to listen at (default: " + defaultListen + "); with :5000 or 0.0.0.0:5000 other hosts reach it"},
		&cli.StringFlag{Name: "repository", Destination: &f.repository,
			Usage: "serve everything under the repository `NAME` too, with the tags that unpack writes (default: $LOCAL_REPOSITORY)"},
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases, Usage: "only the release `VERSION[-ARCH]`; repeatable; default: all"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.BoolFlag{Name: "tls", Destination: &f.tls,
			Usage: "encrypt with a certificate made for this run; its SHA-256 fingerprint is printed"},
		&cli.StringSliceFlag{Name: "tls-name", Destination: &f.tlsNames,
			Usage: "a further `NAME` or address that the self-made certificate is for; repeatable"},
		&cli.StringFlag{Name: "tls-save", Destination: &f.tlsSave, TakesFile: true,
			Usage: "write the self-made certificate, without its key, to `FILE`, for those who shall trust it"},
		&cli.StringFlag{Name: "tls-cert", Destination: &f.tlsCert, TakesFile: true, Usage: "`FILE` with a certificate of your own, PEM"},
		&cli.StringFlag{Name: "tls-key", Destination: &f.tlsKey, TakesFile: true, Usage: "`FILE` with the key of that certificate"},
		&cli.StringFlag{Name: "certificate-authority", Destination: &f.authority, TakesFile: true,
			Usage: "`FILE` with further certificate authorities to trust, for signature stores"},
	}
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "serve", Usage: "the drive as a read-only registry", ArgsUsage: "MEDIA",
		Description: "What is sealed and signed on the drive can be pulled from here, under its original names:\n" +
			"openshift-release-dev/ocp-release and the others. A blob is verified before its first byte\n" +
			"is sent. Nothing is written to the drive. The address goes to stdout once it answers, a line\n" +
			"for every pull to stderr. Ctrl-C ends it, with exit code 0, or 4 if something was damaged.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.serve(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) serve(ctx context.Context, f *serveFlags, args []string) error {
	opts, err := s.serveOptions(f, args)
	if err != nil {
		return err
	}
	if err := s.start(&f.logFlags, nil); err != nil {
		return err
	}
	opts.Logger = s.log
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier
	if opts.Stores = f.storeList(s.env); len(opts.Stores) > 0 {
		if opts.StoreClient, err = s.storeClient(f.authority); err != nil {
			return err
		}
	}
	if opts.Listener, err = net.Listen("tcp", f.listen); err != nil {
		if errors.As(err, new(*net.DNSError)) || errors.As(err, new(*net.AddrError)) {
			return usagef(s.command, "--listen %s: %v", f.listen, err)
		}
		return fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	addr := opts.Listener.Addr()
	defer opts.Listener.Close()
	secure, err := s.secure(f, addr)
	if err != nil {
		return err
	}
	scheme := "http"
	if secure != nil {
		scheme = "https"
		opts.Listener = tls.NewListener(opts.Listener, secure)
	}
	opts.Ready = func(r *apply.ServeResult) { s.sayServed(r, scheme, serve.Reached(addr)) }
	opts.Pulled = func(p serve.Pull) { s.sayPull(p, f.verbose > 0) }

	s.console.stopText("stopping: what is under way is finished; once more ends at once")
	s.endless = true
	result, err := apply.Serve(ctx, opts)
	if len(result.Repositories) == 0 {
		s.warnAll(result.Warnings)
	}
	s.warnAll(result.Healed)
	return err
}

// serveOptions reads arguments, flags and the environment.
func (s *session) serveOptions(f *serveFlags, args []string) (apply.ServeOptions, error) {
	opts := apply.ServeOptions{Cache: s.cacheDir(), Repository: f.repository}
	var err error
	if opts.Media, err = s.oneMedia(append(f.fromDir.Value(), args...)); err != nil {
		return opts, err
	}
	if err := s.offDrive("--tls-save", f.tlsSave); err != nil {
		return opts, err
	}
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return opts, err
	}
	if opts.Releases, err = parseReleaseSelection(s.command, f.releases.Value()); err != nil {
		return opts, err
	}
	what := "--repository"
	if opts.Repository == "" {
		what, opts.Repository = "LOCAL_REPOSITORY", s.env("LOCAL_REPOSITORY")
	}
	if opts.Repository != "" {
		if d, err := objects.ParseDestination("localhost:5000/" + opts.Repository); err != nil || d.Repository != opts.Repository {
			return opts, usagef(s.command, "%s is the path of a repository, as ocp4/openshift4; not %q", what, opts.Repository)
		}
	}
	_, port, err := net.SplitHostPort(f.listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return opts, usagef(s.command, "--listen is HOST:PORT or :PORT, as %s; not %q", defaultListen, f.listen)
	}
	own := f.tlsCert != "" || f.tlsKey != ""
	switch {
	case own && (f.tlsCert == "" || f.tlsKey == ""):
		return opts, usagef(s.command, "--tls-cert and --tls-key go together")
	case own && (f.tls || f.tlsSave != "" || len(f.tlsNames.Value()) > 0):
		return opts, usagef(s.command, "--tls, --tls-name and --tls-save are about a certificate that is made for this run; --tls-cert names one of your own")
	case !own && !f.tls && (f.tlsSave != "" || len(f.tlsNames.Value()) > 0):
		return opts, usagef(s.command, "--tls-name and --tls-save go with --tls")
	}
	for flag, name := range map[string]string{"--tls-cert": f.tlsCert, "--tls-key": f.tlsKey, "--certificate-authority": f.authority} {
		if err := s.env.checkNamed(flag, name); err != nil {
			return opts, usagef(s.command, "%v", err)
		}
	}
	return opts, nil
}

// secure makes the TLS that was asked for; nil is none.
func (s *session) secure(f *serveFlags, addr net.Addr) (*tls.Config, error) {
	var cert tls.Certificate
	var err error
	switch {
	case f.tlsCert != "":
		if cert, err = tls.LoadX509KeyPair(s.env.expandHome(f.tlsCert), s.env.expandHome(f.tlsKey)); err != nil {
			return nil, usagef(s.command, "--tls-cert %s, --tls-key %s: %v", f.tlsCert, f.tlsKey, err)
		}
	case f.tls:
		if cert, err = serve.SelfMade(time.Now(), append(serve.Names(addr), f.tlsNames.Value()...)...); err != nil {
			return nil, err
		}
		if f.tlsSave != "" {
			if err := os.WriteFile(s.env.expandHome(f.tlsSave), serve.PEM(cert), 0o644); err != nil {
				return nil, fmt.Errorf("--tls-save: %w", err)
			}
		}
	default:
		if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
			s.console.warn("other hosts reach %s, and what they pull is not encrypted: --tls makes a certificate. Whoever checks digests, as nodes and podman do, is not misled.", serve.Reached(addr))
		}
		return nil, nil
	}
	s.console.say("certificate, SHA-256 fingerprint\n    %s", serve.Fingerprint(cert))
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// sayServed tells what can be pulled, before the first request is answered.
func (s *session) sayServed(r *apply.ServeResult, scheme, addr string) {
	c := s.console
	s.warnAll(r.Warnings)
	for _, rel := range r.Releases {
		state := ""
		if !rel.Complete {
			state = ", NOT COMPLETE"
		}
		c.say("release %s%s\n    %s/%s", rel.Tag, state, addr, rel.Path)
		c.prose("    signature %s", signatureText(rel.Signature))
	}
	if len(r.LeftOut) > 0 {
		c.say("left out: %s", strings.Join(r.LeftOut, ", "))
	}
	for _, refused := range r.Refused {
		c.warn("not served: %s: %v", content.Few(refused.Images), refused.Err)
	}
	c.say("%s in: %s", content.Plural(r.Images, "image", "images"), strings.Join(r.Repositories, ", "))
	c.say("serving at %s://%s until Ctrl-C", scheme, addr)
	_ = c.print("%s\n", addr) // nobody may be listening
}

// sayPull logs a request: what was pulled, and what was refused or could not be. What clients
// ask besides is told with -v.
func (s *session) sayPull(p serve.Pull, all bool) {
	pulled := p.Method == http.MethodGet && p.Digest != ""
	if !pulled && p.Status < http.StatusBadRequest && !all {
		return
	}
	what := p.Path
	if p.Digest != "" {
		what = p.Repository + "@" + p.Digest.String()
		if p.Reference != "" {
			what = p.Repository + ":" + p.Reference + "@" + p.Digest.String()
		}
	}
	line := fmt.Sprintf("%s %s %s %d %s", p.Client, p.Method, what, p.Status, content.SizeText(p.Bytes))
	if p.Agent != "" {
		line += " " + p.Agent
	}
	if p.Healed {
		line += ": reconstructed from the drive's parity"
	}
	if p.Told != "" {
		line += ": " + p.Told
	}
	if p.Err != nil {
		line += ": " + p.Err.Error()
	}
	s.console.say("%s", line)
}
