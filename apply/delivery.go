package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// Delivery is what a cluster is to be given: the objects in the order in which they are
// applied, and the releases that they make usable.
type Delivery struct {
	From         string
	Media        bool // From is a drive; otherwise it is a folder of objects
	Objects      []objects.Object
	Alternatives []objects.Object // mirror sets in their other form
	Releases     []objects.ReleaseInfo
	LeftOut      []string // tags of releases that were not asked for
	Warnings     []string
}

// DeliveryOptions say what [ReadDelivery] reads. From and Destination must be set; the
// fields from Signatures on are for drives.
type DeliveryOptions struct {
	From        string // MEDIA, or a folder that was written with ObjectsDir
	Destination objects.Destination
	Cluster     *objects.Destination // the name by which the nodes know the registry, if another
	Releases    []string             // only these, "4.8.21" or "4.8.21-x86_64"; nil means all

	Signatures  bundle.SignatureVerifier
	Policy      bundle.Policy
	StoreClient *remote.Client // asks Stores for releases whose drive carries no signature; nil asks nobody
	Stores      []string
	MirrorSet   objects.Kind
	Prefix      string // what stands before the path of additional images
	Cache       string // folder on the local disk for copies of indexes; must be given for a drive
	Logger      *slog.Logger
}

// ErrElsewhere says that a folder of objects names another registry than the one that is
// meant: its objects would send a cluster there.
var ErrElsewhere = errors.New("the objects are for another registry")

func (o *DeliveryOptions) nodes() objects.Destination {
	if o.Cluster != nil {
		return *o.Cluster
	}
	return o.Destination
}

// ReadDelivery reads a drive, whose objects are rendered as [Unpack] renders them, or a
// folder that unpack or mirror wrote. Nothing is pushed, and nobody is contacted but the
// signature stores that are named.
//
// Errors: those of [Unpack] for what a drive holds, [objects.ErrInvalid] and [ErrElsewhere]
// for a folder.
func ReadDelivery(ctx context.Context, opts DeliveryOptions) (*Delivery, error) {
	folder, err := isObjectsFolder(opts.From)
	if err != nil {
		return nil, err
	}
	if folder {
		return readFolder(opts)
	}
	return readDrive(ctx, opts)
}

// isObjectsFolder tells a folder of objects from a drive, which has a layout.
func isObjectsFolder(dir string) (bool, error) {
	if _, err := os.Stat(dir); err != nil {
		return false, err
	}
	if _, err := os.Lstat(filepath.Join(dir, "oci-layout")); err == nil {
		return false, nil
	}
	_, err := os.Lstat(filepath.Join(dir, releaseFile))
	return err == nil, nil
}

func readDrive(ctx context.Context, opts DeliveryOptions) (*Delivery, error) {
	u := newUnpacker(UnpackOptions{
		Media: []string{opts.From}, Destination: opts.Destination, Cluster: opts.Cluster, Releases: opts.Releases,
		Signatures: opts.Signatures, Policy: opts.Policy, StoreClient: opts.StoreClient, Stores: opts.Stores,
		MirrorSet: opts.MirrorSet, Prefix: opts.Prefix, Cache: opts.Cache, Logger: opts.Logger,
	})
	defer u.close()
	if err := u.open(ctx); err != nil {
		return nil, err
	}
	if len(u.sources) == 0 {
		return nil, errors.Join(u.errs...)
	}
	for _, err := range u.errs { // a pack that was begun since the seal is no matter here
		u.warn("%v", err)
	}
	u.errs = nil
	if err := u.choose(ctx); err != nil {
		return nil, err
	}
	for _, s := range u.releases {
		if s.unread {
			u.errs = append(u.errs, fmt.Errorf("%s: %w: the release image of %s cannot be read", opts.From, bundle.ErrDamaged, s.record.Tag))
		}
	}
	for _, img := range u.images {
		img.tag = img.record.Tag
		if img.record.Kind != store.KindAdditional {
			continue
		}
		ref, err := release.ParseImageReference(img.record.Tag)
		if err != nil {
			return nil, err
		}
		img.tag = ref.Tag
	}
	if err := errors.Join(u.errs...); err != nil {
		return nil, err
	}
	if err := u.render(); err != nil {
		return nil, err
	}
	r := u.res
	return &Delivery{From: opts.From, Media: true, Objects: r.Objects, Alternatives: r.Alternatives, Releases: r.Infos,
		LeftOut: r.LeftOut, Warnings: r.Warnings}, nil
}

