package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// mapAll maps the three ranges and writes what tells them from others' memory.
// It may be called again when a call did not return in time: what that call
// has mapped meanwhile is recognized.
func (p *Probe) mapAll(h held, old *placed) error {
	if p.head == nil {
		if err := p.choose(h, old); err != nil {
			return err
		}
	}
	ranges := p.ranges(h)
	if err := allowed(h, ranges); err != nil {
		return err
	}
	for i := range ranges {
		if err := ranges[i].make(h); err != nil {
			if errors.Is(err, ptrace.ErrStuck) {
				return errMoment(err.Error())
			}
			for j := i; j >= 0; j-- {
				ranges[j].undo(h)
			}
			if p.used {
				p.head.data = nil
				return errors.Join(err, p.putHead(h))
			}
			return err
		}
	}
	return p.mayReadTime(h)
}

// choose decides where everything goes: text, state and books side by side
// where there is room within reach of the allocator, else the books elsewhere.
func (p *Probe) choose(h held, old *placed) (err error) {
	lowest, _ := p.t.Root.Sysctl("vm/mmap_min_addr")
	free := gaps(h.Maps(), p.exeMapping(h.Maps()), lowest)
	lo, hi := p.allocator.start, p.allocator.end()
	if p.libc.size > 0 {
		lo, hi = min(lo, p.libc.start), max(hi, p.libc.end())
	}
	if p.sited.size > 0 {
		lo, hi = min(lo, p.sited.start), max(hi, p.sited.end())
	}
	size := nearSize(filterLarge)
	p.text = region{size: textRegion}
	if old != nil && old.reaches(lo, hi) && old.head.nearSize == size {
		p.text, p.used, p.stayed = old.text, true, old.head.islands
	} else if p.text.start, err = near(free, lo, hi, textRegion+size+p.data.size, textAlign); err == nil {
		p.data.move(p.text.start + textRegion + size)
	} else if p.text.start, err = near(free, lo, hi, textRegion+size, textAlign); err != nil {
		return err
	}
	if p.data.start == 0 {
		at, err := far(free, p.data.size)
		if err != nil {
			return err
		}
		p.data.move(at)
	}
	self, err := p.t.Root.Self()
	if err != nil {
		return err
	}
	p.head = &header{
		version: wProbeVersion, textSize: uint32(len(blob)), build: buildID(), nearSize: size,
		owner: self.ID, data: []region{p.data.region},
	}
	return p.placeIslands(h, lowest, []region{p.text, {p.text.end(), size}, p.data.region})
}

// ranges lists what is to be mapped, in order. The header comes first, and
// says what else there may be.
func (p *Probe) ranges(h held) []mapping {
	const rw = unix.PROT_READ | unix.PROT_WRITE
	text := mapping{region: p.text, prot: unix.PROT_READ | unix.PROT_EXEC, mapped: p.used,
		begin: func() error { return p.putHead(h) }}
	state := mapping{region: p.near(), prot: rw, mapped: p.used, begin: func() error { return p.wipeOnFork(h) }}
	books := mapping{region: p.data.region, prot: rw, begin: func() error { return put64(h, p.data.start, magic) }}
	if p.data.start == state.end() {
		state.size += books.size
		begin := state.begin
		state.begin = func() error { return errors.Join(begin(), books.begin()) }
		return append([]mapping{text, state}, p.islandMappings(h)...)
	}
	return append([]mapping{text, state, books}, p.islandMappings(h)...)
}

// reaches reports whether the text lies near enough to [lo, hi).
func (p *placed) reaches(lo, hi uint64) bool {
	end := p.near().end()
	return max(hi, end)-min(lo, p.text.start) < reach
}

// mapping is a range to be mapped, and what is written there at once.
type mapping struct {
	region
	prot   uint64
	begin  func() error
	mapped bool // it was there before
	made   bool // it was mapped now
}

const mapFlags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE | unix.MAP_NORESERVE

func (m *mapping) call() ptrace.Syscall {
	return ptrace.Syscall{Nr: unix.SYS_MMAP, Args: [6]uint64{m.start, m.size, m.prot, mapFlags, ^uint64(0), 0}}
}

