package proc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// OpenDescriptors is what a process has open, and what was not read of it.
type OpenDescriptors struct {
	Open []leak.Descriptor // in order of their numbers, without Socket
	// Unasked counts epoll descriptors whose flags were left unread, since
	// the kernel would hold their lock for long: they are listed as
	// close-on-exec.
	Unasked int
}

// manyWatched is the number of descriptors above which the flags of an epoll
// descriptor are not asked for. Its fdinfo names each descriptor that it
// watches, under the lock that epoll_wait needs (ep_show_fdinfo in
// fs/eventpoll.c), at about 1 us each, and is made again for each doubling of
// its text: at 1000 the program waits about 1 ms at most.
const manyWatched = 1000

// OpenDescriptors lists the open descriptors with their flags and the
// attributes of their files. Nothing is opened through a link: it costs the
// target what lsof does. A descriptor that is closed meanwhile is left out.
func (t *Target) OpenDescriptors(ctx context.Context) (*OpenDescriptors, error) {
	dir, err := os.Open(t.Path("fd"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	defer dir.Close()
	info, err := os.Open(t.Path("fdinfo"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	defer info.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	l := &fdLister{ctx: ctx, target: t, names: names, found: make([]leak.Descriptor, len(names)), dir: int(dir.Fd()), info: int(info.Fd())}
	if err := l.readAll(); err != nil {
		return nil, gone(t.ID.PID, err)
	}
	if err := t.Check(); err != nil {
		return nil, err
	}
	list := &OpenDescriptors{Open: l.found[:0], Unasked: int(l.unasked.Load())}
	for i := range l.found {
		if l.found[i].Kind != "" {
			list.Open = append(list.Open, l.found[i])
		}
	}
	return list, nil
}

// fdLister reads descriptors, several at once.
type fdLister struct {
	ctx       context.Context
	target    *Target
	names     []string
	found     []leak.Descriptor // by index in names; no Kind: closed meanwhile
	dir, info int               // /proc/PID/fd and fdinfo
	next      atomic.Int64      // the next index nobody has taken
	unasked   atomic.Int64
}

// fdBatch is how many descriptors a worker takes at once.
const fdBatch = 256

func (l *fdLister) readAll() error {
	workers := min(runtime.GOMAXPROCS(0), 4, 1+len(l.names)/(4*fdBatch))
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for i := range workers {
		wait.Go(func() { errs[i] = l.read() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// read takes batches until none is left.
func (l *fdLister) read() error {
	r := fdReader{fdLister: l}
	for {
		end := l.next.Add(fdBatch)
		start := int(end) - fdBatch
		if start >= len(l.names) {
			return nil
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
		for i := start; i < min(int(end), len(l.names)); i++ {
			num, err := strconv.Atoi(l.names[i])
			if err != nil {
				continue
			}
			l.found[i].Num = num
			err = r.one(l.names[i], &l.found[i])
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
}

// fdReader is one worker with its buffers.
type fdReader struct {
	*fdLister
	link [4096]byte // PATH_MAX
	text [256]byte  // of fdinfo; the lines that are used come first
}

// one reads a descriptor; ENOENT when it is closed.
func (r *fdReader) one(name string, d *leak.Descriptor) error {
	const reuses = 3 // how often a number is closed and opened under our eyes before we give in
	for range reuses {
		n, err := unix.Readlinkat(r.dir, name, r.link[:])
		if err != nil {
			return err
		}
		fd := parseFD(d.Num, string(r.link[:n]))
		if fd.Kind == "eventpoll" && len(r.names) > manyWatched {
			r.unasked.Add(1)
			*d = leak.Descriptor{Num: fd.Num, Kind: fd.Kind, Name: fd.Link, Access: "rw", CloseOnExec: true}
			return nil
		}
		flags, inode, err := r.flags(name)
		if err != nil {
			return err
		}
		if fd.Inode != 0 && inode != 0 && inode != fd.Inode {
			continue // another file by now
		}
		*d = leak.Descriptor{Num: fd.Num, Kind: fd.Kind, Name: fd.Link, Inode: fd.Inode, CloseOnExec: flags&unix.O_CLOEXEC != 0, Access: access(flags)}
		if fd.Class == FDFile || fd.Class == FDOther && fd.Inode == 0 {
			r.file(name, d)
		}
		return nil
	}
	return unix.ENOENT
}

// flags reads the open flags and the inode (Linux 5.14, else 0) of fdinfo.
func (r *fdReader) flags(name string) (flags, inode uint64, err error) {
	fd, err := unix.Openat(r.info, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	n, err := unix.Read(fd, r.text[:])
	_ = unix.Close(fd) // it was only read
	if err != nil {
		return 0, 0, err
	}
	flags, inode = parseFlags(r.text[:n])
	return flags, inode, nil
}

// parseFlags reads the head of fdinfo, proc_pid_fdinfo(5), without the garbage
// that FDInfo makes.
func parseFlags(text []byte) (flags, inode uint64) {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		text = rest
		key, value, _ := bytes.Cut(line, []byte{':'})
		switch string(key) {
		case "flags":
			flags = number(value, 8)
		case "ino":
			return flags, number(value, 10)
		}
	}
	return flags, inode
}

// number reads digits of a base up to 10 after spaces, as far as they go.
func number(b []byte, base uint64) (n uint64) {
	for _, c := range bytes.TrimLeft(b, " \t") {
		digit := uint64(c - '0')
		if digit >= base {
			break
		}
		n = n*base + digit
	}
	return n
}

// access names the access mode; "" for a path without one and for a mode that
// allows ioctl alone.
func access(flags uint64) string {
	if flags&unix.O_PATH != 0 {
		return ""
	}
	return [4]string{"r", "w", "rw", ""}[flags&unix.O_ACCMODE]
}

// file adds what stat tells of a file with a name. A file server that does not
// answer cannot hold us up: what the kernel has in its cache is enough.
func (r *fdReader) file(name string, d *leak.Descriptor) {
	var st unix.Statx_t
	err := unix.Statx(r.dir, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE|unix.STATX_NLINK, &st)
	if err != nil {
		return // closed meanwhile, or an old kernel: the name is all we have
	}
	d.Inode, d.Dev = st.Ino, unix.Mkdev(st.Dev_major, st.Dev_minor)
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		d.Size = st.Size
		if d.Kind == "other" {
			d.Kind = "file" // outside of our root directory
		}
	case unix.S_IFDIR:
		d.Kind = "directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		d.Kind = "device"
	case unix.S_IFIFO:
		d.Kind = "fifo"
	case unix.S_IFSOCK:
		d.Kind = "socket file" // opened by its path, with O_PATH
	}
	// The kernel appends the word to the name of what was unlinked (d_path); a
	// name may also end so.
	path, marked := strings.CutSuffix(d.Name, " (deleted)")
	switch {
	case !marked:
	case d.Kind == "memfd":
		d.Name = path
	case st.Nlink == 0 || !r.target.isFile(d.Name, &st):
		d.Name, d.Deleted = path, true
	}
}

// isFile reports whether the target sees the file of st at path.
func (t *Target) isFile(path string, st *unix.Statx_t) bool {
	var at unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, t.Path("root")+path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &at)
	return err == nil && at.Ino == st.Ino && at.Dev_major == st.Dev_major && at.Dev_minor == st.Dev_minor
}