// Names of what a folder of objects holds beside them.
const (
	releaseFile        = "release.json"
	alternativesFolder = "alternatives"
)

// maxObjectFiles bounds how many files of a folder are read; unpack writes a handful.
const maxObjectFiles = 1000

func readFolder(opts DeliveryOptions) (*Delivery, error) {
	d := &Delivery{From: opts.From}
	raw, err := readRegular(filepath.Join(opts.From, releaseFile))
	if err != nil {
		return nil, err
	}
	all, err := objects.ParseReleaseJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opts.From, err)
	}
	if err := d.choose(all, opts); err != nil {
		return nil, err
	}
	found, err := readObjects(opts.From)
	if err != nil {
		return nil, err
	}
	if d.Alternatives, err = readObjects(filepath.Join(opts.From, alternativesFolder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, o := range found {
		if wanted, err := d.wants(o); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(opts.From, o.FileName()), err)
		} else if wanted {
			d.Objects = append(d.Objects, o)
		}
	}
	slices.SortStableFunc(d.Objects, func(a, b objects.Object) int { return order(a) - order(b) })
	return d, nil
}

// choose selects the releases of a folder, all of which must be at the registry that is meant.
func (d *Delivery) choose(all []objects.ReleaseInfo, opts DeliveryOptions) error {
	nodes := opts.nodes().String()
	found := map[string]bool{}
	for _, r := range all {
		if r.Image != nodes+"@"+r.Digest.String() {
			repository, _, _ := strings.Cut(r.Image, "@")
			return fmt.Errorf("%s: %w: %s, and %s is meant; if the nodes know it as %s, say --cluster-registry %s",
				opts.From, ErrElsewhere, repository, nodes, repository, repository)
		}
		tag := release.Tag(r.Version, r.Arch)
		wanted := len(opts.Releases) == 0
		for _, want := range opts.Releases {
			if want == r.Version || want == tag {
				wanted, found[want] = true, true
			}
		}
		if wanted {
			d.Releases = append(d.Releases, r)
		} else {
			d.LeftOut = append(d.LeftOut, tag)
		}
	}
	for _, want := range opts.Releases {
		if !found[want] {
			return fmt.Errorf("%s: %w: %s; there are %s", opts.From, bundle.ErrNoRelease, want, strings.Join(d.LeftOut, ", "))
		}
	}
	return nil
}

// wants reports whether an object is for a release that was chosen: mirror sets are for all,
// a signature is for its digest.
func (d *Delivery) wants(o objects.Object) (bool, error) {
	if o.Kind != "ConfigMap" {
		return true, nil
	}
	signed, err := objects.ParseSignatureConfigMap(o.YAML)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(d.Releases, func(r objects.ReleaseInfo) bool { return len(signed[r.Digest]) > 0 }), nil
}

// order puts signatures before mirror sets.
func order(o objects.Object) int {
	if o.Kind == "ConfigMap" {
		return 0
	}
	return 1
}

// readObjects reads the YAML files of a folder, by name.
func readObjects(dir string) ([]objects.Object, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []objects.Object
	for i, e := range entries {
		if i == maxObjectFiles {
			return nil, fmt.Errorf("%s: %w: more than %d files are no objects of a release", dir, objects.ErrInvalid, maxObjectFiles)
		}
		if ext := filepath.Ext(e.Name()); ext != ".yaml" && ext != ".yml" {
			continue
		}
		name := filepath.Join(dir, e.Name())
		raw, err := readRegular(name)
		if err != nil {
			return nil, err
		}
		docs, err := objects.Documents(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, doc := range docs {
			o, err := parseObject(doc)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			out = append(out, o)
		}
	}
	return out, nil
}

func parseObject(doc []byte) (objects.Object, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := objects.Decode(doc, &head); err != nil {
		return objects.Object{}, err
	}
	if head.Kind == "" || head.Metadata.Name == "" {
		return objects.Object{}, fmt.Errorf("%w: it is no cluster object", objects.ErrInvalid)
	}
	return objects.Object{APIVersion: head.APIVersion, Kind: head.Kind, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, YAML: doc}, nil
}

// readRegular reads a plain file of bounded size: a folder from elsewhere may hold anything.
func readRegular(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", name, layout.ErrUnsafe)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, objects.MaxDocument+1))
	if err == nil && len(raw) > objects.MaxDocument {
		err = fmt.Errorf("%s: %w: longer than %d bytes", name, objects.ErrInvalid, objects.MaxDocument)
	}
	return raw, err
}