// allowed asks the target's seccomp filters about everything that placing and
// removing will call.
func allowed(h held, ranges []mapping) error {
	var calls []ptrace.Syscall
	for i := range ranges {
		m := &ranges[i]
		if !m.mapped {
			calls = append(calls, m.call())
		}
		calls = append(calls, ptrace.Syscall{Nr: unix.SYS_MUNMAP, Args: [6]uint64{m.start, m.size}})
		for _, advice := range []uint64{unix.MADV_DONTNEED, unix.MADV_WIPEONFORK} {
			calls = append(calls, ptrace.Syscall{Nr: unix.SYS_MADVISE, Args: [6]uint64{m.start, m.size, advice}})
		}
	}
	return h.Allowed(calls...)
}

// there reports whether the range is mapped already, as an earlier call would
// have: just so, and empty or begun by us.
func (m *mapping) there(h held) bool {
	now := proc.Find(h.Maps(), leak.Addr(m.start))
	if now == nil || !anonymous(now) || now.Exec != (m.prot&unix.PROT_EXEC != 0) || now.Write != (m.prot&unix.PROT_WRITE != 0) ||
		uint64(now.Start) != m.start {
		return false
	}
	b, err := read(h, m.start, pageSize)
	return err == nil && (order.Uint64(b) == magic || len(bytes.Trim(b, "\x00")) == 0)
}

func (m *mapping) make(h held) error {
	if !m.mapped && !m.there(h) {
		c := m.call()
		at, err := h.Call(c.Nr, c.Args[:]...)
		switch {
		case errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("%w: map %d KiB: %w", ErrNoRoom, m.size>>10, err)
		case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
			return fmt.Errorf("map %d KiB of the target: a security module (SELinux execmem?) refuses it: %w: %w", m.size>>10, proc.ErrDenied, err)
		case err != nil:
			return fmt.Errorf("map %d KiB of the target: %w", m.size>>10, err)
		case at != m.start:
			// Before Linux 4.17 the address is a hint.
			_, _ = h.Call(unix.SYS_MUNMAP, at, m.size)
			return fmt.Errorf("map %d KiB at %#x: the kernel chose %#x: %w", m.size>>10, m.start, at, proc.ErrUnsupported)
		}
		m.made = true
	}
	if err := m.begin(); err != nil {
		return err
	}
	// Huge pages would take 2 MB for each record, and long to be cleared.
	if c := (ptrace.Syscall{Nr: unix.SYS_MADVISE, Args: [6]uint64{m.start, m.size, unix.MADV_NOHUGEPAGE}}); m.prot&unix.PROT_WRITE != 0 && hugePages() && h.Allowed(c) == nil {
		_, _ = h.Call(c.Nr, c.Args[:]...)
	}
	return nil
}

// hugePages reports whether the kernel uses huge pages without being asked.
func hugePages() bool {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && strings.Contains(string(b), "[always]")
}

// undo unmaps a range that make mapped. Failing leaves memory behind that
// nobody uses, and that Detach finds by the header.
func (m *mapping) undo(h held) {
	if m.made {
		_, _ = h.Call(unix.SYS_MUNMAP, m.start, m.size)
	}
}

// wipeOnFork makes struct near read as zeros in forked children, and begins it.
func (p *Probe) wipeOnFork(h held) error {
	n := p.near()
	if _, err := h.Call(unix.SYS_MADVISE, n.start, n.size, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("MADV_WIPEONFORK (Linux 4.14): %w: %w", proc.ErrUnsupported, err)
	}
	return put64(h, p.state(wStateMagic), magic)
}

// mayReadTime asks whether the target may use rdtsc: prctl(PR_SET_TSC) can
// make it fatal. The answer is written behind struct state.
func (p *Probe) mayReadTime(h held) error {
	const prSigsegv = 2 // PR_TSC_SIGSEGV
	at := p.near().start + wNearSlot - 8
	c := ptrace.Syscall{Nr: unix.SYS_PRCTL, Args: [6]uint64{unix.PR_GET_TSC, at}}
	if h.Allowed(c) != nil {
		return nil // a filter that knows prctl(PR_GET_TSC) is rarer than a process that forbids rdtsc
	}
	if _, err := h.Call(c.Nr, c.Args[:]...); err != nil {
		return nil
	}
	if mode, err := get32(h, at); err == nil && mode == prSigsegv {
		return fmt.Errorf("the process forbids itself to read the time stamp counter (prctl PR_SET_TSC): %w", proc.ErrUnsupported)
	}
	return nil
}

// exeMapping finds a mapping of the executable.
func (p *Probe) exeMapping(maps []leak.Mapping) *leak.Mapping {
	for i := range maps {
		if maps[i].Inode == p.exec.Inode && maps[i].File() {
			return &maps[i]
		}
	}
	return nil
}
