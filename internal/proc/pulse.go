package proc

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// Pulse is what a sampler follows of a process from tick to tick.
type Pulse struct {
	Comm      [16]byte // as Stat.Comm, ended by a zero where it is shorter; of kernel threads the beginning
	State     byte     // as Stat.State
	PPID      int
	Flags     uint64 // PF_ flags
	Minor     uint64 // page faults that needed no reading from a disk, of all threads that there were
	Major     uint64 // and those that did
	CPU       time.Duration
	Threads   int
	Start     uint64 // clock ticks after boot
	Virtual   uint64 // bytes of address space; this and the rest are set by Memory
	RSS       uint64 // bytes
	Anonymous uint64 // of RSS, bytes that belong to no file and are not shared
}

// Kernel reports whether this is a kernel thread.
func (p *Pulse) Kernel() bool { return p.Flags&kthread != 0 }

// Zombie reports whether the process has ended and waits for its parent. One
// whose first thread alone has ended is none, though the kernel says so of it.
func (p *Pulse) Zombie() bool { return p.State == 'X' || p.State == 'Z' && p.Threads <= 1 }

// Headless reports whether the first thread has ended while others run on:
// then the kernel shows no memory and no descriptors.
func (p *Pulse) Headless() bool { return p.State == 'Z' && p.Threads > 1 }

// Stuck reports whether the first thread waits for what no signal ends, a disk or
// a file server. It may hold its memory locked meanwhile; with a server that is
// gone that is for ever, and whoever reads its command line or its page tables
// waits too.
func (p *Pulse) Stuck() bool { return p.State == 'D' }

// Pulse reads /proc/PID/stat.
func (r *Reader) Pulse(pid int, p *Pulse) error {
	b, err := r.File(pid, "stat")
	if err != nil {
		return err
	}
	return p.parse(b)
}

// Memory reads /proc/PID/statm, which later kernels sum exactly where the rss of
// stat stays an estimate: since Linux 6.2 each processor counts for itself, and
// what is not summed up yet is up to some 100 kB for each of them
// (include/linux/percpu_counter.h). A process without memory, such as one that
// ends, has zeros.
func (r *Reader) Memory(pid int, p *Pulse) error {
	b, err := r.File(pid, "statm")
	if err != nil {
		return err
	}
	p.parseMemory(b)
	return nil
}

func (p *Pulse) parseMemory(b []byte) {
	var pages [3]uint64 // size, resident, shared
	for i := range pages {
		pages[i], b = nextNumber(b)
	}
	size := uint64(os.Getpagesize())
	p.Virtual, p.RSS, p.Anonymous = pages[0]*size, pages[1]*size, less(pages[1], pages[2])*size
}

// The fields of /proc/PID/stat by their numbers in proc_pid_stat(5), after the
// state, which is the third.
const (
	statPPID    = 4
	statFlags   = 9
	statMinor   = 10
	statMajor   = 12
	statUTime   = 14
	statSTime   = 15
	statThreads = 20
	statStart   = 22
)

// parse reads the text of /proc/PID/stat. A comm may hold blanks and
// parentheses.
func (p *Pulse) parse(b []byte) error {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open || len(b) < end+4 {
		return fmt.Errorf("malformed stat %q", b)
	}
	*p = Pulse{State: b[end+2], Virtual: p.Virtual, RSS: p.RSS, Anonymous: p.Anonymous}
	copy(p.Comm[:], b[open+1:end])
	var ticks uint64
	b = b[end+3:]
	for field := statPPID; field <= statStart; field++ {
		if len(b) == 0 {
			return fmt.Errorf("stat ends before its field %d", field)
		}
		var n uint64
		n, b = nextNumber(b)
		switch field {
		case statPPID:
			p.PPID = int(n)
		case statFlags:
			p.Flags = n
		case statMinor:
			p.Minor = n
		case statMajor:
			p.Major = n
		case statUTime, statSTime:
			ticks += n
		case statThreads:
			p.Threads = int(n)
		case statStart:
			p.Start = n
		}
	}
	p.CPU = time.Duration(ticks) * (time.Second / 100) // USER_HZ is 100 on every Linux ABI
	return nil
}

// nextNumber reads a number after blanks; of a negative one, and of what is no
// number, it gives zero. rest begins behind it.
func nextNumber(b []byte) (n uint64, rest []byte) {
	i := 0
	for i < len(b) && b[i] == ' ' {
		i++
	}
	good := true
	for ; i < len(b) && b[i] != ' ' && b[i] != '\n'; i++ {
		digit := b[i] - '0'
		good = good && digit < 10
		n = n*10 + uint64(digit)
	}
	if !good {
		n = 0
	}
	return n, b[i:]
}
