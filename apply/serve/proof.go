package serve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

const (
	sliceSize = content.SliceSize // bytes that are hashed and handed out at once
	maxProofs = 4                 // blobs that are proven at the same time; more make a drive seek

	// maxHeals is how often a blob is healed that is damaged again and again: a drive on which
	// that happens is failing, and everybody who asks should hear of it.
	maxHeals = 5
)

type sum = [sha256.Size]byte

// proofs holds what is known of blobs. A blob is read and hashed to its end before its first
// byte is handed out, once; the SHA-256 of each slice is noted then, and compared whenever a
// slice is read again. So a part of a blob is as sure as all of it, and what is damaged later
// is found although its size and its time say nothing. A slice takes 32 bytes: a drive of
// 1 TiB takes 32 MiB.
type proofs struct {
	src  Source
	heal func(ocispec.Descriptor) []Healer
	slot chan struct{} // one for each blob that may be read
	stop chan struct{} // closed by end
	end  func()
	wg   sync.WaitGroup

	mu   sync.Mutex
	seen map[digest.Digest]*proof
	lost map[digest.Digest]int // how often a healed blob was damaged again
}

// proof is what is known, or being found out, of one blob.
type proof struct {
	done   chan struct{} // closed once the rest stands
	src    content.Fetcher
	sums   []sum
	healed bool // src is not the source itself
	err    error
}

func newProofs(src Source, heal func(ocispec.Descriptor) []Healer) *proofs {
	p := &proofs{src: src, heal: heal, slot: make(chan struct{}, maxProofs), stop: make(chan struct{}), seen: map[digest.Digest]*proof{}, lost: map[digest.Digest]int{}}
	p.end = sync.OnceFunc(func() { close(p.stop) })
	return p
}

func (p *proofs) close() {
	p.end()
	p.wg.Wait()
}

// of returns the proof of a blob that is proven. Who asks at the same time waits for one
// reading of it, which goes on when they have gone: they come again.
func (p *proofs) of(ctx context.Context, desc ocispec.Descriptor) (*proof, error) {
	p.mu.Lock()
	one, ok := p.seen[desc.Digest]
	if !ok {
		one = &proof{done: make(chan struct{})}
		p.seen[desc.Digest] = one
		p.wg.Add(1)
		go p.prove(context.WithoutCancel(ctx), desc, one)
	}
	p.mu.Unlock()
	select {
	case <-one.done:
		return one, one.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// prove finds out about a blob. That it is damaged is remembered; that it could not be read is
// not, for the next attempt may do better.
func (p *proofs) prove(ctx context.Context, desc ocispec.Descriptor, one *proof) {
	defer p.wg.Done()
	defer close(one.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case p.slot <- struct{}{}:
		defer func() { <-p.slot }()
		p.read(ctx, desc, one)
	case <-ctx.Done():
		one.err = ctx.Err()
	}
	if one.err != nil && !damage(one.err) {
		p.mu.Lock()
		delete(p.seen, desc.Digest)
		p.mu.Unlock()
	}
}

// read reads a blob from the source, and where that fails from what heals it. What is wrong
// with a blob is what the source itself answered: it may be that the drive is gone, which says
// nothing of the blob, whatever parity then makes of it.
func (p *proofs) read(ctx context.Context, desc ocispec.Descriptor, one *proof) {
	one.src = p.src
	if one.sums, one.err = sums(ctx, p.src, desc); one.err == nil {
		return
	}
	for _, other := range p.heal(desc) {
		got, err := sums(ctx, other, desc)
		if err == nil {
			one.src, one.sums, one.healed, one.err = other, got, true, nil
			return
		}
		one.err = fmt.Errorf("%w; reconstructing it: %v", one.err, err)
	}
}

func damage(err error) bool {
	return errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize)
}

// revoke notes that a blob is not any more what it was when it was proven. Where it may be
// healed, it is proven anew for whoever asks next.
func (p *proofs) revoke(desc ocispec.Descriptor, was *proof, err error) {
	healers := p.heal(desc)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[desc.Digest] != was {
		return // another has found it, and what is known now is newer
	}
	delete(p.seen, desc.Digest)
	if was.healed {
		p.lost[desc.Digest]++
	}
	for _, h := range healers {
		h.Forget(desc.Digest)
	}
	n := p.lost[desc.Digest]
	if len(healers) > 0 && n < maxHeals || n == 0 && !damage(err) {
		return
	}
	if n > 0 {
		err = fmt.Errorf("%w, though it was reconstructed %d times: the drive is failing", err, n)
	}
	one := &proof{done: make(chan struct{}), err: err}
	close(one.done)
	p.seen[desc.Digest] = one
}

// failed returns what is wrong with a blob, as far as that is known.
func (p *proofs) failed(d digest.Digest) error {
	p.mu.Lock()
	one := p.seen[d]
	p.mu.Unlock()
	if one == nil {
		return nil
	}
	select {
	case <-one.done:
		return one.err
	default:
		return nil
	}
}

// sums reads a blob to its end. It returns the sums of its slices if it is what desc names.
func sums(ctx context.Context, src content.Fetcher, desc ocispec.Descriptor) ([]sum, error) {
	rc, err := src.Fetch(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	r, err := content.NewReader(rc, desc)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, min(desc.Size, sliceSize))
	out := make([]sum, 0, content.SliceCount(min(desc.Size, 1<<40)))
	for left := desc.Size; left > 0; {
		part := buf[:min(left, sliceSize)]
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		out = append(out, sha256.Sum256(part))
		left -= int64(len(part))
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != io.EOF { // of an empty blob
		return nil, err
	}
	return out, nil
}

// proven reads a blob slice by slice, each compared with its sum before any of it is handed
// out.
type proven struct {
	ctx  context.Context
	src  content.Fetcher
	desc ocispec.Descriptor
	size int64
	sums []sum
	err  error // sticky; io.EOF is none

	rc   io.ReadCloser // stands at the slice next
	next int64
	buf  []byte // the slice cur, while len(buf) > 0
	cur  int64
	at   int64 // where the next Read begins
}

// Seek implements [io.Seeker]. It reads nothing.
func (r *proven) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	r.at = offset
	return offset, nil
}

// Read implements [io.Reader].
func (r *proven) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.at >= r.size {
		return 0, io.EOF
	}
	if i := r.at / sliceSize; len(r.buf) == 0 || r.cur != i {
		if r.err = r.load(i); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.buf[r.at-r.cur*sliceSize:])
	r.at += int64(n)
	return n, nil
}

func (r *proven) load(i int64) error {
	begin := i * sliceSize
	if r.rc == nil || r.next != i {
		r.Close()
		rc, err := r.src.Fetch(r.ctx, r.desc, begin)
		if err != nil {
			return err
		}
		r.rc = rc
	}
	if cap(r.buf) == 0 {
		r.buf = make([]byte, min(r.size, sliceSize))
	}
	buf := r.buf[:min(sliceSize, r.size-begin)]
	r.buf = r.buf[:0]
	if n, err := io.ReadFull(r.rc, buf); err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %d bytes of %d: %w", content.ErrSize, begin+int64(n), r.size, io.ErrUnexpectedEOF)
	} else if err != nil {
		return err
	}
	if sha256.Sum256(buf) != r.sums[i] {
		return fmt.Errorf("%w: it has changed since it was verified", content.ErrDigest)
	}
	r.buf, r.cur, r.next = buf, i, i+1
	return nil
}

// Close closes the source's reader.
func (r *proven) Close() {
	if r.rc != nil {
		r.rc.Close()
		r.rc = nil
	}
}
