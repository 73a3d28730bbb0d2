package baddrive

import (
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// front answers the kernel. Everything happens under one lock: calls are numbered, and a
// power cut falls between two of them.
type front struct {
	fuse.RawFileSystem // what is not here does not exist
	d                  *Drive
}

type status = fuse.Status

const (
	forever  = 1 << 30 // seconds that the kernel may rely on names and attributes: all changes pass through it
	blockLen = 4096
)

// begin notes a call, and says whether it fails.
func (d *Drive) begin(kind string, n *inode, name string, change func(*Op)) status {
	op := Op{Kind: kind, Path: n.path()}
	if name != "" {
		op.Path = name
		if n.parent != nil {
			op.Path = n.path() + "/" + name
		}
	}
	if change != nil {
		change(&op)
	}
	key := op.Kind + " " + op.Path
	d.count[key]++
	op.Nth = d.count[key]
	d.trace = append(d.trace, op)
	if op.Writes() {
		d.writes++
		if d.opts.OnWrite != nil {
			d.opts.OnWrite(d.writes)
		}
	}
	switch {
	case d.fault.Errno == 0:
	case !d.struck && d.fault.At(op):
		d.struck, d.hit = true, &op
		return status(d.fault.Errno)
	case d.struck && d.fault.Then != nil && d.fault.Then(op):
		return status(d.fault.Errno)
	}
	return fuse.OK
}

func (d *Drive) attr(n *inode, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.number, n.mode, 1
	out.Blksize = blockLen
	out.Uid, out.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
	if n.isDir() {
		out.Nlink = 2
	}
	out.Size = uint64(n.live.size)
	out.Blocks = uint64(len(n.live.pages)) * pageSize / 512
	t := time.Unix(0, n.mtime)
	out.SetTimes(&t, &t, &t)
}

func (d *Drive) entry(n *inode, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.number, 1
	out.EntryValid, out.AttrValid = forever, forever
	d.attr(n, &out.Attr)
}

func (f *front) Init(*fuse.Server) {}

func (f *front) String() string { return "baddrive" }

func (f *front) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.nodes[h.NodeId]
	if s := d.begin("lookup", dir, name, nil); !s.Ok() {
		return s
	}
	n := d.opts.Rules.find(dir, name)
	if n == nil {
		return fuse.ENOENT
	}
	d.entry(n, out)
	return fuse.OK
}

func (f *front) Forget(uint64, uint64) {} // a drive is small and a test is short

func (f *front) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[in.NodeId]
	if s := d.begin("getattr", n, "", nil); !s.Ok() {
		return s
	}
	out.AttrValid = forever
	d.attr(n, &out.Attr)
	return fuse.OK
}

func (f *front) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[in.NodeId]
	if size, ok := in.GetSize(); ok {
		if s := d.begin("truncate", n, "", func(o *Op) { o.Off = int64(size) }); !s.Ok() {
			return s
		}
		if d.opts.Rules.MaxFile > 0 && int64(size) > d.opts.Rules.MaxFile {
			return status(syscall.EFBIG)
		}
		n.live.truncate(int64(size))
	}
	if mode, ok := in.GetMode(); ok {
		if s := d.begin("chmod", n, "", nil); !s.Ok() {
			return s
		}
		if !d.opts.Rules.NoModes {
			n.mode = n.mode&syscall.S_IFMT | mode
		}
	}
	if t, ok := in.GetMTime(); ok {
		if s := d.begin("utimes", n, "", nil); !s.Ok() {
			return s
		}
		n.mtime = t.UnixNano()
	}
	out.AttrValid = forever
	d.attr(n, &out.Attr)
	return fuse.OK
}

// make adds a name.
func (d *Drive) make(kind string, dir *inode, name string, mode uint32) (*inode, status) {
	if s := d.begin(kind, dir, name, nil); !s.Ok() {
		return nil, s
	}
	if errno := d.opts.Rules.check(name); errno != 0 {
		return nil, status(errno)
	}
	if d.opts.Rules.find(dir, name) != nil {
		return nil, status(syscall.EEXIST)
	}
	if d.opts.Rules.full(dir, name) || d.free() < pageSize {
		return nil, status(syscall.ENOSPC)
	}
	if d.opts.Rules.NoModes {
		mode = mode&syscall.S_IFMT | 0o755
	}
	n := &inode{mode: mode, mtime: time.Now().UnixNano(), parent: dir, name: name}
	if n.isDir() {
		n.names, n.safeNames = map[string]*inode{}, map[string]*inode{}
	}
	d.add(n)
	dir.names[name] = n
	return n, fuse.OK
}

func (f *front) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n, s := d.make("mkdir", d.nodes[in.NodeId], name, in.Mode&0o7777|syscall.S_IFDIR)
	if s.Ok() {
		d.entry(n, out)
	}
	return s
}

func (f *front) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n, s := d.make("create", d.nodes[in.NodeId], name, in.Mode&0o7777|syscall.S_IFREG)
	if s.Ok() {
		d.entry(n, &out.EntryOut)
		out.Fh, out.OpenFlags = 1, fuse.FOPEN_KEEP_CACHE
	}
	return s
}

// Handles tell the files open for writing from the others: what fails when those are closed
// may have cost data.
func (f *front) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n, kind := d.nodes[in.NodeId], "open"
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		kind, out.Fh = "openrw", 1
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return d.begin(kind, n, "", nil)
}

func (f *front) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, status) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[in.NodeId]
	if s := d.begin("read", n, "", func(o *Op) { o.Off, o.Size = int64(in.Offset), len(buf) }); !s.Ok() {
		return nil, s
	}
	if n.freed {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(n.live.read(buf, int64(in.Offset))), fuse.OK
}

