package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// BackupAge is how old evidence of an etcd backup may be.
const BackupAge = 24 * time.Hour

// clockSlack is how far in the future a time may lie and still be taken for now.
const clockSlack = 5 * time.Minute

// Backup is a backup of etcd as a person names it: a snapshot file that can be looked at, or
// the time at which one was taken, which is believed.
type Backup struct {
	File string // "" if only a time was given
	Time time.Time
	Size int64
}

// backupTimes are the ways to write a time; those without zone are local.
var backupTimes = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"}

// ParseBackup reads what is given as evidence: a time (2026-01-31T15:04, with or without
// seconds and zone; or an age, "3h") or the name of a snapshot file, which is inspected.
func ParseBackup(ctx context.Context, s string, now time.Time) (Backup, error) {
	for _, layout := range backupTimes {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return Backup{Time: t}, nil
		}
	}
	if age, err := time.ParseDuration(s); err == nil && age >= 0 {
		return Backup{Time: now.Add(-age)}, nil
	}
	b, err := InspectSnapshot(ctx, s)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no file %s, and a time is written 2026-01-31T15:04 or, as an age, 3h: %w", s, fs.ErrNotExist)
	}
	return b, err
}

// snapshotTime finds the time in the name that cluster-backup.sh gives: on the node, in UTC.
var snapshotTime = regexp.MustCompile(`^snapshot_(\d{4}-\d{2}-\d{2}_\d{6})\.db$`)

// InspectSnapshot looks at a file that "etcdctl snapshot save" or cluster-backup.sh wrote: a
// database of whole 512-byte blocks, and behind it its SHA-256. Its time is the one in the
// name, else that of the last change. Errors say what is wrong with it.
func InspectSnapshot(ctx context.Context, name string) (Backup, error) {
	b := Backup{File: name}
	f, err := os.Open(name)
	if err != nil {
		return b, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return b, err
	}
	b.Size, b.Time = info.Size(), info.ModTime()
	if m := snapshotTime.FindStringSubmatch(filepath.Base(name)); m != nil {
		if t, err := time.Parse("2006-01-02_150405", m[1]); err == nil {
			b.Time = t
		}
	}
	fail := func(why string) (Backup, error) {
		return b, fmt.Errorf("%s is no usable etcd snapshot: %s", name, why)
	}
	switch {
	case !info.Mode().IsRegular():
		return fail("it is no regular file")
	case b.Size < 2*512+sha256.Size:
		return fail(fmt.Sprintf("it has only %d bytes", b.Size))
	case b.Size%512 == 0:
		return fail("the checksum at its end is missing; it may be a copy of the live database, which cannot be restored as a snapshot, or cut short")
	case b.Size%512 != sha256.Size:
		return fail("its size is not that of a snapshot; it was cut short, or is something else")
	}
	return b, checkSnapshot(ctx, f, b.Size)
}

// boltMagic stands in the first page of the database, after the page's head.
const boltMagic, boltMagicAt = 0xED0CDAED, 16

func checkSnapshot(ctx context.Context, f *os.File, size int64) error {
	head := make([]byte, boltMagicAt+4)
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head[boltMagicAt:]) != boltMagic && binary.BigEndian.Uint32(head[boltMagicAt:]) != boltMagic {
		return fmt.Errorf("%s is no usable etcd snapshot: it does not begin as an etcd database does", f.Name())
	}
	sum := sha256.New()
	sum.Write(head)
	if _, err := io.CopyN(sum, ctxReader{ctx, f}, size-int64(len(head))-sha256.Size); err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return fmt.Errorf("%s is no usable etcd snapshot: its bytes do not match the checksum at its end; it was damaged", f.Name())
	}
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// judge says whether a backup is recent enough.
func (b Backup) judge(now time.Time) Check {
	age := now.Sub(b.Time)
	what := fmt.Sprintf("taken at %s, as attested by whoever runs this", b.Time.UTC().Format(time.RFC3339))
	if b.File != "" {
		what = fmt.Sprintf("%s: %d bytes, whole by its checksum, of %s", b.File, b.Size, b.Time.UTC().Format(time.RFC3339))
	}
	switch {
	case age < -clockSlack:
		return fail(what+", which is in the future", takeBackup)
	case age > BackupAge:
		return fail(fmt.Sprintf("%s: %s old, and it must be younger than %s", what, age.Round(time.Minute), BackupAge), takeBackup)
	}
	if b.File == "" {
		return pass(what)
	}
	_, stamp, ok := strings.Cut(strings.TrimSuffix(filepath.Base(b.File), ".db"), "snapshot_")
	static := filepath.Join(filepath.Dir(b.File), "static_kuberesources_"+stamp+".tar.gz")
	if _, err := os.Stat(static); ok && errors.Is(err, os.ErrNotExist) {
		return warn(what+", but "+filepath.Base(static)+", which a restore needs too, does not lie beside it", "keep both files of cluster-backup.sh together, off the cluster")
	}
	return pass(what)
}

