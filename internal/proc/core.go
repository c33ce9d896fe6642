package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"stanch/internal/leak"
)

// Core is an ELF core file of a 64-bit x86 Linux process, written by the kernel
// or by gdb's gcore. It is a leak.Memory: the file is read where asked, never
// loaded. Memory that the core leaves out but a file on disk still has (program
// text, mostly) is read from that file as long as the file is provably or
// probably the same; Notes says where it is not. All methods may be called from
// several goroutines at once.
type Core struct {
	Path    string
	PID     int       // the process, in its own PID namespace
	PPID    int       // its parent; in a core that the kernel wrote, the thread of the parent that made it
	Comm    string    // the first 15 bytes of the process name
	Args    string    // the first 79 bytes of the command line, as ps shows it; not masked
	Signal  int       // what ended the process; SIGSTOP (19) or 0 in a core that gcore made of a live one
	Code    int       // si_code of that signal
	Address leak.Addr // si_addr, for SIGSEGV, SIGBUS, SIGFPE and SIGILL

	f        *os.File
	info     os.FileInfo
	dumped   []dumped // sorted by address
	maps     []leak.Mapping
	threads  []CoreThread
	auxv     map[uint64]uint64
	mu       sync.Mutex
	backings map[string]*backing
	notes    []string
}

// dumped is a piece of memory that stands in the core.
type dumped struct {
	start, end leak.Addr
	off        uint64
}

// Keys of the auxiliary vector, getauxval(3).
const (
	AuxPhdr   = 3  // AT_PHDR: the executable's program headers in memory
	AuxPhnum  = 5  // AT_PHNUM
	AuxBase   = 7  // AT_BASE: where the dynamic linker lies
	AuxEntry  = 9  // AT_ENTRY
	AuxUID    = 11 // AT_UID
	AuxRandom = 25 // AT_RANDOM: 16 bytes at the start of the main stack
	AuxExecFn = 31 // AT_EXECFN: the executable's name, on the main stack
	AuxVDSO   = 33 // AT_SYSINFO_EHDR: the vdso's ELF header
)

// OpenCore opens an ELF core file. The caller closes it. A file that is no
// core, is cut short, or is of another architecture gives one line that says so
// and wraps ErrUnsupported.
func OpenCore(path string) (*Core, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c := &Core{Path: path, f: f, backings: map[string]*backing{}}
	if err := c.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("core file %s: %w", path, err)
	}
	return c, nil
}

func (c *Core) read() error {
	info, err := c.f.Stat()
	if err != nil {
		return err
	}
	c.info = info
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a regular file: %w", ErrUnsupported)
	}
	h, err := readHead(c.f)
	if err != nil {
		return c.notELF(c.short(err, elfHeaderSize))
	}
	if err := coreKind(h); err != nil {
		return err
	}
	segments, err := readSegments(c.f, h)
	if err != nil {
		return c.short(err, h.phoff+uint64(h.phnum)*elfPhdrSize)
	}
	var need uint64
	for _, s := range segments {
		if s.off+s.filesz < s.off || s.vaddr+s.memsz < s.vaddr {
			return fmt.Errorf("a segment at %#x is larger than the address space: %w", s.vaddr, ErrUnsupported)
		}
		need = max(need, s.off+s.filesz)
	}
	if uint64(info.Size()) < need {
		return c.short(io.ErrUnexpectedEOF, need)
	}
	files, err := c.readNotes(segments)
	if err != nil {
		return err
	}
	c.layOut(segments, files)
	return nil
}

// coreKind refuses what is not a core of a 64-bit x86 process.
func coreKind(h elfHead) error {
	switch {
	case h.kind != etCore:
		return fmt.Errorf("an ELF file but not a core file (type %d): %w", h.kind, ErrUnsupported)
	case h.machine != emX8664:
		return fmt.Errorf("a core of another architecture (%s), stanch reads x86-64 alone: %w", machineName(h.machine), ErrUnsupported)
	case h.class != elfClass64:
		return fmt.Errorf("a core of a 32-bit process, stanch reads 64-bit ones alone: %w", ErrUnsupported)
	}
	return nil
}