func (f *front) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, status) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n, off := d.nodes[in.NodeId], int64(in.Offset)
	if s := d.begin("write", n, "", func(o *Op) { o.Off, o.Size = off, len(data) }); !s.Ok() {
		if d.hit != nil && d.hit.Kind == "write" && d.fault.Then == nil {
			n.live.write(data[:len(data)/2], off) // and yet half of it arrived
		}
		return 0, s
	}
	if limit := d.opts.Rules.MaxFile; limit > 0 && off+int64(len(data)) > limit {
		if data = data[:max(0, limit-off)]; len(data) == 0 {
			return 0, status(syscall.EFBIG)
		}
	}
	if free := d.free(); free < int64(len(data)) {
		if data = data[:free]; len(data) == 0 {
			return 0, status(syscall.ENOSPC)
		}
	}
	if d.opts.Line != nil {
		d.opts.Line.Pass(len(data))
	}
	n.live.write(data, off)
	if d.root.used() > d.opts.RealSize {
		for i := off / pageSize; i*pageSize < off+int64(len(data)); i++ {
			delete(n.live.pages, i)
		}
	}
	if d.opts.Rot != nil {
		for i := off / pageSize * pageSize; i < off+int64(len(data)); i += pageSize {
			if d.opts.Rot(n.path(), i) {
				n.live.flip(i)
			}
		}
	}
	n.mtime = time.Now().UnixNano()
	return uint32(len(data)), fuse.OK
}

func (f *front) Flush(_ <-chan struct{}, in *fuse.FlushIn) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := "flush"
	if in.Fh == 1 {
		kind = "flushrw"
	}
	return d.begin(kind, d.nodes[in.NodeId], "", nil)
}

func (f *front) Release(<-chan struct{}, *fuse.ReleaseIn) {}

func (f *front) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opts.Line != nil {
		d.opts.Line.Drain()
	}
	time.Sleep(d.opts.SyncTime)
	n := d.nodes[in.NodeId]
	if s := d.begin("fsync", n, "", nil); !s.Ok() {
		return s
	}
	if !d.opts.LyingSync {
		n.fsync(d.opts.Rules)
	}
	return fuse.OK
}

func (f *front) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[in.NodeId]
	if s := d.begin("fsyncdir", n, "", nil); !s.Ok() {
		return s
	}
	if d.opts.Rules.NoDirSync {
		return status(syscall.EINVAL)
	}
	if !d.opts.LyingSync {
		n.syncNames()
	}
	return fuse.OK
}

func (f *front) remove(kind string, id uint64, name string) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.nodes[id]
	if s := d.begin(kind, dir, name, nil); !s.Ok() {
		return s
	}
	n := d.opts.Rules.find(dir, name)
	switch {
	case n == nil:
		return fuse.ENOENT
	case kind == "rmdir" && len(n.names) > 0:
		return status(syscall.ENOTEMPTY)
	}
	delete(dir.names, n.name)
	n.gone = true
	return fuse.OK
}

func (f *front) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) status {
	return f.remove("unlink", h.NodeId, name)
}

func (f *front) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) status {
	return f.remove("rmdir", h.NodeId, name)
}

func (f *front) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	from, to := d.nodes[in.NodeId], d.nodes[in.Newdir]
	s := d.begin("rename", from, oldName, func(o *Op) {
		if o.To = newName; to.parent != nil {
			o.To = to.path() + "/" + newName
		}
	})
	if !s.Ok() {
		return s
	}
	n, over := d.opts.Rules.find(from, oldName), d.opts.Rules.find(to, newName)
	if n == nil {
		return fuse.ENOENT
	}
	if errno := d.opts.Rules.check(newName); errno != 0 {
		return status(errno)
	}
	if over == nil && d.opts.Rules.full(to, newName) {
		return status(syscall.ENOSPC)
	}
	if d.opts.Rules.FAT && n.moved == nil && !n.isDir() {
		n.moved = &move{from: from, name: n.name, over: over}
	}
	delete(from.names, n.name)
	if over != nil {
		delete(to.names, over.name)
		over.gone = true
	}
	n.parent, n.name = to, newName
	to.names[newName] = n
	return fuse.OK
}

func (f *front) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begin("opendir", d.nodes[in.NodeId], "", nil)
}

func (f *front) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.nodes[in.NodeId]
	if s := d.begin("readdir", dir, "", nil); !s.Ok() {
		return s
	}
	names := slices.Sorted(maps.Keys(dir.names))
	for i := int(in.Offset); i < len(names); i++ {
		n := dir.names[names[i]]
		if !out.AddDirEntry(fuse.DirEntry{Name: names[i], Mode: n.mode, Ino: n.number, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

func (f *front) ReleaseDir(*fuse.ReleaseIn) {}

func (f *front) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.begin("statfs", d.root, "", nil); !s.Ok() {
		return s
	}
	out.Blocks = uint64(d.opts.Size / blockLen)
	out.Bfree = uint64(d.free() / blockLen)
	out.Bavail = out.Bfree
	out.Bsize, out.Frsize, out.NameLen = blockLen, blockLen, 255
	return fuse.OK
}

// Links do not exist on drives; whoever tries has written.
func (f *front) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, _ *fuse.EntryOut) status {
	return f.other(in.NodeId, name)
}

func (f *front) Symlink(_ <-chan struct{}, h *fuse.InHeader, _, name string, _ *fuse.EntryOut) status {
	return f.other(h.NodeId, name)
}

func (f *front) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, _ *fuse.EntryOut) status {
	return f.other(in.NodeId, name)
}

func (f *front) other(id uint64, name string) status {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin("other", d.nodes[id], name, nil)
	return fuse.EPERM
}
