package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// backing is a file on disk that a core's process had mapped.
type backing struct {
	f    *os.File
	size uint64
	err  error // why the file may not stand in for the core
}

func (b *backing) close() {
	if b.f != nil {
		b.f.Close()
	}
}

// readAt reads as a mapping would: zeros after the end of the file up to the
// end of its page, nothing beyond.
func (b *backing) readAt(p []byte, off uint64) (int, error) {
	last := (b.size + pageSize - 1) &^ (pageSize - 1)
	if off >= last {
		return 0, fmt.Errorf("beyond the end of the mapped file: %w", errNotDumped)
	}
	p = p[:min(uint64(len(p)), last-off)]
	n, err := b.f.ReadAt(p, int64(off))
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) {
		return n, err
	}
	clear(p[n:])
	return len(p), nil
}

// backing opens the file once and decides once whether it is the one that was
// mapped.
func (c *Core) backing(path string) *backing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.backings[path]; ok {
		return b
	}
	b := &backing{}
	c.backings[path] = b
	b.f, b.size, b.err = c.openSame(path)
	if b.err != nil {
		c.note("%v: its part of memory is missing where the core has none", b.err)
	}
	return b
}

// OpenFile opens the file behind m on this machine for reading; the caller
// closes it. It refuses a file that is not the one the process had mapped: its
// build-id or, without one, the first bytes of it in the core must agree; when
// the core has neither, the file must be long enough and older than the core.
func (c *Core) OpenFile(m *leak.Mapping) (*os.File, error) {
	if !m.File() {
		return nil, fmt.Errorf("mapping at %v (%s) is not a file: %w", m.Start, m.Path, ErrUnsupported)
	}
	f, _, err := c.openSame(m.Path)
	return f, err
}

func (c *Core) openSame(path string) (*os.File, uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	// The core names the path: should it be a FIFO by now, the open must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	if why := c.differs(path, f, info); why != "" {
		f.Close()
		return nil, 0, fmt.Errorf("%s is not the file this process had mapped (%s)", path, why)
	}
	return f, uint64(info.Size()), nil
}

// differs says why the file cannot be the one that was mapped, "" when it is,
// or when nothing speaks against it.
func (c *Core) differs(path string, f *os.File, info os.FileInfo) string {
	for i := range c.maps {
		m := &c.maps[i]
		if m.Path != path {
			continue
		}
		if m.Deleted {
			return "that one was deleted"
		}
		if m.BuildID != "" {
			if id := fileBuildID(f); id != m.BuildID {
				return fmt.Sprintf("build-id %s, not %s", orNone(id), m.BuildID)
			}
			return ""
		}
	}
	compared, newest := false, uint64(0)
	for i := range c.maps {
		m := &c.maps[i]
		if m.Path != path {
			continue
		}
		newest = max(newest, m.Offset+m.Size())
		if !m.Write && !m.Shared {
			same, some := c.compare(f, m)
			if !same {
				return "its first bytes differ from the core's"
			}
			compared = compared || some
		}
	}
	if compared {
		return ""
	}
	if uint64(info.Size())+pageSize <= newest {
		return "it is shorter"
	}
	if info.ModTime().After(c.info.ModTime()) {
		return "it was written after the core and has no build-id to compare"
	}
	return ""
}

// compare holds the first page of a read-only mapping, when the core has it,
// against the file.
func (c *Core) compare(f *os.File, m *leak.Mapping) (same, some bool) {
	i := overlapping(len(c.dumped), m.Start, func(i int) leak.Addr { return c.dumped[i].end })
	if i == len(c.dumped) || c.dumped[i].start > m.Start {
		return true, false
	}
	want := make([]byte, min(pageSize, uint64(c.dumped[i].end-m.Start), m.Size()))
	have := make([]byte, len(want))
	if _, err := c.f.ReadAt(want, int64(c.dumped[i].off+uint64(m.Start-c.dumped[i].start))); err != nil {
		return true, false
	}
	if _, err := f.ReadAt(have, int64(m.Offset)); err != nil && !errors.Is(err, io.EOF) {
		return true, false
	}
	return bytes.Equal(want, have), true
}

// BuildID gives the GNU build-id of the module of m in lower-case hex: from the
// core itself, else from the file on disk when nothing says that it is another
// one; "" when unknown.
func (c *Core) BuildID(m *leak.Mapping) string {
	if m.BuildID != "" || !m.File() || m.Shared {
		return m.BuildID
	}
	b := c.backing(m.Path)
	if b.err != nil {
		return ""
	}
	return fileBuildID(b.f)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