// short says how much of a cut-off core is there.
func (c *Core) short(err error, need uint64) error {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("truncated: %d of %d bytes are there (disk full, or a limit on core size); nothing can be proved from it: %w", c.info.Size(), need, ErrUnsupported)
}

// notELF says what the file is instead, where that helps.
func (c *Core) notELF(err error) error {
	if !errors.Is(err, errNotELF) {
		return err
	}
	head := make([]byte, 6)
	n, _ := c.f.ReadAt(head, 0)
	for magic, how := range map[string]string{
		"\x28\xb5\x2f\xfd": "zstd -d",
		"\xfd7zXZ\x00":     "xz -d",
		"\x04\x22\x4d\x18": "lz4 -d",
		"\x1f\x8b":         "gzip -d",
	} {
		if strings.HasPrefix(string(head[:n]), magic) {
			return fmt.Errorf("it is compressed, unpack it first (%s; coredumpctl dump does it too): %w", how, ErrUnsupported)
		}
	}
	if n == 0 {
		return fmt.Errorf("it is empty: %w", ErrUnsupported)
	}
	return fmt.Errorf("%w: %w", err, ErrUnsupported)
}

// Close releases the core and the files opened beside it. It may be called
// twice.
func (c *Core) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.backings {
		b.close()
	}
	if err := c.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Maps lists the mappings, sorted by address, as /proc/PID/maps would have
// them. They come from the program headers and the NT_FILE note. A core has no
// device and inode numbers: Dev is 0, Inode numbers the paths from 1. Path is
// "[stack]" where the auxiliary vector points (else the main thread's stack
// pointer), "[vdso]" where it says so, and "" for the heap, which a core does
// not tell from other anonymous memory. Shared is known for /dev/zero, SYSV,
// /memfd: and /dev/shm files alone. The slice is shared: not to be changed.
func (c *Core) Maps() []leak.Mapping { return c.maps }

// Threads lists the threads, the one that ended the process first.
func (c *Core) Threads() []CoreThread { return c.threads }

// Aux looks a key of the auxiliary vector up.
func (c *Core) Aux(key uint64) (uint64, bool) {
	v, ok := c.auxv[key]
	return v, ok
}

// Notes says what weakens this core, in words for a report: files that changed
// since, memory that was not dumped. It grows as memory is read.
func (c *Core) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notes)
}

// note adds a line to the notes; the caller holds c.mu.
func (c *Core) note(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !slices.Contains(c.notes, line) {
		c.notes = append(c.notes, line)
	}
}

// ReadAt reads memory at a; see leak.Memory. What is neither in the core nor in
// a matching file is a hole.
func (c *Core) ReadAt(p []byte, a leak.Addr) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.readPiece(p[done:], a+leak.Addr(done))
		done += n
		if err != nil {
			return done, fmt.Errorf("read %d bytes at %v: %w", len(p)-done, a+leak.Addr(done), err)
		}
	}
	return done, nil
}

var errNotDumped = errors.New("not in the core file")

// readPiece reads up to the next border between dumped and backed memory, at
// least one byte when err is nil.
func (c *Core) readPiece(p []byte, a leak.Addr) (int, error) {
	i := overlapping(len(c.dumped), a, func(i int) leak.Addr { return c.dumped[i].end })
	if i < len(c.dumped) && c.dumped[i].start <= a {
		d := &c.dumped[i]
		p = p[:min(uint64(len(p)), uint64(d.end-a))]
		n, err := c.f.ReadAt(p, int64(d.off+uint64(a-d.start)))
		if n == len(p) {
			return n, nil
		}
		return n, noEOF(err)
	}
	if i < len(c.dumped) {
		p = p[:min(uint64(len(p)), uint64(c.dumped[i].start-a))]
	}
	m := Find(c.maps, a)
	if m == nil || !m.File() || m.Shared || m.Write {
		// What the process may have written is not what the file says. The
		// kernel dumps a private mapping as soon as one page of it was written.
		return 0, errNotDumped
	}
	b := c.backing(m.Path)
	if b.err != nil {
		return 0, b.err
	}
	p = p[:min(uint64(len(p)), uint64(m.End-a))]
	return b.readAt(p, uint64(a-m.Start)+m.Offset)
}