const takeBackup = "take one on a control plane node (oc debug node/NODE, then chroot /host and /usr/local/bin/cluster-backup.sh /home/core/assets/backup), keep both files off the cluster, and name it with --etcd-backup FILE, or --etcd-backup TIME if it lies elsewhere"

// checkEtcdBackup climbs a ladder: what a person names, backups that the cluster itself keeps
// account of, and the cluster's own backup for this version.
func checkEtcdBackup(ctx context.Context, in *inspection) Check {
	if in.opts.EtcdBackup != "" {
		b, err := ParseBackup(ctx, in.opts.EtcdBackup, in.now)
		if err != nil {
			return fail(err.Error(), takeBackup)
		}
		return b.judge(in.now)
	}
	var blind []string
	for _, look := range []func(context.Context, *inspection) (string, time.Time, error){
		etcdBackupObject, etcdBackupJob, etcdOperatorBackup,
	} {
		what, at, err := look(ctx, in)
		switch {
		case err != nil && !isNotFound(err):
			blind = append(blind, err.Error())
		case err == nil && what != "" && in.now.Sub(at) <= BackupAge:
			return pass(fmt.Sprintf("%s, %s", what, at.UTC().Format(time.RFC3339)))
		}
	}
	detail := fmt.Sprintf("no evidence of a backup younger than %s; one taken by hand leaves no trace in the cluster", BackupAge)
	if len(blind) > 0 {
		detail += " (and not looked at: " + strings.Join(blind, "; ") + ")"
	}
	return fail(detail, takeBackup)
}

// etcdBackupObject is the newest EtcdBackup that was completed.
func etcdBackupObject(ctx context.Context, in *inspection) (what string, at time.Time, err error) {
	type object struct {
		Metadata meta `json:"metadata"`
		Status   struct {
			Conditions conditions `json:"conditions"`
		} `json:"status"`
	}
	all, err := list[object](ctx, in.c, etcdBackups, "", "")
	for _, o := range all {
		for _, c := range o.Status.Conditions {
			if c.Reason == "BackupCompleted" && c.Status == "True" && c.LastTransitionTime.After(at) {
				what, at = "EtcdBackup "+o.Metadata.Name+" completed", c.LastTransitionTime
			}
		}
	}
	return what, at, err
}

// etcdBackupJob is the newest success of a scheduled backup.
func etcdBackupJob(ctx context.Context, in *inspection) (what string, at time.Time, err error) {
	type object struct {
		Metadata meta `json:"metadata"`
		Status   struct {
			LastSuccessfulTime time.Time `json:"lastSuccessfulTime"`
		} `json:"status"`
	}
	var all []object
	all, err = list[object](ctx, in.c, cronJobs, "openshift-etcd", "")
	for _, o := range all {
		if o.Status.LastSuccessfulTime.After(at) {
			what, at = "CronJob "+o.Metadata.Name+" in openshift-etcd succeeded", o.Status.LastSuccessfulTime
		}
	}
	return what, at, err
}

// etcdOperatorBackup is the backup that clusters of 4.8 to 4.14 take by themselves; one of an
// earlier version proves nothing.
func etcdOperatorBackup(ctx context.Context, in *inspection) (what string, at time.Time, err error) {
	var co clusterOperator
	if err := in.c.get(ctx, clusterOperators, "", "etcd", &co); err != nil {
		return "", at, err
	}
	cv, err := in.version(ctx)
	if err != nil {
		return "", at, err
	}
	c := co.Status.Conditions.get("RecentBackup")
	if c.Status != "True" || !strings.Contains(c.Message, "UpgradeBackup for "+cv.current()+" ") {
		return "", at, nil
	}
	return "clusteroperator etcd: " + c.text(), c.LastTransitionTime, nil
}
