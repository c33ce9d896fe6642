package proc

import "golang.org/x/sys/unix"

// Grip is a hold on one process: the files that are read of it on every tick
// stay open, so that reading them costs half, and it never reads another
// process that was given the PID. It takes three descriptors, and some 12 KiB
// of the kernel's memory, most of it the buffers of two open files of procfs.
// The process does not notice.
type Grip struct {
	stat, statm int
	fd          int // the directory, without the right to list it
}

// Grip takes hold of a process. The caller releases it. It is ErrGone when
// there is none; that it is the one that was meant, its start tells.
func (r *Reader) Grip(pid int) (*Grip, error) {
	g := &Grip{-1, -1, -1}
	for _, f := range []struct {
		to    *int
		name  string
		flags int
	}{{&g.stat, "stat", unix.O_RDONLY}, {&g.statm, "statm", unix.O_RDONLY}, {&g.fd, "fd", unix.O_PATH}} {
		r.setPath(pid, f.name)
		fd, err := unix.Openat(r.dir, string(r.path), f.flags|unix.O_CLOEXEC, 0)
		if err != nil {
			g.Release()
			return nil, plain(err)
		}
		*f.to = fd
	}
	return g, nil
}

// Release lets the process go; it may be called twice.
func (g *Grip) Release() {
	for _, fd := range []*int{&g.stat, &g.statm, &g.fd} {
		if *fd >= 0 {
			_ = unix.Close(*fd) // it was only read
			*fd = -1
		}
	}
}

// PulseOf is Pulse of a process that is held.
func (r *Reader) PulseOf(g *Grip, p *Pulse) error {
	b, err := r.again(g.stat)
	if err != nil {
		return err
	}
	return p.parse(b)
}

// MemoryOf is Memory of a process that is held.
func (r *Reader) MemoryOf(g *Grip, p *Pulse) error {
	b, err := r.again(g.statm)
	if err != nil {
		return err
	}
	p.parseMemory(b)
	return nil
}

// DescriptorsOf is Descriptors of a process that is held.
func (r *Reader) DescriptorsOf(g *Grip) (n int, ok bool, err error) {
	if !r.counts {
		return 0, false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(g.fd, &st); err != nil {
		return 0, false, plain(err)
	}
	return int(st.Size), true, nil
}

// again reads an open file from its start. stat and statm are one piece each,
// and shorter than the buffer.
func (r *Reader) again(fd int) ([]byte, error) {
	n, err := unix.Pread(fd, r.buf, 0)
	if err != nil {
		return nil, plain(err)
	}
	return r.buf[:n], nil
}
