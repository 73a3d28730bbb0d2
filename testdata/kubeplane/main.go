// Command kubeplane is a Kubernetes control plane small enough to start in a test: an etcd
// and a kube-apiserver in one process, on loopback, with RBAC. It has no controllers, no
// scheduler and no kubelet: a test plays those parts it needs, and so decides what happens.
//
// It keeps all it has in one folder. Killed at any moment and started again on the same
// folder it serves the same objects at the same address to the same kubeconfig.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `usage: kubeplane -dir DIR [-port N] [-until-eof] [-- KUBE-APISERVER FLAGS]

Prints "ready ADDRESS KUBECONFIG" once it serves, and stops on SIGTERM.
`

func main() {
	dir := flag.String("dir", "", "folder of the data, the logs and the kubeconfig; made if it is missing")
	port := flag.Int("port", 0, "port on 127.0.0.1; 0: the one this folder had before, else a free one")
	untilEOF := flag.Bool("until-eof", false, "stop when standard input ends: no orphan outlives the test that holds it")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if *dir == "" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *untilEOF {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	stderr := os.Stderr // run gives the name to the log of the server
	if err := run(ctx, *dir, *port, flag.Args()); err != nil {
		fmt.Fprintln(stderr, "kubeplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, port int, flags []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	// The server writes its log to whatever os.Stderr is when it sets the log up. A restart
	// goes on in the same file: the log of a killed server says what it was at.
	log, err := logFile(dir)
	if err != nil {
		return err
	}
	defer log.Close()
	os.Stderr = log

	p, err := openPlane(dir)
	if err != nil {
		return err
	}
	l, err := p.listen(ctx, port)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(ctx, dir)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer etcd.Close()

	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, append(p.flags(etcdEndpoint(dir)), flags...)) }()
	if err := p.waitReady(ctx, ended); err != nil {
		return fmt.Errorf("kube-apiserver: %w (its log: %s)", err, log.Name())
	}
	if ctx.Err() == nil {
		if err := p.writeKubeconfig(); err != nil {
			return err
		}
		fmt.Printf("ready %s %s\n", p.address(), p.kubeconfig())
		fmt.Fprintf(log, "kubeplane: ready after %s\n", time.Since(began).Round(time.Millisecond))
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second): // a watch that nobody ends must not hold us
	}
	return nil
}

func logFile(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "kube-apiserver.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
