package content_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// readAll reads r with buffers of n bytes and returns what was handed over.
func readAll(r io.Reader, n int) ([]byte, error) {
	var out []byte
	buf := make([]byte, n)
	for {
		k, err := r.Read(buf)
		out = append(out, buf[:k]...)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

// Whatever the sizes of buffers and of what the source gives, right bytes arrive whole, and
// wrong ones never arrive to the last.
func TestReaderEverySplit(t *testing.T) {
	data := []byte("the quick brown fox jumps over")
	wrong := bytes.Clone(data)
	wrong[0] ^= 1
	desc := content.Descriptor("x", data)
	sources := map[string]func(io.Reader) io.Reader{
		"as it comes": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "half": iotest.HalfReader,
		"data with EOF": iotest.DataErrReader,
	}
	for name, source := range sources {
		for n := 1; n <= len(data)+2; n++ {
			for _, tc := range []struct {
				what string
				data []byte
				err  error
			}{
				{"right", data, nil}, {"wrong", wrong, content.ErrDigest}, {"too short", data[:len(data)-1], content.ErrSize},
				{"too long", append(bytes.Clone(data), '!'), content.ErrSize}, {"nothing", nil, content.ErrSize},
			} {
				r, err := content.NewReader(source(bytes.NewReader(tc.data)), desc)
				if err != nil {
					t.Fatal(err)
				}
				got, err := readAll(r, n)
				if !errors.Is(err, tc.err) || tc.err == nil && !bytes.Equal(got, data) || tc.err != nil && len(got) >= len(data) {
					t.Errorf("%s, %s, buffer %d: %d bytes, %v", tc.what, name, n, len(got), err)
				}
				if _, again := r.Read(make([]byte, 1)); tc.err != nil && !errors.Is(again, tc.err) || tc.err == nil && again != io.EOF {
					t.Errorf("%s, %s, buffer %d: after the end: %v", tc.what, name, n, again)
				}
			}
		}
	}
}

func TestReaderSourceError(t *testing.T) {
	data := []byte("some bytes")
	broken := errors.New("pulled")
	for n := range len(data) + 1 {
		r, err := content.NewReader(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)), content.Descriptor("x", data))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(r, 4); !errors.Is(err, broken) || len(got) == len(data) {
			t.Errorf("after %d: %q, %v", n, got, err)
		}
	}
}

func TestReaderEmpty(t *testing.T) {
	r, err := content.NewReader(strings.NewReader(""), content.Descriptor("x", nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	r, _ = content.NewReader(strings.NewReader("x"), content.Descriptor("x", nil))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, content.ErrSize) {
		t.Error(err)
	}
}

func TestDescriptors(t *testing.T) {
	good := digest.FromString("x")
	for _, d := range []ocispec.Descriptor{
		{Digest: "", Size: 1}, {Digest: "sha256:", Size: 1}, {Digest: "sha256:" + digest.Digest(strings.Repeat("G", 64))},
		{Digest: "sha256:" + digest.Digest(strings.ToUpper(good.Encoded()))}, {Digest: digest.SHA512.FromString("x")},
		{Digest: good, Size: -1}, {Digest: "sha256:../../etc/passwd"}, {Digest: good + "\n"},
	} {
		if err := content.CheckDescriptor(d); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%+v: %v", d, err)
		}
		if _, err := content.NewReader(strings.NewReader(""), d); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("reader of %+v: %v", d, err)
		}
	}
	if err := content.CheckDescriptor(ocispec.Descriptor{Digest: good}); err != nil {
		t.Error(err)
	}
}

type fetcher []byte

func (f fetcher) Fetch(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f)), nil
}

func TestReadAll(t *testing.T) {
	data := []byte("manifest")
	desc := content.Descriptor("x", data)
	if got, err := content.ReadAll(t.Context(), fetcher(data), desc, 100); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := content.ReadAll(t.Context(), fetcher(data), desc, 7); !errors.Is(err, content.ErrSize) {
		t.Error(err)
	}
	for name, tc := range map[string]struct {
		data string
		err  error
	}{"short": {"manifes", content.ErrSize}, "long": {"manifestx", content.ErrSize}, "wrong": {"Manifest", content.ErrDigest}} {
		if got, err := content.ReadAll(t.Context(), fetcher(tc.data), desc, 100); !errors.Is(err, tc.err) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestVerify(t *testing.T) {
	data := bytes.Repeat([]byte("the quick brown fox "), 50_000) // more than one buffer
	desc := content.Descriptor("x", data)
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	for _, tc := range []struct {
		what string
		data []byte
		want error
	}{
		{"right", data, nil}, {"wrong", wrong, content.ErrDigest}, {"too short", data[1:], content.ErrSize},
		{"too long", append(bytes.Clone(data), '!'), content.ErrSize}, {"nothing", nil, content.ErrSize},
	} {
		if err := content.Verify(t.Context(), fetcher(tc.data), desc); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.what, err, tc.want)
		}
	}
	if err := content.Verify(t.Context(), fetcher(nil), content.Descriptor("x", nil)); err != nil {
		t.Errorf("empty: %v", err)
	}
}
