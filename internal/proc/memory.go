package proc

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// Mem is the memory of a live process, a stopped one, or a snapshot, through
// /proc/PID/mem. Reading that file keeps copy-on-write pages shared;
// process_vm_readv would copy each page of a snapshot.
type Mem struct {
	f *os.File
}

// Mem opens the target's memory for reading. The caller closes it. It needs
// the rights of ptrace attach (ErrDenied otherwise).
func (t *Target) Mem() (*Mem, error) { return t.Root.OpenMem(t.ID.PID, os.O_RDONLY) }

// OpenMem opens /proc/PID/mem of any process or thread; flag is os.O_RDONLY or
// os.O_RDWR.
func (r Root) OpenMem(pid, flag int) (*Mem, error) {
	f, err := os.OpenFile(r.Path(pid, "mem"), flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(pid, err)
	}
	return &Mem{f}, nil
}

// ReadAt reads memory at a; see leak.Memory.
func (m *Mem) ReadAt(p []byte, a leak.Addr) (int, error) {
	done := 0
	for done < len(p) {
		// Addresses at or above 1<<63 (vsyscall) are not file offsets.
		off := int64(a) + int64(done)
		if off < 0 {
			return done, fmt.Errorf("read %d bytes at %v: %w", len(p)-done, a, unix.EIO)
		}
		n, err := unix.Pread(int(m.f.Fd()), p[done:], off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("read %d bytes at %#x: %w", len(p)-done, off, err)
		}
		if n == 0 {
			return done, fmt.Errorf("read at %#x: %w", off, io.ErrUnexpectedEOF) // the address space is gone
		}
		done += n
	}
	return done, nil
}

// WriteAt writes memory at a, through page protection (FOLL_FORCE); the Mem
// must have been opened with os.O_RDWR. Shared file pages are refused by the
// kernel, private ones are copied first.
func (m *Mem) WriteAt(p []byte, a leak.Addr) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(int(m.f.Fd()), p[done:], int64(a)+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("write %d bytes at %v: %w", len(p), a, err)
		}
		if n == 0 {
			return done, fmt.Errorf("write at %v: %w", a, ErrGone) // the address space is gone
		}
		done += n
	}
	return done, nil
}

// Close releases the descriptor. It may be called twice.
func (m *Mem) Close() error {
	if err := m.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
