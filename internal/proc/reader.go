package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reader reads the same few files of many processes again and again: paths are
// resolved from one open directory, and nothing is allocated for a read. Every
// slice that it gives is its own buffer, valid until its next call. It is for
// one goroutine. Its errors are ErrGone and ErrDenied as they are, without the
// PID, and what the kernel says else.
type Reader struct {
	dir    int  // procfs
	real   bool // dir is a procfs
	counts bool // a stat of PID/fd gives the number of descriptors
	path   []byte
	buf    []byte
	names  []byte // of a directory that is being read, while buf is in use
}

// maxFile bounds what is read of one file: what is longer is cut.
const maxFile = 1 << 20

// Reader opens procfs. The caller closes it.
func (r Root) Reader() (*Reader, error) {
	dir, err := unix.Open(string(r), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", string(r), err)
	}
	reader := &Reader{dir: dir, buf: make([]byte, 16<<10), names: make([]byte, 16<<10)}
	var fs unix.Statfs_t
	var st unix.Stat_t
	// Linux 6.2 counts; other file systems give their directories sizes of
	// another meaning.
	reader.real = unix.Fstatfs(dir, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
	if reader.real && unix.Fstatat(dir, "self/fd", &st, 0) == nil {
		reader.counts = st.Size > 0
	}
	return reader, nil
}

// Real reports whether the kernel makes what is read, and not a test.
func (r *Reader) Real() bool { return r.real }

// Close may be called twice.
func (r *Reader) Close() error {
	if r.dir < 0 {
		return nil
	}
	dir := r.dir
	r.dir = -1
	return unix.Close(dir)
}

// PIDs appends the processes to list, in the order of procfs: by number.
func (r *Reader) PIDs(list []int) ([]int, error) {
	if _, err := unix.Seek(r.dir, 0, 0); err != nil {
		return list, err
	}
	err := r.each(r.dir, func(name []byte) {
		if pid, ok := number10(name); ok {
			list = append(list, int(pid))
		}
	})
	return list, err
}

// File reads a file of a process: File(1, "statm").
func (r *Reader) File(pid int, name string) ([]byte, error) {
	r.setPath(pid, name)
	return r.read()
}

func (r *Reader) setPath(pid int, name string) {
	r.path = strconv.AppendInt(r.path[:0], int64(pid), 10)
	r.path = append(r.path, '/')
	r.path = append(r.path, name...)
}

// Host reads a file below procfs, or one by its absolute path.
func (r *Reader) Host(path string) ([]byte, error) {
	r.path = append(r.path[:0], path...)
	return r.read()
}

// Link reads a link of a process: Link(1, "exe").
func (r *Reader) Link(pid int, name string) ([]byte, error) {
	n, err := unix.Readlinkat(r.dir, strconv.Itoa(pid)+"/"+name, r.buf)
	if err != nil {
		return nil, plain(err)
	}
	return r.buf[:n], nil
}

// Descriptors counts the open descriptors by a stat, which anybody may do who
// sees the process; ok is false where the kernel does not tell, before Linux
// 6.2.
func (r *Reader) Descriptors(pid int) (n int, ok bool, err error) {
	if !r.counts {
		return 0, false, nil
	}
	r.setPath(pid, "fd\x00")
	var st unix.Stat_t
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(r.dir), uintptr(unsafe.Pointer(&r.path[0])), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
	if errno != 0 {
		return 0, false, plain(errno)
	}
	return int(st.Size), true, nil
}

// Links calls each with the link of every open descriptor, and counts them.
// It costs a readlink each. One that is closed meanwhile is counted alone. It
// needs the rights of ptrace attach.
func (r *Reader) Links(pid int, each func(link []byte)) (n int, err error) {
	dir, err := unix.Openat(r.dir, strconv.Itoa(pid)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, plain(err)
	}
	defer unix.Close(dir) //nolint:errcheck // it was only read
	err = r.each(dir, func(name []byte) {
		if _, ok := number10(name); !ok {
			return
		}
		n++
		r.path = append(append(r.path[:0], name...), 0)
		size, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&r.path[0])), uintptr(unsafe.Pointer(&r.buf[0])), uintptr(len(r.buf)), 0, 0)
		if errno == 0 {
			each(r.buf[:size])
		}
	})
	return n, plain(err)
}

// Lines calls each with every line of a file of a process that may be long, as
// the tables of sockets are. A line longer than the buffer, 16 KiB at first, is
// given in pieces.
func (r *Reader) Lines(pid int, name string, each func(line []byte)) error {
	fd, err := unix.Openat(r.dir, strconv.Itoa(pid)+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return plain(err)
	}
	defer unix.Close(fd) //nolint:errcheck // it was only read
	have := 0
	for {
		n, err := unix.Read(fd, r.buf[have:])
		if err != nil {
			return plain(err)
		}
		b := r.buf[:have+n]
		for {
			line, rest, whole := bytes.Cut(b, []byte{'\n'})
			if !whole && n > 0 && len(b) < len(r.buf) {
				break
			}
			if len(b) > 0 {
				each(line)
			}
			b = rest
			if !whole {
				break
			}
		}
		if n == 0 {
			return nil
		}
		have = copy(r.buf, b)
	}
}

// read reads the file at path, from the start to its end.
func (r *Reader) read() ([]byte, error) {
	r.path = append(r.path, 0)
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(r.dir), uintptr(unsafe.Pointer(&r.path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return nil, plain(errno)
	}
	defer unix.Close(int(fd)) //nolint:errcheck // it was only read
	have := 0
	for {
		n, err := unix.Read(int(fd), r.buf[have:])
		if err != nil {
			return nil, plain(err)
		}
		have += n
		// procfs gives less than a page when a line did not fit: only zero is
		// the end. A file that fills less than half of a page is whole.
		if n == 0 || have == n && n < os.Getpagesize()/2 || have == maxFile {
			return r.buf[:have], nil
		}
		if have == len(r.buf) {
			r.buf = append(r.buf, make([]byte, have)...)
		}
	}
}

// Offsets in struct linux_dirent64, getdents64(2).
const (
	direntLength = 16
	direntName   = 19
)

// each calls f with the names in an open directory.
func (r *Reader) each(dir int, f func(name []byte)) error {
	for {
		n, err := unix.Getdents(dir, r.names)
		if err != nil {
			return plain(err)
		}
		if n <= 0 {
			return nil
		}
		for b := r.names[:n]; len(b) > direntName; {
			size := int(b[direntLength]) | int(b[direntLength+1])<<8
			if size <= direntName || size > len(b) {
				return fmt.Errorf("a directory entry of %d bytes", size)
			}
			name := b[direntName:size]
			for i, c := range name {
				if c == 0 {
					name = name[:i]
					break
				}
			}
			f(name)
			b = b[size:]
		}
	}
}

// plain turns what the kernel says into the sentinels.
func plain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return ErrDenied
	}
	return err
}

// number10 reads a name that is digits alone.
func number10(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}
