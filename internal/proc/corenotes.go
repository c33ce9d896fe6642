package proc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"stanch/internal/leak"
)

// Types of the notes of a core, linux/elf.h. All but the last come under the
// name CORE, and sizes and layouts are those of x86-64.
const (
	ntPRStatus = 1
	ntPRPSInfo = 3
	ntAuxv     = 6
	ntFile     = 0x46494c45
	ntSigInfo  = 0x53494749
)

const pageSize = 4096 // of every x86-64

// fileRange is one entry of NT_FILE.
type fileRange struct {
	start, end leak.Addr
	off        uint64 // bytes
	path       string
}

// readNotes fills in all that the notes say and returns the mapped files.
func (c *Core) readNotes(segments []segment) ([]fileRange, error) {
	var files []fileRange
	c.auxv = map[uint64]uint64{}
	for _, s := range segments {
		if s.kind != ptNote {
			continue
		}
		if s.filesz > maxNotes {
			return nil, fmt.Errorf("%d bytes of notes: %w", s.filesz, ErrUnsupported)
		}
		b := make([]byte, s.filesz)
		if _, err := c.f.ReadAt(b, int64(s.off)); err != nil {
			return nil, fmt.Errorf("notes: %w", noEOF(err))
		}
		notes(b, s.algn, func(n note) bool {
			if n.name == "CORE" {
				files = append(files, c.readNote(n)...)
			}
			return true
		})
	}
	if len(c.threads) == 0 {
		return nil, fmt.Errorf("no thread in it (NT_PRSTATUS is missing): %w", ErrUnsupported)
	}
	if c.PID == 0 {
		c.PID = c.threads[0].TID
	}
	return files, nil
}

// readNote takes one note in. One that is too short for what it claims to be
// is left out.
func (c *Core) readNote(n note) []fileRange {
	le := binary.LittleEndian
	switch n.kind {
	case ntPRStatus:
		if t, ok := parsePRStatus(n.desc); ok {
			c.threads = append(c.threads, t)
		}
	case ntPRPSInfo:
		if len(n.desc) < 136 { // struct elf_prpsinfo
			break
		}
		c.PID, c.PPID = int(int32(le.Uint32(n.desc[24:]))), int(int32(le.Uint32(n.desc[28:])))
		c.Comm = cString(n.desc[40:56])
		c.Args = strings.TrimRight(cString(n.desc[56:136]), " ")
	case ntAuxv:
		for d := n.desc; len(d) >= 16; d = d[16:] {
			if key := le.Uint64(d); key != 0 { // AT_NULL
				c.auxv[key] = le.Uint64(d[8:])
			}
		}
	case ntSigInfo:
		if len(n.desc) < 24 { // siginfo_t: signo, errno, code, padding, then the address of a fault
			break
		}
		c.Signal, c.Code = int(int32(le.Uint32(n.desc))), int(int32(le.Uint32(n.desc[8:])))
		switch c.Signal {
		case 4, 7, 8, 11: // SIGILL SIGBUS SIGFPE SIGSEGV
			c.Address = leak.Addr(le.Uint64(n.desc[16:]))
		}
	case ntFile:
		return parseFileNote(n.desc)
	}
	return nil
}

// parseFileNote reads NT_FILE: count, page size, count times (start, end,
// offset in pages), then as many paths, each ended by NUL. What does not fit is
// left out.
func parseFileNote(b []byte) []fileRange {
	le := binary.LittleEndian
	if len(b) < 16 {
		return nil
	}
	count, page := le.Uint64(b), le.Uint64(b[8:])
	if count > uint64(len(b)-16)/25 { // an entry and an empty path
		return nil
	}
	files := make([]fileRange, 0, count)
	names := b[16+24*count:]
	for i := range count {
		e := b[16+24*i:]
		name, rest, ok := bytes.Cut(names, []byte{0})
		if !ok {
			break
		}
		names = rest
		r := fileRange{leak.Addr(le.Uint64(e)), leak.Addr(le.Uint64(e[8:])), le.Uint64(e[16:]) * page, string(name)}
		if r.start < r.end {
			files = append(files, r)
		}
	}
	return files
}

// cString is b up to its first NUL.
func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
