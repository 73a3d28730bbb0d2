package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/logs"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// etcdEndpoint is a socket in the folder: no port to race for, and nobody else finds it.
func etcdEndpoint(dir string) string { return socket(dir, "etcd.sock").String() }

func socket(dir, name string) *url.URL {
	return &url.URL{Scheme: "unix", Path: filepath.Join(dir, name)}
}

// startEtcd starts a cluster of one. It never waits for the disk: a kill of the process
// loses nothing, since the kernel has what was written; of a crash of the machine no test
// survives to tell.
func startEtcd(ctx context.Context, dir string) (*embed.Etcd, error) {
	wal.SegmentSizeBytes = 4 << 20 // allocated in advance, twice; 64 MiB by default
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenClientUrls = []url.URL{*socket(dir, "etcd.sock")}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ListenPeerUrls = []url.URL{*socket(dir, "peer.sock")}
	c.AdvertisePeerUrls = c.ListenPeerUrls
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.UnsafeNoFsync = true
	c.TickMs, c.ElectionMs = 10, 100 // there is nobody to wait for in the election
	c.LogLevel = "error"
	c.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err := <-e.Err():
		e.Close()
		return nil, err
	case <-ctx.Done():
		e.Close()
		return nil, errors.New("told to stop before it was ready")
	}
}

// serve runs the kube-apiserver on l until ctx ends. Its own command would do the same, but
// it catches the signals itself and does not heed a context.
func serve(ctx context.Context, l net.Listener, flags []string) error {
	logs.InitLogs()
	defer logs.FlushLogs()
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	o := options.NewServerRunOptions()
	named := o.Flags()
	globalflag.AddGlobalFlags(named.FlagSet("global"), "kube-apiserver")
	set := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, f := range named.FlagSets {
		set.AddFlagSet(f)
	}
	if err := set.Parse(flags); err != nil {
		return err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	o.SecureServing.Listener = l
	completed, err := o.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return utilerrors.NewAggregate(errs)
	}
	return app.Run(ctx, completed)
}
