package remote

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"pannier/bundle/content"
)

// exercise is the whole of what a registry is asked for; every real registry passes it.
func exercise(t *testing.T, r *Repository) {
	t.Helper()
	ctx := testContext(t)
	if err := r.CheckPush(ctx); err != nil {
		t.Fatal(err)
	}
	desc, raw, layer := pushImage(t, r, "4.8.21-x86_64")
	for _, ref := range []string{"4.8.21-x86_64", desc.Digest.String()} {
		got, err := r.Resolve(ctx, ref)
		if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != desc.MediaType {
			t.Fatalf("resolve %s: %v, %v", ref, got, err)
		}
		got, body, err := r.Manifest(ctx, ref)
		if err != nil || got.Digest != desc.Digest || !bytes.Equal(body, raw) {
			t.Fatalf("manifest %s: %v, %v", ref, got, err)
		}
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		t.Fatal(err)
	}
	ld := m.Layers[0]
	for _, offset := range []int64{0, 1, 50000, ld.Size - 1, ld.Size} {
		rc, err := r.Fetch(ctx, ld, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		if err != nil || !bytes.Equal(got, layer[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
		rc.Close()
	}
	if _, err := content.ReadAll(ctx, r, desc, content.MaxManifest); err != nil {
		t.Errorf("manifest by descriptor: %v", err)
	}
	big, bd := randomBlob(3 << 20)
	if ok, err := r.Exists(ctx, bd); ok || err != nil {
		t.Errorf("before the push: %v, %v", ok, err)
	}
	if err := r.PushBlob(ctx, bd, opens(big, bd)); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(m.Children(), desc, bd) {
		if ok, err := r.Exists(ctx, d); !ok || err != nil {
			t.Errorf("%s: exists %v, %v", d.Digest, ok, err)
		}
	}
	empty, ed := []byte{}, descOf("application/octet-stream", nil)
	if err := r.PushBlob(ctx, ed, opens(empty, ed)); err != nil {
		t.Errorf("empty blob: %v", err)
	}
	tags, err := r.Tags(ctx)
	if err != nil || !slices.Contains(tags, "4.8.21-x86_64") {
		t.Errorf("tags: %v, %v", tags, err)
	}
	other, err := r.c.Repository(r.host.name + "/other/place")
	if err != nil {
		t.Fatal(err)
	}
	ok, err := other.Mount(ctx, bd, r.path)
	if err != nil {
		t.Errorf("mount: %v", err)
	}
	if have, err := other.Exists(ctx, bd); have != ok || err != nil {
		t.Errorf("mounted %v, there %v, %v", ok, have, err)
	}
	if _, err := r.Resolve(ctx, "no-such-tag"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown tag: %v", err)
	}
	_, gone := randomBlob(77)
	if _, err := r.Fetch(ctx, gone, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown blob: %v", err)
	}
	_, corrupt := randomBlob(2 << 20)
	if err := r.PushBlob(ctx, corrupt, opens(make([]byte, 2<<20), corrupt)); !errors.Is(err, content.ErrDigest) {
		t.Errorf("corrupt source: %v", err)
	}
	if ok, err := r.Exists(ctx, corrupt); ok || err != nil {
		t.Errorf("corrupt blob: exists %v, %v", ok, err)
	}
}

func TestOlareg(t *testing.T) {
	s := olaregServer(t, nil)
	exercise(t, newRepo(t, Options{}, hostOf(s)+"/ocp4/openshift4"))
}
